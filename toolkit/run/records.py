"""Records: what says that a step is done, whether it may be used, and why it is to be done again.

A record, `<step>.json`, holds
    options   what the step was asked for
    results   what came out: numbers, and size and sha256 of each artifact
    inputs    sha256 of the files it read from outside the run directory, or null; of files too
              large to be read whole (`reads_whole_files`) their names, sizes and ends
    after     the hash of each upstream record: of its options, results, inputs and after
    source    fingerprint of each of the project's files that the step reaches: see source.py
    measured  seconds, machine, the printed line, `signatures` (sizes and times of what it read and
              left), and `sha256` of the record itself: what may differ between identical runs
It is removed when the step starts and written last, so that its existence means done.

Two questions are asked of it. *May it be used?* (`finished`): it and what it rests on are whole
and fit together; code and outside files do not count: no update of the project locks anyone out.
*Is it to be done again?* (`reason_to_redo`): also if options, code or input files are others now.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NoReturn, Protocol

from toolkit.run.command import UserError
from toolkit.run.files import sha256_of, sha256_of_ends, signature_of, size_of, write_atomically
from toolkit.run.options import as_command, as_record
from toolkit.run.source import edited_file, source_of
from toolkit.run.steps import STEPS, number_of

NOT_RUN = "has not run to its end"
SMALL = 1_000_000  # bytes up to which an artifact is hashed whenever it is used
SEAL = "sha256"
UNREADABLE = "unreadable"


class Damaged(UserError):
    """What a step left is not what it is now. `step`: the one that makes it again."""

    def __init__(self, step: str, message: str):
        super().__init__(message)
        self.step = step


class Held(dict[str, Any]):
    """A part of a record. What it does not hold, an older version of this project did not write."""

    def __init__(self, part: dict[str, Any], path: Path):
        super().__init__(part)
        self.path = path

    def __missing__(self, key: str) -> NoReturn:
        raise UserError(
            f"{self.path} says no {key}: another version of this project wrote it; "
            "run run_pipeline.py with the flags of this run and --force"
        )


class ReadsFiles(Protocol):
    """Options that name files or folders outside the run directory: their content counts too."""

    def files_read(self) -> list[Path]: ...


class Records:
    """The records in one run directory."""

    held = False  # whether this process may write here

    def __init__(self, path: Path):
        self.path = path
        self._read: dict[str, tuple[tuple, str | None]] = {}
        self._checked: dict[tuple, bool] = {}  # what was hashed -> whether it was as it was left

    def record(self, step: str) -> dict[str, Any] | None:
        """Return a step's record, or None where there is none, or none that is as it was left."""
        path = self.path / f"{step}.json"
        try:
            stat = path.stat()
            key = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
            if self._read.get(step, (None,))[0] != key:
                text = path.read_text(encoding="utf-8", errors="replace")
                self._read[step] = (key, text if is_whole(text, step) else None)
        except OSError:
            return None
        text = self._read[step][1]
        return json.loads(text, object_hook=lambda part: Held(part, path)) if text else None

    def results(self, step: str) -> dict[str, Any]:
        """Return the results of a finished step."""
        self.finished(step)
        return self.record(step)["results"]

    def finished(self, step: str) -> Path:
        """Return the run directory; refuse if the step or one it rests on may not be used."""
        for name in self.upstream(step):
            if problem := self.problem(name):
                raise UserError(
                    f"{self.path}: {name} {problem}; run: {self.command_for(name, step)}"
                )
        return self.path

    def artifact(self, step: str, name: str) -> Path:
        """Return an artifact of a finished step, to be opened: all of it is hashed, once a process.

        Raises Damaged where it is not what the step left, though sizes and times agree.
        """
        self.finished(step)
        if self.changed_artifact(step, opened=name):
            raise Damaged(
                step,
                f"{self.path / name}: damaged: not what {step} left there; "
                f"run: {self.command_for(step, step)}",
            )
        return self.path / name

    def problem(self, step: str) -> str | None:
        """Return why what a step left may not be used, or None. Looks one step back only."""
        record = self.record(step)
        if record is None:
            return self.reason_without_record(step)
        for name, known in record["after"].items():
            if self.record_hash(name) != known:
                return f"is stale ({name} has run again since)"
        if name := self.changed_artifact(step):
            return f"is stale ({name} was changed or removed since)"
        return None

    def reason_to_redo(self, step: str, options: Any) -> str | None:
        """Return why running a step with these options would not only repeat what is there."""
        record = self.record(step)
        if record is None:
            return self.reason_without_record(step)
        if name := different_option(record["options"], options):
            return f"--{name} was {record['options'].get(name, 'not there')}"
        if file := edited_file(record["source"], source_of(f"{step}.py")):
            return f"{file} was edited"
        if self.changed_input(step, options):
            return "its input files changed"
        return self.problem(step)

    def reason_without_record(self, step: str) -> str:
        if not (self.path / f"{step}.json").exists():
            return NOT_RUN
        return f"has a record ({step}.json) that is damaged, edited by hand, or of another version"

    def upstream(self, step: str) -> list[str]:
        """Return `step` and what it rests on (if unknown, all earlier steps), in order."""
        record = self.record(step)
        if record is None:
            return list(STEPS[1 : number_of(step)])
        names = {step}.union(*(self.upstream(name) for name in record["after"]))
        return sorted(names, key=STEPS.index)

    def changed_input(self, step: str, options: Any) -> bool:
        """Tell whether the files that a step with these options reads differ from those it read.

        Hashes them only where sizes or times differ. Files that are gone cannot have changed.
        """
        record, files = self.record(step), files_read_by(options)
        try:
            signature = signature_of(files)
        except OSError:
            return False
        if not files or signature == record["measured"]["signatures"].get("inputs"):
            return False
        if digest_of(files, reads_whole_files(options)) != record["inputs"]:
            return True
        self.remember(step, "inputs", signature)
        return False

    def changed_artifact(self, step: str, opened: str | None = None) -> str | None:
        """Return the name of an artifact that is not as its step left it, or None.

        Small ones are hashed, large ones where their sizes agree and their times do not, and the
        one that is `opened`.
        """
        record = self.record(step)
        for name, known in artifacts_of(record).items():
            path = self.path / name
            if not path.exists() or size_of(path) != known["bytes"]:
                return name
            signature = signature_of([path])
            touched = signature != record["measured"]["signatures"].get(name)
            check = (step, name, signature, known["sha256"])
            if check not in self._checked:
                if not (touched or known["bytes"] <= SMALL or name == opened):
                    continue
                self._checked[check] = sha256_of([path]) == known["sha256"]
            if not self._checked[check]:
                return name
            if touched:
                self.remember(step, name, signature)
        return None

    def trust_artifacts(self, step: str) -> None:
        """Take what a step of this process has just left as checked: it was hashed for its record.

        What is damaged afterwards, in the same process, is not seen.
        """
        record = self.record(step)
        for name, known in artifacts_of(record).items():
            signature = record["measured"]["signatures"][name]
            self._checked[(step, name, signature, known["sha256"])] = True

    def remember(self, step: str, what: str, signature: str) -> None:
        """Note the sizes and times of what was hashed and found equal, to hash it once only."""
        if self.held:
            record = self.record(step)
            record["measured"]["signatures"][what] = signature
            write_record(self.path / f"{step}.json", record)

    def command_for(self, step: str, wanted: str) -> str:
        """Return the command that mends a step, so that `wanted` is finished."""
        here = ["--run_dir", str(self.path)]
        records = {name: self.record(name) for name in STEPS[1 : number_of(wanted)]}
        if step == wanted:
            return as_command(
                f"{step}.py", here + (records[step]["measured"]["flags"] if records[step] else [])
            )
        flags = [
            word for record in records.values() if record for word in record["measured"]["flags"]
        ]
        return as_command("run_pipeline.py", [*here, *flags, "--to_step", str(number_of(wanted))])

    def record_hash(self, step: str) -> str | None:
        """Return the hash that downstream records keep: of what was asked for and what came out."""
        record = self.record(step)
        if record is None:
            return None
        lasting = {key: record[key] for key in ("options", "results", "inputs", "after")}
        return hashlib.sha256(json.dumps(lasting, sort_keys=True).encode()).hexdigest()


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a record with its seal, atomically."""
    record["measured"].pop(SEAL, None)
    record["measured"][SEAL] = seal_of(record)
    text = json.dumps(record, indent=2, ensure_ascii=False)
    try:
        content = text.encode()
    except UnicodeEncodeError:  # a file's name holds bytes of another encoding
        content = json.dumps(record, indent=2).encode()
    write_atomically(path, content + b"\n")


def is_whole(text: str, step: str) -> bool:
    """Tell whether a record's text is what `write_record` wrote, of the shape that is read here."""
    try:
        record = json.loads(text)
        return record["measured"][SEAL] == seal_of(record) and is_well_formed(record, step)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def is_well_formed(record: dict[str, Any], step: str) -> bool:
    """Tell whether a record's parts are what they should be, and rest on earlier steps alone."""
    measured = record["measured"]
    kinds = {"options": dict, "results": dict, "after": dict, "source": dict, "measured": dict}
    parts = all(isinstance(record[name], kind) for name, kind in kinds.items())
    texts = [measured["summary"], *measured["flags"], record["inputs"] or ""]
    artifacts = artifacts_of(record)
    measures = [(known["bytes"] >= 0, known["sha256"]) for known in artifacts.values()]
    return (
        parts
        and isinstance(measured["signatures"], dict)
        and all(isinstance(text, str) for text in texts)
        and all(map(all, measures))
        and all("/" not in name and name not in ("", ".", "..") for name in artifacts)
        and set(record["after"]) <= set(STEPS[: number_of(step) - 1])
    )


def seal_of(record: dict[str, Any]) -> str:
    """Return the sha256 of all of a record but the seal itself."""
    measured = {key: value for key, value in record["measured"].items() if key != SEAL}
    content = json.dumps({**record, "measured": measured}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def different_option(known: dict[str, Any], options: Any) -> str | None:
    """Return the name of an option that is not what a record says, or None."""
    now = json.loads(json.dumps(as_record(options)))
    return next((name for name in {**now, **known} if known.get(name) != now.get(name)), None)


def artifacts_of(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return size and sha256 of each artifact that a record lists."""
    return {**record["results"].get("artifacts", {}), **record["measured"].get("artifacts", {})}


def files_read_by(options: Any) -> list[Path]:
    """Return what a step with these options reads from outside the run directory."""
    return options.files_read() if hasattr(options, "files_read") else []


def reads_whole_files(options: Any) -> bool:
    return options.reads_whole_files() if hasattr(options, "reads_whole_files") else True


def digest_of(files: list[Path], whole: bool) -> str | None:
    """Return one sha256 over files outside the run directory; None if there are none."""
    try:
        return (sha256_of(files) if whole else sha256_of_ends(files)) if files else None
    except OSError:
        return UNREADABLE
