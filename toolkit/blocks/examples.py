"""Examples, one a row: prompts with completions, and conversations; only answers are learned.

`learned` says where what is learned begins and ends, in turn, for as many answers as there are.
"""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from datasets import Dataset

TOO_LONG = ("examples_dropped_too_long", "tokens_dropped_too_long")
SHORTENED = ("conversations_shortened", "answers_left_out")


def pad_examples(
    documents: Iterable[np.ndarray], learned: Iterable[np.ndarray], block_size: int, padding: int
) -> tuple[Dataset, dict[str, int]]:
    """Return examples, one a row of `block_size` token ids, padded at the end; and an account.

    `learned`: see `tokenize`. `length` says how much of a row is text. What is longer than a block
    is never cut within a turn: a conversation loses its oldest turns, and an example of which one
    answer alone is too long is dropped; both are counted.
    """
    rows, stretches, lengths = [], [], []
    account = dict.fromkeys((*TOO_LONG, *SHORTENED), 0)
    for document, spans in zip(documents, learned, strict=True):
        kept, left_out = fit(spans, block_size)
        account["tokens_dropped_too_long"] += len(document) - len(kept)
        if not len(kept):
            account["examples_dropped_too_long"] += 1
            continue
        account["conversations_shortened"] += left_out > 0
        account["answers_left_out"] += left_out
        padded = np.pad(document[kept], (0, block_size - len(kept)), constant_values=padding)
        rows.append(padded)
        stretches.append(answers_in(spans)[2 * left_out :] - (len(document) - len(kept)))
        lengths.append(len(kept))
    flat = pa.array(np.concatenate(rows) if rows else np.empty(0, np.uint16))
    offsets = pa.array(np.cumsum([0, *map(len, stretches)], dtype=np.int32))
    places = np.concatenate(stretches) if stretches else np.empty(0)
    table = {
        "input_ids": pa.FixedSizeListArray.from_arrays(flat, block_size),
        "learned": pa.ListArray.from_arrays(offsets, pa.array(places.astype(np.uint32))),
        "length": pa.array(lengths, pa.uint32()),
    }
    return Dataset(pa.table(table), fingerprint="examples"), account


def fit(learned: np.ndarray, size: int) -> tuple[np.ndarray, int]:
    """Return the places of the tokens to keep, and how many answers are left out before them.

    Oldest turns go first, each with its answer; what the system says at the beginning stays. No
    place is kept if not even the last answer fits.
    """
    answers, end = answers_in(learned), int(learned[-1])
    fixed = int(learned[0]) if len(answers) < len(learned) else 0
    begins = [fixed, *map(int, answers[1:-1:2])]  # a turn begins where the answer before it ends
    for left_out, begin in enumerate(begins):
        if fixed + end - begin <= size:
            return np.r_[0:fixed, begin:end], left_out
    return np.empty(0, np.int64), 0


def answers_in(learned: np.ndarray) -> np.ndarray:
    """Return where the answers begin and end, without the empty stretch behind the system's."""
    return learned[2:] if len(learned) > 2 and learned[0] == learned[1] else learned


def masked(learned: np.ndarray, length: int) -> np.ndarray:
    """Return which of a row's tokens are not learned."""
    mask = np.ones(length, bool)
    for begin, end in learned.reshape(-1, 2):
        mask[begin:end] = False
    return mask
