"""Prompts from a file or from standard input, and what was made of them as JSON lines."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from toolkit.corpus.files import read_text
from toolkit.run.command import UserError
from toolkit.run.console import say
from toolkit.run.files import json_of
from toolkit.writing.sampling import Sampling, all_prompt_ids, prompt_ids

FLAG = "--prompts_file"


def read_prompts(path: Path) -> list[str]:
    """Return the prompts of a file: a line each; of .jsonl the "prompt" of each line."""
    lines = read_text(path, FLAG).split("\n")
    if path.suffix == ".jsonl":
        prompts = [
            prompt_of(line, f"{FLAG} {path}: line {number}")
            for number, line in enumerate(lines, start=1)
            if line.strip()
        ]
    else:
        prompts = [line for line in lines if line.strip()]
    if not prompts:
        raise UserError(f"{FLAG} {path}: holds no prompt")
    return prompts


def prompt_of(line: str, where: str) -> str:
    try:
        entry = json_of(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is no JSON ({error.msg} at column {error.colno})") from None
    if not isinstance(entry, dict) or not isinstance(entry.get("prompt"), str):
        raise UserError(f'{where} must be an object like {{"prompt": "..."}}')
    if not entry["prompt"].strip():
        raise UserError(f"{where} has an empty prompt; leave the line out")
    return entry["prompt"]


def piped_prompts() -> list[str]:
    """Return the lines of standard input. Raises ValueError if they are no prompts."""
    try:
        prompts = [line for line in sys.stdin.read().split("\n") if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{FLAG} -: byte {error.start:,} of standard input is no text") from None
    if not prompts:
        raise ValueError(f"{FLAG} -: standard input holds no prompt")
    return prompts


def report_cuts(
    prompts: list[str], tokenizer: PreTrainedTokenizerFast, positions: int, new_tokens: int
) -> None:
    """Say of which prompts the beginning does not fit the context."""
    for number, prompt in enumerate(prompts, start=1):
        kept = prompt_ids(prompt, tokenizer, positions, new_tokens)
        if cut := len(all_prompt_ids(prompt, tokenizer)) - len(kept):
            say(f"       prompt {number}: its first {cut} tokens do not fit the context; left out")


def write_json_lines(samples: list[dict], sampling: Sampling, seed: int, path: Path) -> None:
    """Write a line a prompt: what each model made of it, from which seed and settings."""
    settings = asdict(sampling)
    lines = [
        json.dumps({**entry, "seed": seed + number, "settings": settings}, ensure_ascii=False)
        for number, entry in enumerate(samples)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
