"""Measure step 10's batches against a loop of `model.generate`, one prompt at a time, in one run.

    python3 benchmarks/generate_throughput.py --shape mini
    python3 benchmarks/generate_throughput.py --shape gpt2 --repetitions 3
    python3 benchmarks/generate_throughput.py --shape toy    # to see whether it runs

64 prompts of 4 to 32 random tokens, 64 new tokens each (16 of the toy), greedy, random weights, all
made here. After a round to warm up all ways take turns; printed are medians. In float32 the texts
must be those of the loop, token for token; bf16 is beside it, and so is each prompt alone.
"""

from __future__ import annotations

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    __import__("install_libraries").enter_environment()

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

from toolkit.run.command import command
from toolkit.run.lazily import lazily
from toolkit.writing.sampling import Sampling

with lazily():
    import torch
    from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

    from toolkit.model.byte_level_bpe import train_byte_level_bpe
    from toolkit.model.gpt2 import take_over
    from toolkit.run.devices import cpu_has_bf16
    from toolkit.writing.continue_prompts import continue_all
    from toolkit.writing.generator import Generator

SHAPES = {
    "toy": {"n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": 64, "vocab_size": 300},
    "mini": {"n_layer": 6, "n_head": 4, "n_embd": 256, "n_positions": 256, "vocab_size": 4096},
    "gpt2": {},  # 124M parameters
}
NEW = {"toy": 16, "mini": 64, "gpt2": 64}
PROMPTS, LONGEST_PROMPT = 64, 32


class EveryEntry:
    """Enough of a tokenizer: all entries are tokens, and none ends a text."""

    eos_token_id = None

    def __init__(self, size: int):
        self.size = size
        self.backend_tokenizer = train_byte_level_bpe(["a"], 257, 64).backend_tokenizer

    def __len__(self) -> int:
        return self.size


def one_by_one(model: GPT2LMHeadModel, prompts: list[list[int]], new: int) -> list[list[int]]:
    """Return what the library's own `generate` says to each prompt alone."""
    settings = GenerationConfig(max_new_tokens=new, do_sample=False, pad_token_id=0)
    found = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            output = model.generate(
                ids, attention_mask=torch.ones_like(ids), generation_config=settings
            )
        found.append(output[0, len(prompt) :].tolist())
    return found


def batched(generator: Generator, prompts: list[list[int]], new: int) -> list[list[int]]:
    """Return what step 10 says to all prompts in one batch."""
    greedy = Sampling(max_new_tokens=new, temperature=0, top_p=1, top_k=0, num_samples=1)
    return [row.new for (row,) in continue_all(generator, prompts, [greedy] * len(prompts), 0)]


def ways_to_generate(
    model: GPT2LMHeadModel, prompts: list[list[int]], new: int
) -> dict[str, Callable[[], list[list[int]]]]:
    """Return all ways by name; each returns the new tokens of every prompt."""
    tokenizer = EveryEntry(model.config.vocab_size)
    ways = {"model.generate, one by one, fp32": lambda: one_by_one(model, prompts, new)}
    for precision in ("fp32", "bf16") if cpu_has_bf16() else ("fp32",):
        generator = Generator(take_over(model), tokenizer, precision)
        say = partial(batched, generator, new=new)
        ways[f"one batch, {precision}"] = lambda say=say: say(prompts)
        ways[f"ours, one by one, {precision}"] = lambda say=say: [
            say([prompt])[0] for prompt in prompts
        ]
    return ways


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="mini")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    given = parser.parse_args(argv)
    torch.manual_seed(0)
    config = GPT2Config(**SHAPES[given.shape], bos_token_id=None, eos_token_id=None)
    model = GPT2LMHeadModel(config).eval()
    lengths = torch.randint(4, LONGEST_PROMPT + 1, (given.prompts,)).tolist()
    prompts = [torch.randint(config.vocab_size, (length,)).tolist() for length in lengths]
    ways = ways_to_generate(model, prompts, NEW[given.shape])
    said = {name: way() for name, way in ways.items()}  # warm
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(given.repetitions):
        for name, way in ways.items():
            began = time.perf_counter()
            said[name] = way()
            seconds[name].append(time.perf_counter() - began)
    show(given, said, seconds)


def show(
    given: argparse.Namespace,
    said: dict[str, list[list[int]]],
    seconds: dict[str, list[float]],
) -> None:
    """Print the table. `said`, `seconds`: of each way, the loop first."""
    loop, new = next(iter(said)), NEW[given.shape]
    print(
        f"{given.shape}, {given.prompts} prompts x {new} tokens, {torch.get_num_threads()} threads"
    )
    print("\n| | tokens/s | times the loop | texts as the loop's |\n|---|---|---|---|")
    for name in said:
        rate = given.prompts * new / statistics.median(seconds[name])
        times = statistics.median(
            one / other for one, other in zip(seconds[loop], seconds[name], strict=True)
        )
        same = sum(a == b for a, b in zip(said[loop], said[name], strict=True))
        print(f"| {name} | {rate:,.0f} | {times:.1f} | {same} of {given.prompts} |")


if __name__ == "__main__":
    main()
