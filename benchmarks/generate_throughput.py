"""Measure step 10's batches against a loop of `model.generate`, one prompt at a time, in one run.

    python3 benchmarks/generate_throughput.py
    python3 benchmarks/generate_throughput.py --shape gpt2 --repetitions 3

64 prompts of 4 to 32 random tokens, 64 new tokens each, greedy, random weights. The two take turns;
the figures are medians. Both in float32 must give the same tokens; bf16 is reported beside them.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from import_modules import cpu_has_bf16  # noqa: E402
from toolkit.batch import continue_all  # noqa: E402
from toolkit.byte_level_bpe import train_byte_level_bpe  # noqa: E402
from toolkit.generator import Generator  # noqa: E402
from toolkit.memory import keep_freed_memory  # noqa: E402
from toolkit.sampling import Sampling  # noqa: E402

SHAPES = {
    "small": {"n_layer": 4, "n_head": 4, "n_embd": 256, "n_positions": 256, "vocab_size": 4096},
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--repetitions", type=int, default=3)
    given = parser.parse_args()
    torch.manual_seed(0)
    config = GPT2Config(**SHAPES[given.shape], bos_token_id=None, eos_token_id=None)
    model = GPT2LMHeadModel(config).eval()
    lengths = torch.randint(4, 33, (PROMPTS,)).tolist()
    prompts = [torch.randint(config.vocab_size, (length,)).tolist() for length in lengths]
    keep_freed_memory()
    tokenizer = EveryEntry(config.vocab_size)
    ways = {"one by one, fp32": lambda: one_by_one(model, prompts)}
    for precision in ("fp32", "bf16") if cpu_has_bf16() else ("fp32",):
        generator = Generator(model, tokenizer, precision)
        ways[f"batched, {precision}"] = lambda generator=generator: batched(generator, prompts)
    seconds, said = {name: [] for name in ways}, {}
    for _ in range(given.repetitions):
        for name, way in ways.items():
            began = time.perf_counter()
            said[name] = way()
            seconds[name].append(time.perf_counter() - began)
    first = next(iter(ways))
    for name in ways:
        rate = PROMPTS * NEW / statistics.median(seconds[name])
        times = statistics.median(
            one / other for one, other in zip(seconds[first], seconds[name], strict=True)
        )
        same = sum(a == b for a, b in zip(said[first], said[name], strict=True))
        print(f"{name:18}{rate:8,.0f} tokens/s {times:6.1f}x  {same} of {PROMPTS} texts the same")


if __name__ == "__main__":
    main()
