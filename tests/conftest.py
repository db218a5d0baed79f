"""What the tests share: a tiny corpus, one finished run, and ways to call the pipeline."""

import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

# Before any library is imported: torch imports tqdm, and no test reaches for the network.
os.environ.setdefault("TQDM_DELAY", "2")  # as for a user: see enter_environment
os.environ["HF_HUB_OFFLINE"] = "1"

import hypothesis  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

import run_pipeline  # noqa: E402
from toolkit.run.steps import STEPS  # noqa: E402

# The same examples at every run: who changes nothing sees no test fail. A machine may be slow.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.load_profile("same")

gc.freeze()  # the libraries' objects stay: `refusal` collects garbage a few hundred times

PROJECT = Path(__file__).resolve().parent.parent
STEP_FILES = [f"{name}.py" for name in STEPS[1:]]
TALLIES = pytest.StashKey[list]()  # of tests/faults
# A model that trains in a second, and what each step needs to be told for it.
FLAGS = {
    "import_modules.py": ["--device", "cpu", "--seed", "7"],
    "load_gpt2.py": "--from_scratch --n_layer 2 --n_head 2 --n_embd 32 --n_positions 64".split()
    + ["--vocab_size", "300", "--tokenizer_corpus", "data/keepers_log"],
    "create_dataset.py": [],
    "train_test_split.py": ["--block_size", "32"],
    "configure_trainer.py": ["--max_steps", "6", "--eval_steps", "3", "--logging_steps", "1"],
    "train_model.py": [],
    "evaluate_model.py": [],
    "visualize_performance.py": [],
    "generate.py": ["--max_new_tokens", "8"],
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests that take minutes")
    parser.addoption(
        "--faults",
        nargs="?",
        type=float,
        const=20.0,
        metavar="MINUTES",
        help="all of tests/faults alone, its fuzzing for so many minutes (default: 20)",
    )
    parser.addoption("--faults_seed", type=int, default=0, help="draws other faults")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--faults") is not None:
        items[:] = [item for item in items if "tests/faults/" in item.nodeid]
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="takes minutes: --slow"))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if config.getoption("--faults") is not None:
        for tally in config.stash.get(TALLIES, []):
            terminalreporter.write_line(tally.line())


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 30 documents, one a file."""
    folder = tmp_path_factory.mktemp("corpus")
    for path in sorted((PROJECT / "data/keepers_log").glob("*.txt"))[:30]:
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="session")
def flags(corpus: Path) -> dict[str, list[str]]:
    """The flags of each step file for the tiny run."""
    return FLAGS | {"create_dataset.py": ["--corpus", str(corpus)]}


@pytest.fixture(scope="session")
def all_flags(flags: dict[str, list[str]]) -> list[str]:
    """The same flags, for the runner."""
    return [word for words in flags.values() for word in words]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, all_flags: list[str]) -> SimpleNamespace:
    """A finished tiny run: its `path`, and what the runner printed (`out`, `err`)."""
    path = tmp_path_factory.mktemp("run") / "run"
    done = shell("run_pipeline.py", "--run_dir", str(path), *all_flags)
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(path=path, out=done.stdout, err=done.stderr)


@pytest.fixture
def run_copy(finished: SimpleNamespace, tmp_path: Path) -> Path:
    """A copy of the finished run, to break."""
    return Path(shutil.copytree(finished.path, tmp_path / "copy"))


def shell(*words: str, cwd: Path = PROJECT, stdin: str = "", **environment: str) -> SimpleNamespace:
    """Run one of the project's files as a user does, to its end."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
    )


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Call a `main`, expect exit code 2 and one line on stderr, and return that line."""

    def call(main: Callable, *words: str) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in words])
        error, code = capsys.readouterr().err, end.value.code
        del end  # its traceback would keep the run directory locked
        gc.collect()
        assert code == 2, error
        assert error.startswith("error: ") and error.count("\n") == 1, error
        assert len(error) < 600, error
        return error

    return call


def library_model(model: torch.nn.Module) -> transformers.GPT2LMHeadModel:
    """Return transformers' own model with the same weights: what ours is held against."""
    library = transformers.GPT2LMHeadModel(model.config)
    library.load_state_dict(model.state_dict())
    library.loss_type = "ForCausalLM"
    return library.eval()


def without_dropout(model: torch.nn.Module) -> torch.nn.Module:
    for module in model.modules():
        for name in {"dropout", "weight_dropout"} & vars(module).keys():
            setattr(module, name, 0.0)
    return model


def chain_main(*words: str) -> None:
    """Call the runner in this process."""
    run_pipeline.main([str(word) for word in words])
