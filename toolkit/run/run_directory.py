"""A run directory: the folder of one run, its lock, and steps that end well or leave no trace."""

from __future__ import annotations

import contextlib
import os
import random
import time
import weakref
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from toolkit.run.command import UserError
from toolkit.run.console import say
from toolkit.run.devices import cpu_has_bf16, pick_device, pick_precision
from toolkit.run.files import (
    remove,
    sha256_of,
    signature_of,
    size_of,
    strangers_in,
    write_atomically,
)
from toolkit.run.options import as_flags, as_record
from toolkit.run.records import (
    UNREADABLE,
    Records,
    digest_of,
    files_read_by,
    reads_whole_files,
    write_record,
)
from toolkit.run.source import source_of
from toolkit.run.steps import label, number_of

NOTES_SHOWN = 6
SCRATCH = ".scratch"  # one name, so that what a killed process left is found and removed


class Step:
    """A step at work: where it puts its artifacts and results. See `RunDirectory.step`."""

    def __init__(self, folder: Path):
        self.results: dict[str, Any] = {}
        self.measured: dict[str, Any] = {}
        self.notes: list[str] = []  # lines that the console prints before it
        self.summary = ""  # the line the console prints
        self.earlier_is_intact = (
            True  # False once the step has changed an artifact of its earlier run
        )
        self._folder = folder
        self._written: dict[Path, Path] = {}  # where it is being written -> where it belongs
        self._differing: set[Path] = set()  # those that differ from run to run

    def folder(self, name: str) -> Path:
        """Return an empty folder to write in; it becomes `name` when the step ends well."""
        path = self.file(name)
        path.mkdir()
        return path

    def file(self, name: str, measured: bool = False) -> Path:
        """Return a path to write to; the file becomes `name` when the step ends well.

        `measured`: it holds timings, so that no hash may cover it.
        """
        path = self._folder / f".{name}.unfinished"
        remove(path)
        if measured:
            self._differing.add(path)
        self._written[path] = self._folder / name
        return path

    def scratch(self) -> Path:
        """Return an empty folder for work files; it is gone when the step has ended."""
        path = self._folder / SCRATCH
        remove(path)
        path.mkdir()
        return path

    def discard(self) -> None:
        for path in self._written:
            remove(path)

    def measure(self) -> None:
        """Note size, content and times of every artifact in what the record will say."""
        self.measured["signatures"] = {}
        for path, home in self._written.items():
            part = self.measured if path in self._differing else self.results
            known = {"bytes": size_of(path), "sha256": sha256_of([path])}
            part.setdefault("artifacts", {})[home.name] = known
            self.measured["signatures"][home.name] = signature_of([path])

    def publish(self) -> None:
        """Rename every artifact into place."""
        self.earlier_is_intact = False
        for path, home in self._written.items():
            remove(home)
            path.rename(home)


