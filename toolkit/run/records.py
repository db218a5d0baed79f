"""Records: what says that a step is done, and whether it still holds.

A record, `<step>.json`, holds
    options   what the step was asked for
    results   what came out: numbers, and size and sha256 of each artifact
    source    sha256 of the step's own file
    inputs    sha256 of the files it read from outside the run directory, or null; of files too
              large to be read whole (`reads_whole_files`) their names, sizes and ends
    after     the hash of each upstream record
    measured  seconds, machine, the printed line: what may differ between identical runs; not hashed
It is removed when the step starts and written last, so that its existence means done.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Protocol

from toolkit.run.command import UserError
from toolkit.run.files import PROJECT, files_in, sha256_of, sha256_of_ends, size_of
from toolkit.run.options import as_command, as_record

STEPS = (
    "install_libraries",
    "import_modules",
    "load_gpt2",
    "create_dataset",
    "train_test_split",
    "configure_trainer",
    "train_model",
    "evaluate_model",
    "visualize_performance",
    "generate",
)


UNREADABLE = "unreadable"


class ReadsFiles(Protocol):
    """Options that name files or folders outside the run directory: their content counts too."""

    def files_read(self) -> list[Path]: ...


class Records:
    """The records in one run directory."""

    def __init__(self, path: Path):
        self.path = path
        self._digests: dict[tuple, str] = {}

    def record(self, step: str) -> dict[str, Any] | None:
        """Return a step's record, or None where there is none that can be read."""
        try:
            record = json.loads((self.path / f"{step}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return record if isinstance(record, dict) and "after" in record else None

    def results(self, step: str) -> dict[str, Any]:
        """Return the results of a finished step."""
        self.finished(step)
        return self.record(step)["results"]

    def finished(self, step: str) -> Path:
        """Return the run directory; refuse if the step or one it rests on is undone or changed."""
        for name in self.upstream(step):
            if problem := self.problem(name):
                raise UserError(
                    f"{self.path}: {name} {problem}; run: {self.command_for(name, step)}"
                )
        return self.path

    def is_current(self, step: str, options: Any) -> bool:
        """Tell whether running the step with these options would only repeat what is there."""
        record = self.record(step)
        if record is None or record["options"] != json.loads(json.dumps(as_record(options))):
            return False
        return self.problem(step) is None and record["inputs"] == self.digest_inputs(options)

    def upstream(self, step: str) -> list[str]:
        """Return `step` and what it rests on (if unknown, all earlier steps), in order."""
        record = self.record(step)
        if record is None:
            return list(STEPS[1 : STEPS.index(step) + 1])
        names = {step}.union(*(self.upstream(name) for name in record["after"]))
        return sorted(names, key=STEPS.index)

    def problem(self, step: str) -> str | None:
        """Return why a step's record does not hold, or None. Looks one step back, not further."""
        record = self.record(step)
        if record is None:
            return "has not run to its end"
        if record["source"] != sha256_of([PROJECT / f"{step}.py"]):
            return f"is stale ({step}.py was edited since)"
        for name, known in record["after"].items():
            if self.record_hash(name) != known:
                return f"is stale ({name} has run again since)"
        files = [Path(path) for path in record["measured"]["files_read"]]
        inputs = self.digest_files(files, record["measured"].get("files_read_whole", True))
        if inputs not in (record["inputs"], UNREADABLE):  # files that are gone cannot have changed
            return "is stale (its input files changed since)"
        lasting, differing = (record[part].get("artifacts", {}) for part in ("results", "measured"))
        for name, known in {**lasting, **differing}.items():
            if not (self.path / name).exists() or size_of(self.path / name) != known["bytes"]:
                return f"is stale ({name} was changed or removed since)"
        return None

    def command_for(self, step: str, wanted: str) -> str:
        """Return the command that mends a step, so that `wanted` is finished."""
        here = ["--run_dir", str(self.path)]
        records = {name: self.record(name) for name in STEPS[1 : STEPS.index(wanted) + 1]}
        if step == wanted:
            return as_command(
                f"{step}.py", here + (records[step]["measured"]["flags"] if records[step] else [])
            )
        flags = [
            word for record in records.values() if record for word in record["measured"]["flags"]
        ]
        return as_command(
            "run_pipeline.py", [*here, *flags, "--to_step", str(STEPS.index(wanted) + 1)]
        )

    def record_hash(self, step: str) -> str | None:
        """Return the hash that downstream records keep: of all but `measured`."""
        record = self.record(step)
        if record is None:
            return None
        lasting = {key: value for key, value in record.items() if key != "measured"}
        return hashlib.sha256(json.dumps(lasting, sort_keys=True).encode()).hexdigest()

    def digest_inputs(self, options: Any) -> str | None:
        return self.digest_files(files_read_by(options), reads_whole_files(options))

    def digest_files(self, files: list[Path], whole: bool) -> str | None:
        """Return one sha256 over paths outside the run directory, each read once a process."""
        if not files:
            return None
        try:
            stats = ((file, file.stat()) for path in files for file in files_in(path))
            key = tuple((str(file), stat.st_size, stat.st_mtime_ns) for file, stat in stats)
            key += (whole,)
            if key not in self._digests:
                self._digests[key] = sha256_of(files) if whole else sha256_of_ends(files)
        except OSError:
            return UNREADABLE
        return self._digests[key]


def files_read_by(options: Any) -> list[Path]:
    """Return what a step with these options reads from outside the run directory."""
    return options.files_read() if hasattr(options, "files_read") else []


def reads_whole_files(options: Any) -> bool:
    return options.reads_whole_files() if hasattr(options, "reads_whole_files") else True
