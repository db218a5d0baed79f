"""Every file of a run directory and of a checkpoint damaged in four ways; then the same command."""

from pathlib import Path

from tests.faults.harm import DAMAGES, copy_of
from tests.faults.harness import Bench, Tally

# After its end nothing reads a run's checkpoints: a damage there is found when it is gone on with.
UNREAD = "checkpoints"


def damaged_runs(bench: Bench) -> Tally:
    tally = bench.tally("a file of a finished run damaged")
    files = [p for p in names_in(bench.run) if not p.startswith(UNREAD)]
    for name, damage in bench.some([(n, d) for n in files for d in DAMAGES], 1):
        run = bench.copy()
        damage(run / name)
        case = f"{damage.__name__} {name}"
        tally.note(case, bench.chain(run), lambda run=run: bench.unequal(run))
    return tally


def damaged_checkpoints(bench: Bench) -> Tally:
    """Training is killed behind its last checkpoint: what is left goes on from one, or anew."""
    tally = bench.tally("a file of a checkpoint damaged")
    files = names_in(bench.run / UNREAD)
    for name, damage in bench.some([(n, d) for n in files for d in DAMAGES], 0):
        run = behind_checkpoints(bench)
        damage(run / UNREAD / name)
        case = f"{damage.__name__} {name}"
        tally.note(case, bench.chain(run), lambda run=run: bench.unequal(run))
    return tally


def behind_checkpoints(bench: Bench) -> Path:
    """Return a copy of a run that was killed behind its last checkpoint."""
    killed = bench.home / "behind"
    if not killed.exists():
        ending = bench.chain(killed, moment=r"\.model\.unfinished/config\.json")
        assert ending.code == -9, ending
    return copy_of(killed, bench.home / "run")


def names_in(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
