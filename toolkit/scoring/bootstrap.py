"""How far a figure could have come out otherwise: bootstrap intervals over parts of a split."""

from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
MOST_RESAMPLES, FEWEST_RESAMPLES = 10_000, 1_000
DRAWS = 200_000_000  # in all: many parts need fewer resamples to take as long
DRAWS_AT_ONCE = 4_000_000
FEWEST_PARTS = 8  # of fewer, resamples are so alike that their spread says little


def resample_totals(sums: np.ndarray, seed: int) -> np.ndarray:
    """Return column totals of resamples of the rows, drawn with replacement.

    `sums`: (parts, columns). Returns (resamples, columns), float64. All columns of a resample come
    from the same draw, so differences between columns are paired (Efron and Tibshirani 1993, ch. 6
    and 13).
    """
    parts = len(sums)
    random = np.random.default_rng(seed)
    left = int(np.clip(DRAWS // parts, FEWEST_RESAMPLES, MOST_RESAMPLES))
    totals = []
    while left:
        count = min(left, max(1, DRAWS_AT_ONCE // parts))
        drawn = random.integers(0, parts, size=(count, parts), dtype=np.int64)
        drawn += np.arange(count)[:, None] * parts
        times = np.bincount(drawn.reshape(-1), minlength=count * parts).reshape(count, parts)
        totals.append(times.astype(np.float64) @ sums)
        left -= count
    return np.concatenate(totals)


def interval(values: np.ndarray) -> list[float]:
    """Return the percentile interval of a figure's values over resamples."""
    tail = (1 - CONFIDENCE) / 2
    return [float(bound) for bound in np.quantile(values, [tail, 1 - tail])]


@dataclass(frozen=True)
class Units:
    """What is resampled: `name` of the unit, its `numbers` (int64, one a piece), and why.

    `name` is None where there are too few of either: then there are no intervals.
    """

    name: str | None
    numbers: np.ndarray | None
    reason: str


def choose_units(documents: np.ndarray, blocks: np.ndarray) -> Units:
    """Return documents where there are enough; else blocks; else no unit.

    Documents are what a new corpus would draw anew. One text, or a few, is cut into its blocks
    (Kuensch 1989): the interval then speaks of this text alone, which the reason says. The arrays
    give the document and the block of each piece that has predicted tokens.
    """
    counts = {
        "documents": len(np.unique(documents)),
        "blocks": len(np.unique(blocks)),
    }
    if counts["documents"] >= FEWEST_PARTS:
        reason = f"over {counts['documents']:,} documents"
        return Units("documents", documents, reason)
    few = f"{counts['documents']} document" + ("s" if counts["documents"] > 1 else "")
    if counts["blocks"] >= FEWEST_PARTS:
        reason = f"over {counts['blocks']:,} blocks, since the test split has only {few}"
        return Units("blocks", blocks, f"{reason}: they hold for this text alone")
    reason = f"none: {few} and {counts['blocks']} blocks are too few to resample"
    return Units(None, None, reason)
