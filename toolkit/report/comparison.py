"""Several runs side by side: their curves in one picture, and a table of what differs."""

from __future__ import annotations

import json
import os.path
from pathlib import Path
from typing import Any

from toolkit.report.comparable import StepRecords, why_not_comparable
from toolkit.report.markdown import plain
from toolkit.run.command import UserError
from toolkit.run.console import aligned, size
from toolkit.run.lazily import lazily
from toolkit.run.steps import STEPS
from toolkit.training.log_history import LOG, read_log

with lazily():
    from toolkit.report.overlay import draw_overlay
    from toolkit.report.plots import save_figure

NOT_KNOWN = "-"
OUTCOMES = {  # what is compared of the results: title, step, keys, how it is written
    "parameters trained": ("configure_trainer", ("results", "trainable_parameters"), "{:,d}"),
    "steps": ("train_model", ("results", "steps"), "{:,d}"),
    "tokens trained on": ("train_model", ("results", "tokens"), "{:,d}"),
    "best validation loss": ("train_model", ("results", "best_validation_loss"), "{:.4f}"),
    "test perplexity": ("evaluate_model", ("results", "tuned", "perplexity"), "{:,.2f}"),
    "  before training": ("evaluate_model", ("results", "base", "perplexity"), "{:,.2f}"),
    "test bits per byte": ("evaluate_model", ("results", "tuned", "bits_per_byte"), "{:.4f}"),
    "training seconds": ("train_model", ("measured", "seconds"), "{:,.1f}"),
    "tokens per second": ("train_model", ("measured", "tokens_per_second"), "{:,d}"),
    "peak memory": ("train_model", ("measured", "peak_memory_bytes"), size),
}
CAME_OF = {  # option -> what stands for it in its step's results, where they have other names
    "num_train_epochs": "epochs",
    "max_steps": "steps",
}
FOLLOWS = ("eval_steps", "save_steps", "logging_steps")  # from the others, where nobody set them
LONGEST_NAME = 40


def find_runs(folders: list[str]) -> list[Path]:
    """Return the run folders that training ran in; raise ValueError for what is no folder.

    So for fewer than two of them.
    """
    if len(folders) < 2:
        raise ValueError(f"--compare takes two run folders or more, got {' '.join(folders)}")
    for folder in folders:
        if not Path(folder).is_dir():
            raise ValueError(f"--compare {folder}: no such folder")
    untrained = left_out(folders)
    if len(folders) - len(untrained) < 2:
        raise ValueError(
            f"--compare {untrained[0]}: no training has run there (it holds no {LOG}), and two "
            "trained runs are needed"
        )
    return [Path(folder) for folder in folders if folder not in untrained]


def left_out(folders: list[str]) -> list[str]:
    return [folder for folder in folders if not (Path(folder) / LOG).is_file()]


def compare_runs(folders: list[str]) -> str:
    """Write comparison.png, .svg and .md into the first run's folder; return the table as text.

    Works for trainings under way too: what their records do not say yet is left open.
    """
    paths = find_runs(folders)
    runs = dict(zip(short_names(paths), map(read_records, paths), strict=True))
    histories = {name: read_log(path / LOG) for name, path in zip(runs, paths, strict=True)}
    home = paths[0]
    notes = [f"left out: {f}: no training has run there ({LOG})" for f in left_out(folders)]
    notes += why_not_comparable(list(runs.values()))
    figure = draw_overlay(histories, notes)
    for kind in ("png", "svg"):
        save_figure(figure, home / f"comparison.{kind}", kind)
    table = [["", *runs], *different_options(runs), *outcomes(runs)]
    (home / "comparison.md").write_text(as_markdown(table, notes), encoding="utf-8")
    lines = "\n".join([*aligned(table), "", *notes])
    return f"{lines.rstrip()}\n\n{home / 'comparison.png'}"


def short_names(paths: list[Path]) -> list[str]:
    """Return names that tell the folders apart: without what all begin with, long ones cut."""
    whole = [os.path.abspath(path) for path in paths]
    shared = os.path.commonpath([os.path.dirname(path) for path in whole])
    names = []
    for path in whole:
        name = cut = os.path.relpath(path, shared)
        if len(name) > LONGEST_NAME:
            half = LONGEST_NAME // 2
            cut = f"{name[: half - 2]}...{name[1 - half :]}"
        names.append(cut if cut not in names else f"{cut} ({len(names) + 1})")
    return names


def read_records(folder: Path) -> StepRecords:
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


def different_options(runs: dict[str, StepRecords]) -> list[list[str]]:
    """Return a row for each option that did not come to the same in all runs."""
    known = [
        {name: (value, record) for record in records.values() for name, value in options_of(record)}
        for records in runs.values()
    ]
    rows = []
    for name in {name: None for options in known for name in options}:
        cells = [meant(name, *options.get(name, (None, {}))) for options in known]
        nobody_asked = all(options.get(name, (None,))[0] is None for options in known)
        if len({value for value, _ in cells}) > 1 and not (nobody_asked and name in FOLLOWS):
            rows.append([f"--{name}", *(value + how for value, how in cells)])
    return rows


def options_of(record: dict[str, Any]) -> list[tuple[str, Any]]:
    return list(record["options"].items())


def meant(name: str, asked: Any, record: dict[str, Any]) -> tuple[str, str]:
    """Return what an option came to, and how, where it was left to a default or to `auto`."""
    if asked not in (None, "auto"):
        return write(asked), ""
    results, measured = record.get("results", {}), record.get("measured", {})
    value = results.get(CAME_OF.get(name, name), measured.get(name))
    if value is None:
        return write(asked), ""
    return write(value), " (auto)" if asked else " (default)"


def outcomes(runs: dict[str, StepRecords]) -> list[list[str]]:
    rows = []
    for title, (step, keys, form) in OUTCOMES.items():
        cells = []
        for records in runs.values():
            value: Any = records.get(step)
            for key in keys:
                value = value.get(key) if isinstance(value, dict) else None
            how = form.format if isinstance(form, str) else form
            cells.append(NOT_KNOWN if value is None else how(value))
        rows.append([title, *cells])
    return rows


def write(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}"
    return NOT_KNOWN if value is None else str(value)


def as_markdown(table: list[list[str]], notes: list[str]) -> str:
    rows = ["| " + " | ".join(map(plain, row)) + " |" for row in table]
    rows.insert(1, "|---|" + "---:|" * (len(table[0]) - 1))
    said = [line for note in notes for line in (f"- {plain(note)}",)]
    parts = [*rows, "", *said, *([""] if said else [])]
    return "\n".join(["# Comparison", "", *parts, "![curves](comparison.png)", ""])
