"""Pack documents' token ids into blocks of one length, or pad examples to it."""

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import Dataset

FEWEST_TRAIN_BLOCKS = (
    20  # the automatic block size is the largest that train fills this many times,
)
FEWEST_HELD_OUT_BLOCKS = 4  # and validation and test this many times
SMALLEST_BLOCK = 8
TOKENS_AT_ONCE = 1 << 20


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
            return tokens[whole:]

        for document in documents:
            held.append(document)
            size += len(document)
            if size >= TOKENS_AT_ONCE:
                held = [write(np.concatenate(held))]
                size = len(held[0])
        write(np.concatenate(held) if held else np.empty(0, np.uint16))
        writer.close()
    return Dataset.from_file(str(path))
