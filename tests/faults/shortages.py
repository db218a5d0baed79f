"""A disk full from any write on, too few open files, too little memory, a folder removed."""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

from tests.faults.harness import Bench, Tally
from tests.faults.kills import moments

SIZES = range(100_000, 2_200_001, 150_000)  # bytes of a disk; the tiny run takes 2 million
LIMITS = [("NOFILE", n) for n in (12, 16, 24, 32)]
LIMITS += [("AS", mega << 20) for mega in (20, 100, 300, 1_000)]
LIMITS += [("FSIZE", kilo << 10) for kilo in (1, 5, 20, 100, 200)]


def full_at_each_write(bench: Bench) -> Tally:
    """No file may grow from a change on; when they may again, the same command comes to its end."""
    tally = bench.tally("disk full at a write")
    for moment in bench.some([m for m in moments(bench) if m.startswith("open ")], 0):
        run = bench.home / "full"
        bench.clear(run)
        at = bench.undisturbed.changes.index(moment)
        tally.note(f"before {moment}", bench.chain(run, at=at, then="fill the disk"))
        again = bench.chain(run)
        tally.note(f"{moment}, again", again, lambda run=run: bench.unequal(run))
    return tally


def small_disks(bench: Bench) -> Tally:
    """A disk of its own for the run, of every size; root alone may mount one."""
    tally = bench.tally("a small disk")
    for size in bench.some(SIZES, 0) if os.geteuid() == 0 else []:
        with disk(bench.home / "disk", size) as folder:
            tally.note(f"{size:,} bytes", bench.chain(folder / "run"))
    return tally


@contextlib.contextmanager
def disk(folder: Path, size: int) -> Iterator[Path]:
    libc = ctypes.CDLL(None, use_errno=True)
    folder.mkdir(exist_ok=True)
    where = str(folder).encode()
    if libc.mount(b"none", where, b"tmpfs", 0, f"size={size}".encode()):
        raise OSError(ctypes.get_errno(), "mount")
    try:
        yield folder
    finally:
        libc.umount2(where, 2)


def tight_limits(bench: Bench) -> Tally:
    tally = bench.tally("too few files, too little memory")
    for name, most in bench.some(LIMITS, 0):
        run = bench.home / "limited"
        bench.clear(run)
        tally.note(f"{name} {most:,}", bench.chain(run, limits={name: most}))
        tally.note(
            f"{name}, again", bench.chain(run), lambda: bench.unequal(bench.home / "limited")
        )
    return tally


def removed_meanwhile(bench: Bench) -> Tally:
    tally = bench.tally("run directory removed meanwhile")
    for moment in bench.some(moments(bench), 0, 40):
        run = bench.home / "removed"
        bench.clear(run)
        at = bench.undisturbed.changes.index(moment)
        tally.note(f"before {moment}", bench.chain(run, at=at, then="remove the folder"))
    return tally
