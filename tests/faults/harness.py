"""What the tests of faults share: runs to harm, the harm, and what to call the outcome."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.conftest import PROJECT
from tests.faults.workshop import Ending, Order

COMMANDING = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
EQUAL, REFUSED, DONE, STOPPED = "equal", "refused", "done", "stopped"
GOOD = (EQUAL, REFUSED, DONE, STOPPED)


class Workshop:
    """Carries out orders one by one, in children of a process that has imported everything."""

    def __init__(self, home: Path):
        environment = os.environ | {
            "HOME": str(home / "home"),
            "TMPDIR": str(home / "temporary"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "TQDM_DISABLE": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "MPLCONFIGDIR": str(home / "home"),
        }
        self.may_write = [home / "home", home / "temporary"]
        for folder in self.may_write:
            folder.mkdir()
        self.errors = (home / "workshop.log").open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.workshop"],
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        self.answer()

    def answer(self) -> dict:
        line = self.process.stdout.readline()
        assert line, f"the workshop ended; see {self.errors.name}"
        return json.loads(line)

    def __call__(self, main: str, *words: str | Path, may_write: Path, **more: object) -> Ending:
        """Carry out one order. `may_write`: where it may, beside a home and for what is passing."""
        allowed = [str(path) for path in (may_write, *self.may_write)]
        folder = str(more.pop("folder", PROJECT))
        order = Order(main, [str(word) for word in words], folder, may_write=allowed, **more)
        print(json.dumps(asdict(order)), file=self.process.stdin, flush=True)
        return Ending(**self.answer())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()


@dataclass
class Tally:
    """The outcomes of one kind of case; a line of the table at the end."""

    kind: str
    counts: dict[str, int] = field(default_factory=dict)
    longest_seconds: float = 0.0
    bad: list[str] = field(default_factory=list)
    awaited: list[str] = field(default_factory=list)

    def note(
        self,
        case: str,
        ending: Ending,
        expected: Callable[[], bool] | None = None,
        awaited: bool = False,
    ) -> str:
        """Note how a case ended. `expected`: tells, of one that ended well, if all is equal."""
        found = verdict(ending)
        if found == DONE and expected is not None:
            found = EQUAL if expected() else "other results"
        self.longest_seconds = max(self.longest_seconds, ending.seconds)
        if found not in GOOD and awaited:
            self.awaited.append(f"{case}: {found}")
            found = "awaited"
        elif found not in GOOD:
            said = (ending.err or ending.out).strip()[-600:]
            extra = ending.outside[:3] + ending.started[:3]
            self.bad.append(f"{case}: {found} (code {ending.code}) {' '.join(extra)}\n    {said}")
        self.counts[found] = self.counts.get(found, 0) + 1
        return found

    def check(self) -> None:
        """Fail with the cases that ended badly."""
        shown = "\n".join(self.bad[:12])
        assert not self.bad, f"{len(self.bad)} of {sum(self.counts.values())} {self.kind}:\n{shown}"


def verdict(ending: Ending) -> str:
    """Return what became of an order: done, refused in one line, stopped, or what went wrong."""
    if ending.hung:
        return "hung"
    if ending.started:
        return "started something"
    if ending.outside:
        return "wrote outside"
    if COMMANDING.search(ending.out + ending.err):
        return "printed control characters"
    if "Traceback" in ending.err:
        return "traceback"
    if ending.code == 2:
        one = ending.err.startswith("error: ") and ending.err.count("\n") == 1
        return REFUSED if one else "more than one line"
    return {0: DONE, 130: STOPPED}.get(ending.code, "crashed")


def essence(run: Path) -> dict[str, str]:
    """Return what is to be equal whatever happened: weights, metrics, samples."""
    found = {}
    for name in ("model", "test_losses.parquet", "samples.md", "samples.jsonl"):
        for path in sorted((run / name).rglob("*")) if name == "model" else [run / name]:
            found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    for step in ("train_model", "evaluate_model", "generate"):
        record = json.loads((run / f"{step}.json").read_text())
        found[step] = json.dumps(record["results"], sort_keys=True)
    return found


# Four ways to damage a file


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[len(content) // 2] ^= 1
    keeping_times(path, bytes(content))


def truncate(path: Path) -> None:
    keeping_times(path, path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    keeping_times(path, b"")


def delete(path: Path) -> None:
    path.unlink()


DAMAGES = (flip_a_bit, truncate, empty, delete)


def keeping_times(path: Path, content: bytes) -> None:
    """Write content with the times that the file had: as a disk that goes bad does it."""
    stat = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def copy_of(run: Path, home: Path, name: str = "run") -> Path:
    """Return a fresh copy of a run directory, its times kept."""
    shutil.rmtree(home / name, ignore_errors=True)
    return Path(shutil.copytree(run, home / name, symlinks=True))
