"""ROUGE: how much generated completions share with the references (Lin 2004)."""

from typing import Any

import numpy as np

from toolkit.scoring.bootstrap import FEWEST_PARTS, interval, resample_totals
from toolkit.scoring.metrics_table import TITLES

KINDS = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}
DEFINITION = (
    "F1 of the words (ROUGE-1), word pairs (ROUGE-2) and the longest common subsequence (ROUGE-L) "
    "that a greedy completion shares with its reference, mean over examples; no stemming"
)


def rouge_scores(references: list[str], completions: list[str]) -> np.ndarray:
    """Return the F1 of each kind for each example, float64 of shape (examples, 3)."""
    from rouge_score.rouge_scorer import RougeScorer  # slow to import: only such runs pay for it

    scorer = RougeScorer(list(KINDS))
    pairs = zip(references, completions, strict=True)
    scores = (scorer.score(reference, completion) for reference, completion in pairs)
    return np.array([[score[kind].fmeasure for kind in KINDS] for score in scores])


def compare_rouge(
    references: list[str], completions: dict[str, list[str]], seed: int
) -> dict[str, Any]:
    """Return the mean of each kind for each model, with intervals over the examples.

    `completions`: by model, in the order of the references. `difference` is tuned - base.
    """
    scores = {name: rouge_scores(references, texts) for name, texts in completions.items()}
    if "base" in scores:
        scores["difference"] = scores["tuned"] - scores["base"]
    count = len(references)
    results: dict[str, Any] = {"examples": count}
    for name, values in scores.items():
        results[name] = dict(zip(KINDS, map(float, values.mean(0)), strict=True))
    if count >= FEWEST_PARTS:
        means = resample_totals(np.concatenate([*scores.values()], axis=1), seed) / count
        for name, columns in zip(scores, np.split(means.T, len(scores)), strict=True):
            spans = map(interval, columns)
            results[name]["intervals"] = dict(zip(KINDS, spans, strict=True))
    return results


def rouge_table(rouge: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return what the pages' templates make a table of, out of `compare_rouge`'s results."""
    if rouge is None:
        return None
    columns = {name: title for name, title in TITLES.items() if name in rouge}
    rows = []
    for kind, title in KINDS.items():
        cells = []
        for name in columns:
            span = rouge[name].get("intervals", {}).get(kind)
            interval = f"{span[0]:.3f} to {span[1]:.3f}" if span else ""
            cells.append({"value": f"{rouge[name][kind]:.3f}", "interval": interval})
        rows.append({"title": title, "cells": cells})
    return {
        "columns": [*columns.values()],
        "rows": rows,
        "definition": DEFINITION,
        "examples": rouge["examples"],
    }
