"""SIGKILL, at random and before named changes; then the same command again, to equal results."""

from tests.faults.harness import Bench, Tally

AT_RANDOM, AT_MOMENTS = 30, 40
LASTING = ("open ", "os.rename ", "os.rmdir ", "os.remove checkpoints", "os.mkdir checkpoints")


def killed_at_random(bench: Bench) -> Tally:
    tally = bench.tally("SIGKILL at random")
    seconds = [bench.draw.uniform(0, bench.undisturbed.seconds) for _ in range(AT_RANDOM)]
    for after in bench.some(seconds, 0):
        killed_then_again(bench, tally, f"after {after:.2f} s", kill_after=after)
    return tally


def killed_at_moments(bench: Bench) -> Tally:
    tally = bench.tally("SIGKILL at moments")
    for moment in bench.some(moments(bench), 1, AT_MOMENTS):
        at = bench.undisturbed.changes.index(moment)
        killed_then_again(bench, tally, f"before {moment}", at=at)
    return tally


def moments(bench: Bench) -> list[str]:
    """Return the changes of an undisturbed run, each once, that begin or end something."""
    changes = dict.fromkeys(bench.undisturbed.changes)
    return [c for c in changes if c.startswith(LASTING) and ".probe" not in c]


def killed_then_again(bench: Bench, tally: Tally, case: str, **kill: object) -> None:
    run = bench.home / "killed"
    bench.clear(run)
    killed = bench.chain(run, **kill)
    if killed.code != -9 and (killed.hung or killed.code):
        tally.note(f"{case}, before the kill", killed)
    tally.note(case, bench.chain(run), lambda: bench.unequal(run))
