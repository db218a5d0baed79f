"""What the test split shares with train: copied documents, and copied passages."""

from collections.abc import Iterable, Iterator

import numpy as np

from toolkit.blocks.window_hash import WINDOW, run_hashes

TABLE_BITS = 27
TOKENS_AT_ONCE = 1 << 20


def copies(contents: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return for train and validation which documents also stand in a split that must not see them.

    `contents`: a hash of each document's words. Test is kept whole; what validation shares with it
    is dropped from validation, what train shares with either is dropped from train.
    """
    held_out = np.concatenate([contents["validation"], contents["test"]])
    return {
        "train": np.isin(contents["train"], held_out),
        "validation": np.isin(contents["validation"], contents["test"]),
    }


def leak(train: Iterable[np.ndarray], test: Iterable[np.ndarray]) -> float | None:
    """Return the share of test windows of 13 tokens that also occur in train; None without windows.

    Windows of train are looked up in a bit table of the test's first, so that nearly all of them
    cost one look; memory is 16 MB and eight bytes a test token.
    """
    parts = list(window_hashes(test))
    wanted = np.concatenate(parts) if parts else np.empty(0, np.uint64)
    if not len(wanted):
        return None
    unique, counts = np.unique(wanted, return_counts=True)
    table = np.zeros(1 << TABLE_BITS >> 3, np.uint8)
    np.bitwise_or.at(table, slot(unique) >> 3, np.left_shift(1, slot(unique) & 7).astype(np.uint8))
    found = np.zeros(len(unique), bool)
    for hashes in window_hashes(train):
        slots = slot(hashes)
        likely = hashes[(table[slots >> 3] >> (slots & 7).astype(np.uint8)) & 1 == 1]
        places = np.minimum(np.searchsorted(unique, likely), len(unique) - 1)
        found[places[unique[places] == likely]] = True
    return float(counts[found].sum() / len(wanted))


def slot(hashes: np.ndarray) -> np.ndarray:
    return (hashes >> np.uint64(64 - TABLE_BITS)).astype(np.int64)


def window_hashes(documents: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield a 64-bit hash of every window of 13 tokens within a document."""
    for document in documents:
        for start in range(0, len(document) - WINDOW + 1, TOKENS_AT_ONCE):
            tokens = document[start : start + TOKENS_AT_ONCE + WINDOW - 1].astype(np.uint64)
            yield run_hashes(tokens, WINDOW)
