"""Hold out whole documents, and pack token ids into blocks of one length."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import Dataset
from datasets.table import MemoryMappedTable

FEWEST_TRAIN_BLOCKS = (
    20  # the automatic block size is the largest that train fills this many times,
)
FEWEST_HELD_OUT_BLOCKS = 4  # and validation and test this many times
SMALLEST_BLOCK = 8
TOKENS_AT_ONCE = 1 << 20


class Selection:
    """Some documents, in an order: arrays of token ids, fetched when they are asked for."""

    def __init__(self, documents: Sequence[np.ndarray], order: np.ndarray | None = None):
        self.documents = documents
        self.order = np.arange(len(documents)) if order is None else order

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterable[np.ndarray]:
        return (self.documents[number] for number in self.order)

    def tokens(self) -> int:
        return sum(map(len, self))


def hold_out(
    documents: int, validation_fraction: float, test_fraction: float, seed: int
) -> dict[str, np.ndarray]:
    """Return the numbers of train, validation and test documents: each in one split, shuffled.

    Raises ValueError where a split would stay empty.
    """
    order = np.random.default_rng(seed).permutation(documents)
    sizes = [held_out_count(documents, part) for part in (validation_fraction, test_fraction)]
    if documents <= sum(sizes):
        raise ValueError(f"{documents} documents cannot fill train, validation and test")
    validation, test, train = np.split(order, np.cumsum(sizes))
    return {"train": train, "validation": validation, "test": test}


def hold_out_by_hash(
    contents: np.ndarray, validation_fraction: float, test_fraction: float
) -> dict[str, np.ndarray]:
    """Return the numbers of train, validation and test documents, by a hash of each one's words.

    `contents`: uint64, evenly spread. The lowest share of all hashes is test, the highest
    validation: neither order, nor seed, nor what else is in the corpus matters, and copies stay
    together. A larger fraction takes documents from train only.
    """
    most = 2**64 - 1
    test = contents < np.uint64(int(test_fraction * most))
    validation = contents > np.uint64(most - int(validation_fraction * most))
    sides = {"train": ~(test | validation), "validation": validation, "test": test}
    return {name: np.flatnonzero(side) for name, side in sides.items()}


def held_out_count(documents: int, fraction: float) -> int:
    """Return how many documents a fraction holds out: at least one, unless the fraction is 0."""
    return max(1, round(documents * fraction)) if fraction else 0


def cut_tail(
    tokens: np.ndarray, validation_fraction: float, test_fraction: float
) -> dict[str, Selection]:
    """Cut one document: its tail is test, what comes before that validation, the rest train."""
    test = len(tokens) - round(len(tokens) * test_fraction)
    validation = test - round(len(tokens) * validation_fraction)
    parts = np.split(tokens, [validation, test])
    return {
        name: Selection([part] if len(part) else [])
        for name, part in zip(("train", "validation", "test"), parts, strict=True)
    }


def choose_block_size(tokens: dict[str, int], longest: int) -> int:
    """Return the largest halving of the model's positions that leaves every split enough blocks."""
    size = longest
    while size > SMALLEST_BLOCK and not (
        tokens.get("train", math.inf) >= FEWEST_TRAIN_BLOCKS * size  # a stream's are not known
        and min(tokens["validation"], tokens["test"]) >= FEWEST_HELD_OUT_BLOCKS * size
    ):
        size //= 2
    return size


def pack(documents: Iterable[np.ndarray], block_size: int, path: Path) -> Dataset:
    """Write the documents' tokens, end to end, as rows of `input_ids` of `block_size` token ids.

    The remainder, shorter than a block, is left out. A million tokens are in memory at a time.
    """
    digest = hashlib.sha256()
    held: list[np.ndarray] = []
    size, writer = 0, None
    with pa.OSFile(str(path), "wb") as sink:

        def write(tokens: np.ndarray) -> np.ndarray:
            nonlocal writer
            whole = len(tokens) // block_size * block_size
            rows = pa.FixedSizeListArray.from_arrays(pa.array(tokens[:whole]), block_size)
            batch = pa.record_batch({"input_ids": rows})
            writer = writer or pa.ipc.new_stream(sink, batch.schema)
            writer.write_batch(batch)
            digest.update(np.ascontiguousarray(tokens[:whole]).tobytes())
            return tokens[whole:]

        for document in documents:
            held.append(document)
            size += len(document)
            if size >= TOKENS_AT_ONCE:
                held = [write(np.concatenate(held))]
                size = len(held[0])
        write(np.concatenate(held) if held else np.empty(0, np.uint16))
        writer.close()
    return Dataset(MemoryMappedTable.from_file(str(path)), fingerprint=digest.hexdigest()[:16])


def pad_examples(
    documents: Iterable[np.ndarray], prompt_tokens: Iterable[int], block_size: int, padding: int
) -> tuple[Dataset, dict[str, int]]:
    """Return prompt/completion examples, one a row of `block_size` token ids, padded at the end.

    `prompt_tokens` and `length` say where the part to be learned begins and ends. An example longer
    than a block is dropped and counted, never cut.
    """
    rows, starts, lengths = [], [], []
    account = {"examples_dropped_too_long": 0, "tokens_dropped_too_long": 0}
    for document, start in zip(documents, prompt_tokens, strict=True):
        if len(document) > block_size:
            account["examples_dropped_too_long"] += 1
            account["tokens_dropped_too_long"] += len(document)
            continue
        rows.append(np.pad(document, (0, block_size - len(document)), constant_values=padding))
        starts.append(start)
        lengths.append(len(document))
    flat = pa.array(np.concatenate(rows) if rows else np.empty(0, np.uint16))
    table = {
        "input_ids": pa.FixedSizeListArray.from_arrays(flat, block_size),
        "prompt_tokens": pa.array(starts, pa.uint32()),
        "length": pa.array(lengths, pa.uint32()),
    }
    content = hashlib.sha256(flat.to_numpy().tobytes()).hexdigest()[:16]
    return Dataset(pa.table(table), fingerprint=content), account
