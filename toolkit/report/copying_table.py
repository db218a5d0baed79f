"""What the samples copy and repeat, as the rows of the report's table."""

from typing import Any

from toolkit.blocks.window_hash import WINDOW_CHARACTERS

COPYING = {
    "longest_run": (
        "longest copied run",
        "tokens of the samples' longest run that the training split also has, word for word",
    ),
    "copied_share": (
        f"copied windows of {WINDOW_CHARACTERS} characters",
        f"share of the samples' runs of tokens, as many as hold {WINDOW_CHARACTERS} characters on "
        "average, that the training split also has",
    ),
    "distinct_1": ("distinct-1", "different tokens / all tokens of the samples"),
    "distinct_2": ("distinct-2", "the same of pairs of tokens"),
    "distinct_3": ("distinct-3", "the same of triples of tokens"),
    "broken_share": (
        "broken characters",
        "share of the samples' characters that are U+FFFD: bytes that belong to no character",
    ),
    "longest_loop": ("longest loop", "most tokens on end that are one unit said again and again"),
}


def copying_rows(metrics: dict[str, Any], models: list[str]) -> list[dict[str, Any]]:
    """Return a row a figure: `title`, `definition`, and `cells`, one for each of the models."""
    rows = []
    for key, (title, definition) in COPYING.items():
        values = [
            {**metrics[m], **metrics[m]["copying"], **metrics[m]["repetition"]}.get(key)
            for m in models
        ]
        form = "{:.1%}" if key.endswith("share") else "{}" if key.startswith("long") else "{:.2f}"
        cells = ["none" if value is None else form.format(value) for value in values]
        rows.append({"title": title, "definition": definition, "cells": cells})
    return rows
