"""Prompts out of a test split: how its documents begin, cut by characters, for any script."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from toolkit.run.characters import characters

OPENINGS, WORDS = 3, 5  # how many prompts, and how long they are at most
TURNS = 3  # of a conversation that are answered, at most
LONGEST, UNSPACED = 40, 20  # in characters; of a line whose first word is longer than LONGEST
TOKENS = 4 * LONGEST  # a character has four bytes at most, and a token one at least


class Openings(NamedTuple):
    """Prompts, each alone in a tuple, or what others say in a conversation; and what they are.

    None is empty, unless all of the test split is blank.
    """

    prompts: list[tuple[str, ...]]
    source: str


def openings(
    blocks: Dataset, tokenizer: PreTrainedTokenizerFast, count: int = OPENINGS
) -> Openings:
    """Return up to `count` openings of documents; of examples, prompts; of one text, passages."""
    if "learned" in blocks.column_names:
        rows = blocks.select(range(min(count, len(blocks))))
        return Openings([given_in(row, tokenizer) for row in rows], "Prompts of test examples")
    found: list[tuple[str, ...]] = []
    for text in beginnings(blocks, tokenizer):
        line, end, _ = text.partition("\n")
        prompt = opening_of(line)
        if prompt and (end or len(line) > len(prompt)):  # else nothing is left to be continued
            found.append((prompt,))
        if len(found) == count:
            break
    if found:
        return Openings(found, "Openings of test documents")
    texts = passages(blocks, tokenizer, count) or [""]
    return Openings([(text,) for text in texts], "Passages of the test text")


def given_in(row: dict[str, np.ndarray], tokenizer: PreTrainedTokenizerFast) -> tuple[str, ...]:
    """Return what is given in an example: its prompt, or of a conversation what others say."""
    ends = [0, *map(int, row["learned"][:-1])][: 2 * TURNS]
    spans = zip(ends[::2], ends[1::2], strict=True)
    return tuple(tokenizer.decode(row["input_ids"][begin:end]) for begin, end in spans)


def opening_of(line: str) -> str:
    """Return a line's first words; of a line without spaces, its first characters."""
    words = line.split()[:WORDS]
    while len(words) > 1 and len(" ".join(words)) > LONGEST:
        words.pop()
    opening = " ".join(words)
    if len(opening) <= LONGEST:
        return opening
    return "".join(characters(opening[: 2 * LONGEST])[:UNSPACED])


def beginnings(blocks: Dataset, tokenizer: PreTrainedTokenizerFast) -> Iterator[str]:
    """Yield the beginning of each document that begins in the blocks."""
    end = tokenizer.eos_token_id
    for number, block in enumerate(blocks):
        for start in np.flatnonzero(block["input_ids"] == end) + 1:
            tokens, following = block["input_ids"][start:], number
            while len(tokens) < TOKENS and following + 1 < len(blocks):
                following += 1
                tokens = np.concatenate([tokens, blocks[following]["input_ids"]])
            yield text_until_end(tokens, tokenizer)


def text_until_end(tokens: np.ndarray, tokenizer: PreTrainedTokenizerFast) -> str:
    ends = np.flatnonzero(tokens == tokenizer.eos_token_id)
    stop = int(ends[0]) if len(ends) else len(tokens)
    return tokenizer.decode(tokens[: min(stop, TOKENS)]).rstrip("\ufffd").lstrip()


def passages(blocks: Dataset, tokenizer: PreTrainedTokenizerFast, count: int) -> list[str]:
    """Return the beginnings of lines, or of words, out of blocks that lie far from each other."""
    found: dict[str, None] = {}
    for number in np.linspace(0, len(blocks) - 1, count).astype(int):
        text = tokenizer.decode(blocks[int(number)]["input_ids"], skip_special_tokens=True)
        text = text.strip("\ufffd")
        lines = [line for line in text.split("\n")[1:] if line.strip()] or [within(text)]
        found[opening_of(lines[0])] = None
    return [prompt for prompt in found if prompt]


def within(text: str) -> str:
    """Return what stands behind the first white space: before it may be the end of a word."""
    _, space, rest = text.strip().replace("\n", " ").partition(" ")
    return rest if len(rest) > LONGEST else text.strip()
