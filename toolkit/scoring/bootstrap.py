"""How far a figure could have come out otherwise: bootstrap intervals over parts of a split."""

from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
MOST_RESAMPLES, FEWEST_RESAMPLES = 10_000, 1_000
DRAWS = 200_000_000  # in all: many parts need fewer resamples to take as long
DRAWS_AT_ONCE = 4_000_000
FEWEST_PARTS = 8  # of fewer, resamples are so alike that their spread is to be widened
FEWEST_WIDENED = 4  # fewer documents are cut into this many stretches
# The 97.5% quantiles of the normal distribution, and of Student's t by degrees of freedom.
NORMAL, STUDENT = 1.960, {3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447}


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


def widen(rates: np.ndarray, whole: np.ndarray, parts: int) -> np.ndarray:
    """Return resamples' rates as far from the whole's as Student's t asks for with 4 to 7 parts.

    Their spread is that of a sum of squares over parts, not parts - 1, and is itself uncertain,
    which the normal's quantiles leave out (Hesterberg 2015, section 3.2). Rates are totals per
    token, for parts differ in length; none is below zero.
    """
    factor = STUDENT[parts - 1] / NORMAL * np.sqrt(parts / (parts - 1))
    return np.maximum(whole + factor * (rates - whole), 0.0)


@dataclass(frozen=True)
class Units:
    """What is resampled: `name` of the unit, its `numbers` (int64, one a piece), and why.

    `name` is None where there are too few of either: then there are no intervals.
    """

    name: str | None
    numbers: np.ndarray | None
    reason: str


def choose_units(documents: np.ndarray, blocks: np.ndarray) -> Units:
    """Return documents where there are 4; else four stretches of blocks; else no unit.

    Documents are what a new corpus would draw anew. Fewer are cut into stretches (Kuensch 1989), as
    long as can be, for passages of one text are alike; how another text would differ they cannot
    tell. Four parts to seven are few: see `widen`. How often such intervals hold what a large test
    split says is measured by benchmarks/interval_coverage.py: over 4 to 7 documents 92 to 95 times
    in 100, over stretches of 2 or 3 94 to 96 times, of one text 84 to 94. The arrays give the
    document and the block of each piece that has predicted tokens.
    """
    counted = len(np.unique(documents))
    if counted >= FEWEST_PARTS:
        return Units("documents", documents, f"over {counted:,} documents")
    few = f"{counted} document" + ("s" if counted > 1 else "")
    if counted >= FEWEST_WIDENED:
        return Units("documents", documents, f"over {few}, widened (Student's t)")
    _, numbers = np.unique(blocks, return_inverse=True)
    count = int(numbers.max(initial=-1)) + 1
    if count < FEWEST_WIDENED:
        return Units(None, None, f"none: {few} and {count} blocks are too few to resample")
    reason = f"over {FEWEST_WIDENED} stretches of {few}, widened (Student's t)"
    reason += ": they hold for this text alone"
    return Units("stretches", numbers * FEWEST_WIDENED // count, reason)
