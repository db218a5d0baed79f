"""What the kinds of faults share: a workshop, a finished run to harm, and a tally of outcomes."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import FLAGS, PROJECT
from tests.faults.harm import contents, copy_of, essence
from tests.faults.orders import Ending, Order

COMMANDING = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
ADDRESS_SPACE = 6 << 30  # bytes a child may map: what asks for more must say so
LONGEST_LINE = 2_100  # characters
KEPT_FOR_SPEED = {"base_scores.safetensors"}  # made when the base model is scored, not before
EQUAL, REFUSED, DONE = "equal", "refused", "done"
GOOD = (EQUAL, REFUSED, DONE)


class Workshop:
    """Carries out orders one by one, in children of a process that has imported everything."""

    def __init__(self, home: Path):
        self.home = home
        environment = os.environ | {
            "HOME": str(home / "home"),
            "TMPDIR": str(home / "temporary"),
            "MPLCONFIGDIR": str(home / "home"),
            "HF_HOME": str(home / "home"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "TQDM_DISABLE": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        for name in ("home", "temporary", "outside"):
            (home / name).mkdir()
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

    def __call__(self, main: str, *words: Any, may_write: Path, **more: Any) -> Ending:
        """Carry out one order. `may_write`: where it may, beside a home and for what is passing."""
        allowed = [may_write, self.home / "home", self.home / "temporary"]
        more = {"folder": str(self.home / "temporary"), "limits": {"AS": ADDRESS_SPACE}} | more
        order = Order(main, list(map(str, words)), may_write=list(map(str, allowed)), **more)
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

    def note(self, case: str, ending: Ending, equal: Callable[[], str | None] | None = None) -> str:
        """Note how a case ended. `equal`: tells, of one that is done, what is not as it should."""
        found = verdict(ending)
        if found == DONE and equal is not None:
            found = equal() or EQUAL
        self.longest_seconds = max(self.longest_seconds, ending.seconds)
        if found not in GOOD:
            said = (ending.err or ending.out).strip()[-1500:]
            extra = ending.outside[:3] + ending.started[:3]
            self.bad.append(f"{case}: {found} (code {ending.code}) {' '.join(extra)}\n    {said}")
            sys.stderr.write(f"{self.bad[-1]}\n")  # now, not after minutes
        self.counts[found] = self.counts.get(found, 0) + 1
        return found

    def line(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in sorted(self.counts.items()))
        return f"{self.kind}: {counts}; longest {self.longest_seconds:.1f} s"


def verdict(ending: Ending) -> str:
    """Return what became of an order: done, refused in one line, or what went wrong."""
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
        line = ending.err
        one = line.startswith("error: ") and line.count("\n") == 1 and len(line) < LONGEST_LINE
        return REFUSED if one else "more than one line"
    return DONE if ending.code == 0 else "crashed"


@dataclass
class Bench:
    """A workshop and a finished run. `minutes`: of the long form; None: a part of each kind."""

    workshop: Workshop
    minutes: float | None
    draw: random.Random
    flags: list[str] = field(default_factory=list)
    tallies: list[Tally] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.home = self.workshop.home
        self.outside = self.home / "outside"
        (self.outside / "file").write_text("not yours")
        self.kept_outside = contents(self.outside)
        if not self.flags:
            self.flags = [w for words in FLAGS.values() for w in words] + ["--precision", "fp32"]
            self.flags += ["--corpus", str(PROJECT / "data/keepers_log/0[0-2]*.txt")]
        self.run = self.home / "undisturbed"
        self.undisturbed = self.chain(self.run, patience=120)
        assert self.undisturbed.code == 0, self.undisturbed
        self.expected = essence(self.run)
        self.names = {path.name for path in self.run.iterdir()}

    def chain(self, run: Path, *words: Any, **more: Any) -> Ending:
        """Run all steps as they were run for the undisturbed run."""
        words = ("--run_dir", run, *self.flags, *words)
        return self.workshop("run_pipeline", *words, may_write=run, within=str(run), **more)

    def tally(self, kind: str) -> Tally:
        self.tallies.append(Tally(kind))
        return self.tallies[-1]

    def some(self, cases: Sequence, few: int, most: int = 1000) -> list:
        """Return all cases in the long form, or `most` of them; else a few of them."""
        number = few if self.minutes is None else most
        return list(cases) if len(cases) <= number else self.draw.sample(list(cases), number)

    def clear(self, run: Path) -> None:
        shutil.rmtree(run, ignore_errors=True)

    def copy(self, name: str = "run") -> Path:
        return copy_of(self.run, self.home / name)

    def unequal(self, run: Path) -> str | None:
        """Return what of a run is not what an undisturbed one leaves, or None."""
        found = essence(run)
        if found != self.expected:
            names = {*found, *self.expected}
            other = [name for name in names if found.get(name) != self.expected.get(name)]
            return f"other results: {', '.join(sorted(other)[:4])}"
        if more := ({path.name for path in run.iterdir()} ^ self.names) - KEPT_FOR_SPEED:
            return f"left behind or missing: {', '.join(sorted(more))}"
        return self.touched()

    def touched(self) -> str | None:
        """Return that something outside was changed, or None."""
        same = contents(self.outside) == self.kept_outside
        return None if same else "changed what is outside"
