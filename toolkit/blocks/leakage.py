"""What held-out splits share with train: copied documents, near-copies, copied passages."""

from collections.abc import Collection, Iterable, Iterator

import numpy as np

from toolkit.blocks.window_hash import WINDOW, run_hashes

TABLE_BITS = 27
TOKENS_AT_ONCE = 1 << 20
# Of a document's windows. A changed token takes 13 of them: half are left where every 26th token is
# another, or where as much was added as there was.
NEAR_COPY = 0.5


def copies(contents: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return for train and validation which documents also stand in a split that must not see them.

    `contents`: a hash of each document that copies share. Test is kept whole; what validation
    shares with it is dropped from validation, what train shares with either is dropped from train.
    """
    held_out = np.concatenate([contents["validation"], contents["test"]])
    return {
        "train": np.isin(contents["train"], held_out),
        "validation": np.isin(contents["validation"], contents["test"]),
    }


def near_copies(found: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Return which documents share half of their windows, or more, with train: bool."""
    return (windows > 0) & (found >= NEAR_COPY * windows)


def windows_in_train(
    train: Iterable[np.ndarray], held_out: dict[str, Collection[np.ndarray]]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return how many windows of each held-out document train has too, and how many it has in all.

    By split two int64 arrays, an entry a document; a window is 13 tokens. Train's are looked up in
    a bit table of the held-out ones first, so that nearly all of them cost one look. Memory is 16
    MB and nine bytes a held-out token, for a moment sixteen.
    """
    hashes = [part for documents in held_out.values() for part, _ in window_hashes(documents)]
    known = np.concatenate([*hashes, np.empty(0, np.uint64)])
    del hashes
    known.sort()
    found = found_in(train, known)
    counts = {}
    for name, documents in held_out.items():
        windows = np.zeros((2, len(documents)), np.int64)
        for part, owners in window_hashes(documents):
            shared = found[np.searchsorted(known, part)]
            for row, chosen in zip(windows, (owners[shared], owners), strict=True):
                row += np.bincount(chosen, minlength=len(documents))
        counts[name] = (windows[0], windows[1])
    return counts


def found_in(train: Iterable[np.ndarray], known: np.ndarray) -> np.ndarray:
    """Return which of the sorted hashes train's windows have too: of equal ones at the first."""
    found, last = np.zeros(len(known), bool), len(known) - 1
    if not len(known):
        return found
    table = np.zeros(1 << TABLE_BITS >> 3, np.uint8)
    for start in range(0, len(known), TOKENS_AT_ONCE):
        slots = slot(known[start : start + TOKENS_AT_ONCE])
        np.bitwise_or.at(table, slots >> 3, np.left_shift(1, slots & 7).astype(np.uint8))
    for hashes, _ in window_hashes(train):
        slots = slot(hashes)
        likely = hashes[(table[slots >> 3] >> (slots & 7).astype(np.uint8)) & 1 == 1]
        places = np.minimum(np.searchsorted(known, likely), last)
        found[places[known[places] == likely]] = True
    return found


def slot(hashes: np.ndarray) -> np.ndarray:
    return (hashes >> np.uint64(64 - TABLE_BITS)).astype(np.int64)


def window_hashes(documents: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield a 64-bit hash of every window of 13 tokens within a document, and that one's number.

    About TOKENS_AT_ONCE at a time: of several documents, or of a part of one.
    """
    held, owners, size = [], [], 0
    for number, document in enumerate(documents):
        for start in range(0, len(document) - WINDOW + 1, TOKENS_AT_ONCE):
            held.append(document[start : start + TOKENS_AT_ONCE + WINDOW - 1])
            owners.append(number)
            size += len(held[-1])
            if size >= TOKENS_AT_ONCE:
                yield hashes_within(held, owners)
                held, owners, size = [], [], 0
    if held:
        yield hashes_within(held, owners)


def hashes_within(stretches: list[np.ndarray], owners: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the hashes of the windows that lie within a stretch, and the owner of each."""
    lengths = np.array([len(stretch) for stretch in stretches])
    hashes = run_hashes(np.concatenate(stretches).astype(np.uint64), WINDOW)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(lengths.sum())  # up to its end
    within = np.flatnonzero(left >= WINDOW)
    return hashes[within], np.repeat(owners, lengths)[within]
