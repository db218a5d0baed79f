"""Splits of documents as splits of blocks, with every token accounted for."""

from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from toolkit.blocks.examples import pad_examples
from toolkit.blocks.holding_out import Selection
from toolkit.blocks.packing import choose_block_size, pack
from toolkit.run.command import UserError

MUCH_LOST = 0.05  # share of examples that are too long, above which it is a warning

Accounts = dict[str, dict[str, Any]]


def make_blocks(
    parts: dict[str, Selection], asked: int | None, longest: int, work: Path
) -> tuple[dict[str, Dataset], Accounts]:
    """Return packed blocks and where every token went: read = in blocks + left over, per split.

    `asked`: the block size, or None for the automatic one; `longest`: the model's positions.
    """
    tokens = {name: part.tokens() for name, part in parts.items()}
    size = block_size_for(tokens, asked, longest)
    splits = {name: pack(part, size, work / f"{name}.arrow") for name, part in parts.items()}
    accounts = {}
    for name, part in parts.items():
        kept = len(splits[name]) * size
        accounts[name] = {
            "documents": len(part),
            "blocks": len(splits[name]),
            "tokens_read": tokens[name],
            "tokens_in_blocks": kept,
            "tokens_left_over": tokens[name] - kept,
        }
    return splits, accounts


def make_examples(
    parts: dict[str, Selection],
    learned: dict[str, Selection],
    asked: int | None,
    longest: int,
) -> tuple[dict[str, Dataset], Accounts]:
    """Return examples, one a row, and where every token went, per split.

    `learned`: what is learned of each of a split's documents: see `tokenize`.
    """
    needed = max(len(example) for part in parts.values() for example in part)
    size = asked or min(longest, -(-needed // 8) * 8)
    refuse_beyond(longest, size)
    splits, accounts = {}, {}
    for name, part in parts.items():
        end = int(part.documents[0][-1])
        splits[name], dropped = pad_examples(part, learned[name], size, padding=end)
        if not len(splits[name]):
            raise UserError(f"--block_size {size}: every {name} example is longer than that")
        accounts[name] = {
            "documents": len(part),
            "blocks": len(splits[name]),
            "tokens_read": part.tokens(),
            **tokens_in(splits[name], size),
            "tokens_left_over": 0,
            **dropped,
        }
    return splits, accounts


def tokens_in(examples: Dataset, size: int) -> dict[str, int]:
    """Return what rows of `size` tokens hold: text, what of it is learned, and padding.

    Learned is what is predicted of answers and their ends: never an example's first token.
    """
    text = int(np.sum(examples["length"], dtype=np.int64))
    spans = [np.maximum(learned, 1) for learned in examples["learned"]]
    return {
        "tokens_in_blocks": text,
        "tokens_learned": sum(int((span[1::2] - span[::2]).sum()) for span in spans),
        "padding_tokens": len(examples) * size - text,
    }


def warn_of_loss(accounts: Accounts, size: int, longest: int) -> list[str]:
    """Return what to do where many examples are longer than a block."""
    key = "examples_dropped_too_long"
    known = [account for account in accounts.values() if account.get("documents")]
    lost, all_of_them = (sum(part.get(name) or 0 for part in known) for name in (key, "documents"))
    if lost <= MUCH_LOST * all_of_them:
        return []
    way = f"raise --block_size (the model has {longest:,} positions)"
    if size == longest:
        way = (
            "take a tokenizer that fits the text (docs/languages.md), a model with more positions "
            "(gpt2: 1,024), or shorter texts"
        )
    return [
        f"warning: {lost:,} of {all_of_them:,} examples are lost, for they are longer than "
        f"{size:,} tokens: {way}"
    ]


def block_size_for(tokens: dict[str, int], asked: int | None, longest: int) -> int:
    """Return the block size asked for, or the automatic one. Refuses what no split could fill."""
    size = asked or choose_block_size(tokens, longest)
    refuse_beyond(longest, size)
    name, fewest = min(tokens.items(), key=lambda entry: entry[1])
    if fewest < size:
        can = f"--block_size {fewest} would do" if fewest > 1 else "give more text"
        whole = "corpus has" if "train" in tokens else "held-out splits have"
        raise UserError(
            f"--block_size {size}: the {whole} {sum(tokens.values()):,} tokens, "
            f"and the {name} split only {fewest:,}, less than one block; {can}"
        )
    return size


def refuse_beyond(longest: int, size: int) -> None:
    if size > longest:
        raise UserError(f"--block_size {size} is beyond the model's {longest} positions")