class RunDirectory(Records):
    """The folder of one run, with the seed, device and precision that hold for all its steps.

    `seed`: int; `device`: torch device type, or "auto", which is settled when first asked for;
    `precision`: "fp32", "bf16", "fp16" or "auto".
    """

    def __init__(
        self, path: str | Path, seed: int = 42, device: str = "cpu", precision: str = "fp32"
    ):
        super().__init__(Path(path))
        self.settle(seed, device, precision)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            refuse_strangers(self.path)
            probe = self.path / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(f"--run_dir {path}: cannot be written ({error.strerror})") from None
        self._lock = FileLock(self.path / ".lock", timeout=0, is_singleton=True)
        self._unlock: weakref.finalize | None = None

    def settle(self, seed: int, device: str, precision: str) -> None:
        """Take the seed, and what device and precision are to be picked by."""
        self.seed, self._asked_device, self._asked_precision = seed, device, precision
        self.__dict__.pop("device", None), self.__dict__.pop("precision", None)

    @cached_property
    def device(self) -> str:
        return pick_device(self._asked_device)

    @cached_property
    def precision(self) -> str:
        """The one that is asked for. What "auto" meant to step 2 it means to all steps.

        Else a measurement that comes out otherwise would change the run half-way.
        """
        known = self.record("import_modules")
        if known and known["options"]["precision"] == self._asked_precision == "auto":
            found = known["measured"]
            if self.device == "cpu" and found["device"].startswith("cpu"):
                if found["precision"] == "fp32" or cpu_has_bf16():
                    return found["precision"]
        return pick_precision(self._asked_precision, self.device)

    @property
    def held(self) -> bool:
        return self._unlock is not None and self._unlock.alive

    def lock(self) -> None:
        """Hold the directory until this process ends or `unlock`; refuse if another holds it."""
        if self.held:
            return
        holder = self.path / ".lock-holder"
        try:
            self._lock.acquire()
            write_atomically(holder, str(os.getpid()).encode())
        except Timeout:
            process = holder.read_text() if holder.is_file() else "unknown"
            raise UserError(
                f"{self.path} is in use by process {process}; "
                "wait for it to end, or choose another --run_dir"
            ) from None
        except OSError as error:
            raise UserError(f"{self.path / '.lock'}: cannot be held ({error.strerror})") from None
        self._unlock = weakref.finalize(self, release, self.path, self._lock)

    def is_still(self, folder: os.stat_result) -> bool:
        """Tell whether the run directory is the folder that it was."""
        try:
            return os.path.samestat(os.stat(self.path), folder)
        except OSError:
            return False

    def unlock(self) -> None:
        """Let other processes write here."""
        if self._unlock is not None:
            self._unlock()

    @contextlib.contextmanager
    def step(
        self, file: str, options: Any, after: str | tuple[str, ...] = (), seeded: bool = True
    ) -> Iterator[Step]:
        """Run the body as one step: remove its record, seed, then publish artifacts and record.

        `file`: the step's `__file__`. `after`: the steps it rests on, which must be finished.
        `seeded`: whether the body draws random numbers. Nothing is published before everything is
        written: on an error in the body the earlier artifacts are as they were, and if the step has
        not changed them, their record comes back.
        """
        name = Path(file).stem
        after = (after,) if isinstance(after, str) else after
        for upstream in after:
            self.finished(upstream)
        self.lock()
        home, folder = self.path / f"{name}.json", os.stat(self.path)
        earlier = home.read_bytes() if home.is_file() else None
        remove(home)
        if seeded:
            seed_everything(self.seed)
        started = time.perf_counter()
        step = Step(self.path)
        try:
            files = files_read_by(options)
            inputs = digest_of(files, reads_whole_files(options))
            touched = signature_of(files) if inputs not in (None, UNREADABLE) else None
            yield step
            step.measure()
            step.measured["signatures"] |= {"inputs": touched} if touched else {}
            step.measured |= {
                "seconds_in_step": round(time.perf_counter() - started, 3),
                "flags": as_flags(options),
                "summary": step.summary,
            }
            record = {
                "options": as_record(options),
                "results": step.results,
                "inputs": inputs,
                "after": {upstream: self.record_hash(upstream) for upstream in after},
                "source": source_of(f"{name}.py"),
                "measured": step.measured,
            }
            write_record(step.file(home.name), record)  # the last to be renamed into place
            step.publish()
            self.trust_artifacts(name)
        except BaseException as error:
            if not self.is_still(folder):
                raise UserError(
                    f"{self.path} was removed or replaced while step {number_of(name)} worked in "
                    "it; nothing is kept: run the same command again"
                ) from error
            step.discard()
            if earlier is not None and step.earlier_is_intact:
                write_atomically(home, earlier)
            raise
        finally:
            remove(self.path / SCRATCH)
        for line in shortened(step.notes):
            say(f"{label(name)} {line}")
        say(f"{label(name)} {step.summary}")


def shortened(notes: list[str]) -> list[str]:
    more = len(notes) - NOTES_SHOWN
    return notes[:NOTES_SHOWN] + (
        [f"... and {more:,} more notes, in the record"] if more > 0 else []
    )


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators, on every card."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def release(folder: Path, lock: FileLock) -> None:
    """Give up one hold on a run directory's lock; the last one clears it away."""
    with contextlib.suppress(OSError):  # the folder may be gone, or be read-only by now
        if lock.lock_counter == 1:
            remove(folder / ".lock-holder")
            remove(folder / ".lock")
    lock.release()


def refuse_strangers(folder: Path) -> None:
    """Refuse a run directory that would be written through, to elsewhere. Raises UserError."""
    for path, what in strangers_in(folder):
        raise UserError(
            f"{path} is {what}: a run directory holds files and folders of its own only; remove "
            "it, or put there what it stands for"
        )
