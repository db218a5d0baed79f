"""Measure step 10's batches against a loop of `model.generate`, one prompt at a time, in one run.

    python3 benchmarks/generate_throughput.py --shape mini
    python3 benchmarks/generate_throughput.py --shape gpt2 --repetitions 3

64 prompts of 4 to 32 random tokens, 64 new tokens each, greedy, random weights, all made here.
After a round to warm up all ways take turns; printed are medians. In float32 the texts must
be those of the loop, token for token; bf16 is beside it, and so is each prompt alone.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    __import__("install_libraries").enter_environment()

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

from import_modules import cpu_has_bf16
from toolkit.model.byte_level_bpe import train_byte_level_bpe
from toolkit.model.gpt2 import take_over
from toolkit.writing.continue_prompts import continue_all
from toolkit.writing.generator import Generator
from toolkit.writing.sampling import Sampling

SHAPES = {
    "mini": {"n_layer": 6, "n_head": 4, "n_embd": 256, "n_positions": 256, "vocab_size": 4096},
    "gpt2": {},  # 124M parameters
}
PROMPTS, NEW = 64, 64
GREEDY = Sampling(max_new_tokens=NEW, temperature=0, top_p=1, top_k=0, num_samples=1)


class EveryEntry:
    """Enough of a tokenizer: all entries are tokens, and none ends a text."""

    eos_token_id = None

    def __init__(self, size: int):
        self.size = size
        self.backend_tokenizer = train_byte_level_bpe(["a"], 257, 64).backend_tokenizer

    def __len__(self) -> int:
        return self.size


def one_by_one(model: GPT2LMHeadModel, prompts: list[list[int]]) -> list[list[int]]:
    settings = GenerationConfig(max_new_tokens=NEW, do_sample=False, pad_token_id=0)
    found = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            output = model.generate(
                ids, attention_mask=torch.ones_like(ids), generation_config=settings
            )
        found.append(output[0, len(prompt) :].tolist())
    return found


def batched(generator: Generator, prompts: list[list[int]]) -> list[list[int]]:
    return [row.new for (row,) in continue_all(generator, prompts, [GREEDY] * len(prompts), 0)]


def ways_to_generate(
    model: GPT2LMHeadModel, prompts: list[list[int]]
) -> dict[str, Callable[[], list[list[int]]]]:
    tokenizer = EveryEntry(model.config.vocab_size)
    ways = {"model.generate, one by one, fp32": lambda: one_by_one(model, prompts)}
    for precision in ("fp32", "bf16") if cpu_has_bf16() else ("fp32",):
        generator = Generator(take_over(model), tokenizer, precision)
        ways[f"one batch, {precision}"] = lambda generator=generator: batched(generator, prompts)
        ways[f"ours, one by one, {precision}"] = lambda generator=generator: [
            batched(generator, [prompt])[0] for prompt in prompts
        ]
    return ways


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="mini")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    given = parser.parse_args()
    torch.manual_seed(0)
    config = GPT2Config(**SHAPES[given.shape], bos_token_id=None, eos_token_id=None)
    model = GPT2LMHeadModel(config).eval()
    lengths = torch.randint(4, 33, (given.prompts,)).tolist()
    prompts = [torch.randint(config.vocab_size, (length,)).tolist() for length in lengths]
    ways = ways_to_generate(model, prompts)
    said = {name: way() for name, way in ways.items()}  # warm
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(given.repetitions):
        for name, way in ways.items():
            began = time.perf_counter()
            said[name] = way()
            seconds[name].append(time.perf_counter() - began)
    loop = next(iter(ways))
    print(
        f"{given.shape}, {given.prompts} prompts x {NEW} tokens, {torch.get_num_threads()} threads"
    )
    print("\n| | tokens/s | times the loop | texts as the loop's |\n|---|---|---|---|")
    for name in ways:
        rate = given.prompts * NEW / statistics.median(seconds[name])
        times = statistics.median(
            one / other for one, other in zip(seconds[loop], seconds[name], strict=True)
        )
        same = sum(a == b for a, b in zip(said[loop], said[name], strict=True))
        print(f"| {name} | {rate:,.0f} | {times:.1f} | {same} of {given.prompts} |")


if __name__ == "__main__":
    main()
