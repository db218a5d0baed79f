"""Bad input of every kind: flags, --config files, model folders, run directories."""

from collections.abc import Callable
from pathlib import Path

from tests.faults.bad_flags import CONFIGS, FLAGS
from tests.faults.bad_models import bad_models
from tests.faults.bad_runs import bad_runs
from tests.faults.harm import copy_of
from tests.faults.harness import Bench, Tally

ACCEPTED = "accepted"


def bad_flags(bench: Bench) -> Tally:
    tally = bench.tally("bad flags")
    (bench.home / "temporary/file").touch()
    for main, words in bench.some(FLAGS, 8):
        run, words = bench.copy(), [filled(bench, word) for word in words]
        if "--run_dir" not in words:
            words += ["--run_dir", str(run)]
        ending = bench.workshop(main, *words, may_write=run)
        tally.note(f"{main} {words}"[:120], ending, lambda: ACCEPTED)
    return tally


def filled(bench: Bench, word: str) -> str:
    places = {
        "run": bench.home / "run",
        "file": bench.home / "temporary/file",
        "outside": bench.outside,
    }
    for name, path in places.items():
        word = word.replace("{" + name + "}", str(path))
    return word


def bad_config_files(bench: Bench) -> Tally:
    tally = bench.tally("bad --config files")
    for name, content in bench.some(CONFIGS, 6):
        path, run = bench.home / "temporary" / name, bench.home / "run"
        path.write_bytes(content)
        words = ["--config", path, *([] if b"run_dir" in content else ["--run_dir", run])]
        tally.note(name, bench.workshop("run_pipeline", *words, may_write=run), lambda: ACCEPTED)
    return tally


def bad_model_folders(bench: Bench) -> Tally:
    """Opened by step 3, or refused; what may be opened must serve the next step, too."""
    tally = bench.tally("bad model folders")
    folder = bench.home / "given"
    good, edge = bench.home / "good", ["--max_documents", "5"]
    copy_of(bench.run / "base_model", good)
    for name, must, spoil in bench.some(list(bad_models()), 5):
        run = bench.copy()
        spoil(copy_of(good, folder))
        words = ["--run_dir", run, "--model", folder]
        ending = bench.workshop("load_gpt2", *words, may_write=run)
        if tally.note(name, ending, (lambda: ACCEPTED) if must else None) == "done":
            words = ["--run_dir", run, *edge]
            tally.note(f"{name}, step 4", bench.workshop("create_dataset", *words, may_write=run))
    return tally


def bad_run_directories(bench: Bench) -> Tally:
    """Read by step 10, and by the runner, which may do again what is spoilt."""
    tally = bench.tally("bad run directories")
    for name, spoil in bench.some(list(bad_runs(bench.outside)), 1, most=300):
        run = spoilt(bench, spoil)
        words = ["--run_dir", run]
        tally.note(
            f"{name}, read", bench.workshop("generate", *words, may_write=run, kill_after=30)
        )
        run = spoilt(bench, spoil)
        tally.note(name, bench.chain(run, "--to_step", "8"), lambda: bench.touched())
    return tally


def spoilt(bench: Bench, spoil: Callable[[Path], None]) -> Path:
    run = bench.copy()
    spoil(run)
    return run
