"""Hold out whole documents, and pack token ids into blocks of one length."""

import hashlib

import numpy as np
import pyarrow as pa
from datasets import Dataset
from datasets.table import InMemoryTable

FEWEST_TRAIN_BLOCKS = (
    20  # the automatic block size is the largest that train fills this many times,
)
FEWEST_HELD_OUT_BLOCKS = 4  # and validation and test this many times
SMALLEST_BLOCK = 8


def hold_out(
    documents: list[np.ndarray], validation_fraction: float, test_fraction: float, seed: int
) -> dict[str, list[np.ndarray]]:
    """Return train, validation and test: each document in one of them, at random, shuffled.

    A single document is cut instead: its tail is test, what comes before that validation.
    Raises ValueError where a split would stay empty.
    """
    count = len(documents)
    if count == 1:
        tokens = documents[0]
        test = len(tokens) - round(len(tokens) * test_fraction)
        validation = test - round(len(tokens) * validation_fraction)
        parts = np.split(tokens, [validation, test])
        return {"train": [parts[0]], "validation": [parts[1]], "test": [parts[2]]}
    order = np.random.default_rng(seed).permutation(count)
    sizes = [held_out_count(count, fraction) for fraction in (validation_fraction, test_fraction)]
    if count <= sum(sizes):
        raise ValueError(f"{count} documents cannot fill train, validation and test")
    validation, test, train = np.split(order, np.cumsum(sizes))
    names = {"train": train, "validation": validation, "test": test}
    return {name: [documents[i] for i in chosen] for name, chosen in names.items()}


def held_out_count(documents: int, fraction: float) -> int:
    """Return how many documents a fraction holds out: at least one, unless the fraction is 0."""
    return max(1, round(documents * fraction)) if fraction else 0


def choose_block_size(tokens: dict[str, int], longest: int) -> int:
    """Return the largest halving of the model's positions that leaves every split enough blocks."""
    size = longest
    while size > SMALLEST_BLOCK and not (
        tokens["train"] // size >= FEWEST_TRAIN_BLOCKS
        and min(tokens["validation"], tokens["test"]) // size >= FEWEST_HELD_OUT_BLOCKS
    ):
        size //= 2
    return size


def pack(documents: list[np.ndarray], block_size: int) -> Dataset:
    """Return the documents' tokens, end to end, as rows of `input_ids` of `block_size` token ids.

    The remainder, shorter than a block, is left out.
    """
    tokens = np.concatenate(documents) if documents else np.empty(0, np.uint16)
    blocks = len(tokens) // block_size
    rows = tokens[: blocks * block_size]
    column = pa.FixedSizeListArray.from_arrays(pa.array(rows), block_size)
    return Dataset(InMemoryTable(pa.table({"input_ids": column})), fingerprint=fingerprint_of(rows))


def fingerprint_of(rows: np.ndarray) -> str:
    """Return a fingerprint of the content, so that two identical runs save the same files."""
    return hashlib.sha256(np.ascontiguousarray(rows).tobytes()).hexdigest()[:16]
