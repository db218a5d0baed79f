"""ROUGE: how much generated completions share with the references (Lin 2004)."""

import unicodedata
from typing import Any

import numpy as np
import regex

from toolkit.scoring.bootstrap import FEWEST_PARTS, interval, resample_totals
from toolkit.scoring.metrics_table import TITLES

KINDS = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}
DEFINITION = (
    "F1 of the words (ROUGE-1), word pairs (ROUGE-2) and the longest common subsequence (ROUGE-L) "
    "that a greedy completion shares with its reference, mean over examples; no stemming; a word "
    "is a run of letters, marks and digits, or one character in scripts without spaces (Chinese, "
    "Japanese, Thai, Lao, Khmer, Burmese)"
)
UNSPACED = r"\p{scx=Han}\p{scx=Hiragana}\p{scx=Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
WORD = regex.compile(
    rf"(?V1)[[{UNSPACED}]&&[\p{{L}}\p{{N}}]]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}]--[{UNSPACED}]]+"
)
JOINERS = regex.compile("[\u200c\u200d]")  # they shape the letters of one word, as in Persian


class UnicodeWords:
    """Cuts a text into words of any script: the package itself keeps [a-z0-9] alone."""

    def tokenize(self, text: str) -> list[str]:
        return WORD.findall(unicodedata.normalize("NFC", JOINERS.sub("", text).lower()))


def rouge_scores(references: list[str], completions: list[str]) -> np.ndarray:
    """Return the F1 of each kind for each example, float64 of shape (examples, 3)."""
    from rouge_score.rouge_scorer import RougeScorer  # slow to import: only such runs pay for it

    scorer = RougeScorer(list(KINDS), tokenizer=UnicodeWords())
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
