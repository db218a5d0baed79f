"""What held-out splits share with train: copied documents, near-copies, copied passages."""

from collections.abc import Collection, Iterable, Iterator

import numpy as np

from toolkit.blocks.window_hash import run_hashes

TABLE_BITS = 27
TOKENS_AT_ONCE = 1 << 17
# Of a document's windows. A changed token takes as many of them as a window has tokens: of 13 half
# are left where every 26th token is another, or where as much was added as there was.
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
    train: Iterable[np.ndarray], held_out: dict[str, Collection[np.ndarray]], length: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return how many windows of each held-out document train has too, and how many it has in all.

    By split two int64 arrays, an entry a document. `length`: a window's tokens. Memory is 16 MB and
    nine bytes a held-out token, for a moment twice that.
    """
    hashes = [
        part for documents in held_out.values() for part, _ in window_hashes(documents, length)
    ]
    wanted = KnownHashes(np.concatenate([*hashes, np.empty(0, np.uint64)]))
    del hashes
    found = np.zeros(len(wanted.known), bool)
    for part, _ in window_hashes(train, length):
        found[wanted.find(part)[1]] = True
    shared, counts = KnownHashes(wanted.known[found]), {}
    for name, documents in held_out.items():
        windows = np.zeros((2, len(documents)), np.int64)
        for part, owners in window_hashes(documents, length):
            for row, chosen in zip(windows, (owners[shared.find(part)[0]], owners), strict=True):
                row += np.bincount(chosen, minlength=len(documents))
        counts[name] = (windows[0], windows[1])
    return counts


class KnownHashes:
    """64-bit hashes, sorted in place, and a table of 2^27 bits: nearly all others cost one look."""

    def __init__(self, hashes: np.ndarray):
        hashes.sort()
        self.known = hashes
        self.table = np.zeros(1 << TABLE_BITS >> 3, np.uint8)
        for start in range(0, len(self.known), TOKENS_AT_ONCE):
            byte, bit = place_of(self.known[start : start + TOKENS_AT_ONCE])
            np.bitwise_or.at(self.table, byte, bit)

    def find(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which of the hashes are known, by number, and where each of these first stands."""
        byte, bit = place_of(hashes)
        likely = np.flatnonzero(self.table[byte] & bit)
        likely = likely[np.argsort(hashes[likely])]  # so that neighbours are looked up in turn
        where = np.minimum(np.searchsorted(self.known, hashes[likely]), len(self.known) - 1)
        same = self.known[where] == hashes[likely] if len(likely) else []
        return likely[same], where[same]


def place_of(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the byte of each hash in the table, and its bit in that."""
    slots = hashes >> np.uint64(64 - TABLE_BITS)
    return slots >> np.uint64(3), np.left_shift(1, slots & np.uint64(7)).astype(np.uint8)


def window_hashes(
    documents: Iterable[np.ndarray], length: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield a 64-bit hash of every window within a document, and that one's number.

    About TOKENS_AT_ONCE at a time: of several documents, or of a part of one.
    """
    held, owners, size = [], [], 0
    for number, document in enumerate(documents):
        for start in range(0, len(document) - length + 1, TOKENS_AT_ONCE):
            held.append(document[start : start + TOKENS_AT_ONCE + length - 1])
            owners.append(number)
            size += len(held[-1])
            if size >= TOKENS_AT_ONCE:
                yield hashes_within(held, owners, length)
                held, owners, size = [], [], 0
    if held:
        yield hashes_within(held, owners, length)


def hashes_within(
    stretches: list[np.ndarray], owners: list[int], length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the hashes of the windows that lie within a stretch, and the owner of each."""
    lengths = np.array([len(stretch) for stretch in stretches])
    hashes = run_hashes(np.concatenate(stretches).astype(np.uint64), length)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(lengths.sum())  # up to its end
    within = np.flatnonzero(left >= length)
    return hashes[within], np.repeat(owners, lengths)[within]
