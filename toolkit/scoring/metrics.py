"""What is reported of a scored split: every figure, its definition, and its interval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolkit.run.lazily import lazily
from toolkit.scoring.bootstrap import (
    FEWEST_PARTS,
    choose_units,
    interval,
    resample_totals,
    widen,
)

with lazily():
    from toolkit.scoring.windows import Pieces

Totals = dict[str, Any]  # nats, correct and COUNTS: numbers, or arrays over resamples

# Characters a word on average, with its space: 6 in English, more in Finnish or Malayalam. What
# white space separates in Chinese, Thai or a list of molecules is longer, and no word.
LONGEST_WORD = 15


@dataclass(frozen=True)
class Metric:
    """A figure: how it is written, what it means, and how it follows from totals."""

    name: str
    title: str
    form: str
    definition: str
    of: Callable[[Totals], Any]
    more_is_better: bool = False

    def write(self, value: float | None) -> str:
        """Return a figure as text, no longer than its size calls for."""
        if value is None:
            return "none"
        if abs(value) >= 1e7:
            return f"{value:.2e}"
        return f"{value:,.0f}" if abs(value) >= 1000 else format(value, self.form)


METRICS = (
    Metric(
        "loss",
        "loss",
        ".4f",
        "nats per predicted token: the mean of -ln p(token), all tokens weighing the same",
        lambda t: t["nats"] / t["tokens"],
    ),
    Metric(
        "perplexity",
        "perplexity",
        ".2f",
        "exp(loss); only comparable between models with the same tokenizer",
        lambda t: np.exp(t["nats"] / t["tokens"]),
    ),
    Metric(
        "bits_per_byte",
        "bits per byte",
        ".4f",
        "all nats / ln 2 / UTF-8 bytes of the predicted text; comparable between tokenizers",
        lambda t: t["nats"] / np.log(2) / t["bytes"],
    ),
    Metric(
        "bits_per_character",
        "bits per character",
        ".4f",
        "the same by characters, of which one may have several bytes; comparable likewise",
        lambda t: t["nats"] / np.log(2) / t["characters"],
    ),
    Metric(
        "word_perplexity",
        "word perplexity",
        ".2f",
        "exp(all nats / words that white space separates), comparable likewise; none where these "
        f"average over {LONGEST_WORD} characters",
        lambda t: np.exp(t["nats"] / words_of(t)),
    ),
    Metric(
        "token_accuracy",
        "token accuracy",
        ".2%",
        "share of predicted tokens that were the model's first choice",
        lambda t: t["correct"] / t["tokens"],
        more_is_better=True,
    ),
)
COUNTS = ("tokens", "words", "bytes", "characters")


def words_of(totals: Totals) -> Any:
    """Return the words of totals; 0 where white space does not separate words."""
    return np.where(totals["characters"] > LONGEST_WORD * totals["words"], 0, totals["words"])


def calculate(totals: Totals) -> dict[str, Any]:
    """Return every metric; infinite or undefined (no words in the split) where it is that."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        numbers = {name: np.asarray(total, np.float64) for name, total in totals.items()}
        return {metric.name: metric.of(numbers) for metric in METRICS}


def as_metrics(totals: Totals) -> dict[str, float | None]:
    """Return the metrics and counts of one model from its totals over the split."""
    values = {name: as_number(value) for name, value in calculate(totals).items()}
    return values | {name: int(totals[name]) for name in COUNTS}


def compare(
    scores: dict[str, dict[str, np.ndarray]], text: dict[str, np.ndarray], pieces: Pieces, seed: int
) -> dict[str, Any]:
    """Return the metrics of each model with intervals, and of the gain where there are both.

    `scores`: for "tuned" and perhaps "base" what `score_pieces` returned; `text`: what `count_text`
    did. The models' resamples are the same ones, so the difference is paired.
    """
    tokens = next(iter(scores.values()))["tokens"]
    used = tokens > 0
    units = choose_units(pieces.documents[used], pieces.blocks[used])
    columns = {f"{model} {k}": sums[k] for model, sums in scores.items() for k in sums}
    columns |= text
    drawn = {}
    results: dict[str, Any] = {"intervals": {"unit": units.name, "reason": units.reason}}
    if units.name:
        _, numbers = np.unique(units.numbers, return_inverse=True)
        parts = np.stack([np.bincount(numbers, column[used]) for column in columns.values()], 1)
        totals = resample_totals(parts, seed)
        if len(parts) < FEWEST_PARTS:  # all metrics are ratios: of totals per token the same
            count, whole = list(columns).index("tuned tokens"), parts.sum(0)
            rates = totals / totals[:, [count]]
            totals = widen(rates, whole / whole[count], len(parts))
        drawn = dict(zip(columns, totals.T, strict=True))
        results["intervals"] |= {"units": len(parts), "resamples": len(totals)}
    values = {}
    for model, sums in scores.items():
        own = {name: (f"{model} {name}" if name in sums else name) for name in (*sums, *text)}
        whole = {name: columns[column].sum() for name, column in own.items()}
        results[model] = as_metrics(whole)
        if drawn:
            values[model] = calculate({name: drawn[column] for name, column in own.items()})
            results[model]["intervals"] = intervals(values[model])
    if "base" in scores:
        results["difference"] = difference(results, values)
    return results


def difference(results: dict[str, Any], values: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return what every metric gained, with the interval of the paired resamples.

    A gain above 0 is better: base - tuned, but tuned - base of what is better when it is more.
    """
    base, tuned = results["base"], results["tuned"]
    signs = {metric.name: -1 if metric.more_is_better else 1 for metric in METRICS}
    gaps = {
        name: None if None in (base[name], tuned[name]) else sign * (base[name] - tuned[name])
        for name, sign in signs.items()
    }
    if values:
        with np.errstate(invalid="ignore"):  # infinite - infinite
            spread = {
                name: sign * (values["base"][name] - values["tuned"][name])
                for name, sign in signs.items()
            }
        gaps["intervals"] = intervals(spread)
    return gaps


def intervals(values: dict[str, np.ndarray]) -> dict[str, list[float] | None]:
    """Return each metric's interval; None where some resample has no finite value."""
    return {
        name: interval(found) if np.isfinite(found).all() else None
        for name, found in values.items()
    }


def as_number(value: Any) -> float | None:
    """Return a figure as JSON can hold it: None for what is infinite or undefined."""
    return float(value) if np.isfinite(value) else None
