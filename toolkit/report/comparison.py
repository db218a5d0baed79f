"""Several runs side by side: their curves in one picture, and a table of what differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from toolkit.report.markdown import plain
from toolkit.run.command import UserError
from toolkit.run.console import aligned
from toolkit.run.lazily import lazily
from toolkit.run.steps import STEPS
from toolkit.training.log_history import LOG, read_log

with lazily():
    from toolkit.report.plots import draw_overlay, save_figure

NOT_KNOWN = "-"
OUTCOMES = {  # what is compared of the results: title, step, keys, how it is written
    "parameters trained": ("configure_trainer", ("results", "trainable_parameters"), ",d"),
    "steps": ("train_model", ("results", "steps"), ",d"),
    "tokens trained on": ("train_model", ("results", "tokens"), ",d"),
    "best validation loss": ("train_model", ("results", "best_validation_loss"), ".4f"),
    "test perplexity": ("evaluate_model", ("results", "tuned", "perplexity"), ",.2f"),
    "  before training": ("evaluate_model", ("results", "base", "perplexity"), ",.2f"),
    "test bits per byte": ("evaluate_model", ("results", "tuned", "bits_per_byte"), ".4f"),
    "training seconds": ("train_model", ("measured", "seconds"), ",.1f"),
    "tokens per second": ("train_model", ("measured", "tokens_per_second"), ",d"),
    "peak memory, bytes": ("train_model", ("measured", "peak_memory_bytes"), ",d"),
}


def find_runs(folders: list[str]) -> list[Path]:
    """Return the run folders; raise ValueError, naming the flag, where one is none."""
    if len(folders) < 2:
        raise ValueError(f"--compare takes two run folders or more, got {' '.join(folders)}")
    for folder in folders:
        if not Path(folder).is_dir():
            raise ValueError(f"--compare {folder}: no such folder")
        if not (Path(folder) / LOG).is_file():
            raise ValueError(f"--compare {folder}: no training has run there (it holds no {LOG})")
    return [Path(folder) for folder in folders]


def compare_runs(folders: list[str]) -> str:
    """Write comparison.png, .svg and .md into the first folder; return the table as text.

    Works for trainings under way too: what their records do not say yet is left open.
    """
    runs = {
        folder: read_records(path) for folder, path in zip(folders, find_runs(folders), strict=True)
    }
    histories = {folder: read_log(Path(folder) / LOG) for folder in runs}
    home = Path(folders[0])
    figure = draw_overlay(histories)
    for kind in ("png", "svg"):
        save_figure(figure, home / f"comparison.{kind}", kind)
    table = [["", *runs], *different_options(runs), *outcomes(runs)]
    (home / "comparison.md").write_text(as_markdown(table), encoding="utf-8")
    lines = "\n".join(aligned(table))
    return f"{lines}\n\n{home / 'comparison.png'}"


def read_records(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the records of a run, by step; one that is there and cannot be read is refused."""
    records = {}
    for step in STEPS[1:]:
        path = folder / f"{step}.json"
        if not path.exists():
            continue
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if not {"options", "results", "measured"} <= set(record):
                raise ValueError("it is no record of this pipeline")
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"--compare: {path} cannot be read ({error})") from None
        records[step] = record
    return records


def different_options(runs: dict[str, dict[str, dict[str, Any]]]) -> list[list[str]]:
    """Return a row for each option that is not the same in all runs."""
    known = [
        {name: value for record in records.values() for name, value in record["options"].items()}
        for records in runs.values()
    ]
    names = {name: None for options in known for name in options}
    rows = []
    for name in names:
        cells = [write(options.get(name)) for options in known]
        if len(set(cells)) > 1:
            rows.append([f"--{name}", *cells])
    return rows


def outcomes(runs: dict[str, dict[str, dict[str, Any]]]) -> list[list[str]]:
    rows = []
    for title, (step, keys, form) in OUTCOMES.items():
        cells = []
        for records in runs.values():
            value: Any = records.get(step)
            for key in keys:
                value = value.get(key) if isinstance(value, dict) else None
            cells.append(NOT_KNOWN if value is None else format(value, form))
        rows.append([title, *cells])
    return rows


def write(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return NOT_KNOWN if value is None else str(value)


def as_markdown(table: list[list[str]]) -> str:
    rows = ["| " + " | ".join(map(plain, row)) + " |" for row in table]
    rows.insert(1, "|---|" + "---:|" * (len(table[0]) - 1))
    return "\n".join(["# Comparison", "", *rows, "", "![curves](comparison.png)", ""])
