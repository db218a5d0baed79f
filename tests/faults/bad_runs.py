"""Run directories that somebody else made: a list of (name, what makes a good one so)."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from toolkit.run.records import seal_of, write_record
from toolkit.run.steps import STEPS

ODD = [None, 5, "x", [], {}, [1], {"a": 1}]
LINKABLE = [".lock", ".lock-holder", ".scratch", "checkpoints", "model", "documents", "report.html"]
LINKABLE += ["log_history.jsonl", "generate.json", "samples.md", ".model.unfinished", "adapter"]
LINKABLE += [".generate.json.unfinished", "checkpoints/checkpoint-6", "base_scores.safetensors"]
TEXTS = [b"", b"null", b"[]", b"{}", b"5", b"\xff", b"[" * 10**5, b'{"a', b"\0" * 99]
LOGS = [b"", b"null\n", b"[]\n", b"{}\n", b"\xff\n", b"[" * 10**5, b'{"loss": "x"}\n', b"5\n{"]


def bad_runs(outside: Path) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Yield name, and what spoils a finished run's directory. `outside`: a folder not to touch."""
    for step in STEPS[1:]:
        for content in TEXTS:
            name = f"{step}.json"
            yield f"{name} = {content!r}"[:60], writing(name, content)
        for path in keys_of(step):
            for value in ODD:
                where = ".".join(path)
                yield f"{step}.json, sealed, {where} {value!r}", resealed(step, path, value)
        for part in ("options", "results", "measured"):
            yield f"{step}.json of another version: no {part}", without_keys(step, part)
    for content in LOGS:
        yield f"log = {content!r}"[:60], writing("log_history.jsonl", content)
        yield f"made_for = {content!r}"[:60], writing("checkpoints/made_for.json", content)
    for name in LINKABLE:
        for target in (outside, outside / "file", outside / "none", Path("/dev/zero")):
            yield f"{name} -> {target.name}", linking(name, target)
        yield f"{name} is a folder", replacing(name, lambda path: path.mkdir())
        yield f"{name} is a pipe", replacing(name, os.mkfifo)
        yield f"{name} leads to itself", linking(name, Path(name).name)


def keys_of(step: str) -> list[tuple[str, ...]]:
    """Return where to put odd values: every part of a record, and what every step has in one."""
    parts = [("options",), ("results",), ("inputs",), ("after",), ("source",), ("measured",)]
    inner = [("measured", name) for name in ("signatures", "flags", "summary")]
    return [*parts, *inner, ("results", "artifacts")]


def resealed(step: str, path: tuple[str, ...], value: Any) -> Callable[[Path], None]:
    """Return what changes a record and seals it anew: by hand, or by another version."""

    def change(run: Path) -> None:
        record = json.loads((run / f"{step}.json").read_text())
        part = record
        for key in path[:-1]:
            part = part[key]
        part[path[-1]] = value
        if isinstance(record["measured"], dict):
            record["measured"]["sha256"] = seal_of(record)
        (run / f"{step}.json").write_text(json.dumps(record))

    return change


def without_keys(step: str, part: str) -> Callable[[Path], None]:
    """Return what empties a part of a record, all but what makes it one."""

    def change(run: Path) -> None:
        record = json.loads((run / f"{step}.json").read_text())
        kept = ("signatures", "flags", "summary", "artifacts")
        record[part] = {name: value for name, value in record[part].items() if name in kept}
        write_record(run / f"{step}.json", record)

    return change


def writing(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda run: (run / name).write_bytes(content) and None


def linking(name: str, target: Path | str) -> Callable[[Path], None]:
    return replacing(name, lambda path: path.symlink_to(target))


def replacing(name: str, make: Callable[[Path], Any]) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        make(path)

    return change
