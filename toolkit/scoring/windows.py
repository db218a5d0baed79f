"""How a split is read when it is scored: in windows, and cut into pieces to sum over."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset

Collate = Callable[[list[dict[str, np.ndarray]]], dict[str, torch.Tensor]]
BLOCKS_AT_ONCE = 256  # blocks that are looked through for document ends at a time


@dataclass(frozen=True)
class Pieces:
    """A split cut at every document's end and every block's: the smallest parts we sum over.

    A position is a token's place in the blocks laid end to end. All arrays are int64, one entry a
    piece, in order: `starts` (position of its first token), `documents` and `blocks` (the number of
    the document and of the block that it lies in).
    """

    starts: np.ndarray
    documents: np.ndarray
    blocks: np.ndarray

    def of(self, positions: np.ndarray) -> np.ndarray:
        """Return the numbers of the pieces in which positions lie."""
        return np.searchsorted(self.starts, positions, side="right") - 1


def block_size_of(blocks: Dataset) -> int:
    return len(blocks[0]["input_ids"])


def find_pieces(blocks: Dataset, end_of_text: int) -> Pieces:
    """Return the pieces of packed blocks; of examples, each row is one."""
    size = block_size_of(blocks)
    starts = np.arange(len(blocks)) * size
    if "length" in blocks.column_names:
        return Pieces(starts, starts // size, starts // size)
    found = []
    for first in range(0, len(blocks), BLOCKS_AT_ONCE):
        tokens = blocks[first : first + BLOCKS_AT_ONCE]["input_ids"].reshape(-1)
        found.append(np.flatnonzero(tokens == end_of_text) + first * size)
    ends = np.concatenate(found)
    starts = np.union1d(starts, ends[ends + 1 < len(blocks) * size] + 1)
    return Pieces(starts, np.searchsorted(ends, starts), starts // size)


def window_starts(positions: int, size: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where each window starts, and the place in it of the first token that it scores.

    Windows hold `size` tokens and move on by `stride`; the last ends with the split. A window
    scores what no window before it held: the first all but its first token, which has nothing
    before it, the others their last `stride` tokens. With a stride of `size` windows are blocks.
    """
    starts = np.arange(0, positions - size + 1, stride)
    if starts[-1] + size < positions:
        starts = np.append(starts, positions - size)
    advances = np.diff(starts, prepend=starts[0] - size)
    return starts, np.maximum(size - advances, 1)


def window_batches(
    blocks: Dataset, collate: Collate, stride: int, at_once: int
) -> Iterator[tuple[np.ndarray, dict[str, torch.Tensor]]]:
    """Yield the windows' start positions and their batch, `at_once` windows at a time.

    Labels that a window does not score are -100. A stride below the block size is for packed
    blocks: examples are rows of their own.
    """
    size = block_size_of(blocks)
    starts, first_scored = window_starts(len(blocks) * size, size, stride)
    for begin in range(0, len(starts), at_once):
        chosen = slice(begin, begin + at_once)
        first = starts[chosen][0] // size
        columns = blocks[first : (starts[chosen][-1] + size - 1) // size + 1]
        if stride < size:
            stream = columns["input_ids"].reshape(-1)
            columns = {"input_ids": [stream[s:][:size] for s in starts[chosen] - first * size]}
        batch = collate(
            [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        )
        for row, place in zip(batch["labels"], first_scored[chosen], strict=True):
            row[:place] = -100
        yield starts[chosen], batch
