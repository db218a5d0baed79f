"""Which documents are held out: chosen by the seed, by a hash of their words, or one's tail."""

from collections.abc import Iterable, Sequence

import numpy as np


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
    """Return the numbers of train, validation and test documents, by a hash of each.

    `contents`: uint64, evenly spread: see `content_of`. The lowest share of all hashes is test, the
    highest validation: neither order, nor seed, nor what else is in the corpus matters, and copies
    stay together. A larger fraction takes documents from train only.
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
