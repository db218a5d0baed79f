"""Several processes, as torchrun starts them, train what one process would."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from safetensors.torch import load_file

import run_pipeline
from tests.conftest import PROJECT, shell
from toolkit.run.command import UserError
from toolkit.run.processes import own_batches, own_share
from toolkit.training.log_history import read_log


def torchrun(*words: str, cwd=PROJECT) -> subprocess.CompletedProcess:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*start, *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, all_flags):
    """A run directory up to step 6, without dropout: each process would draw its own."""
    path = tmp_path_factory.mktemp("processes") / "run"
    words = ["--dropout", "0", "--precision", "fp32", "--to_step", "6", "--max_steps", "9"]
    run_pipeline.main(["--run_dir", str(path), *all_flags, *words])
    return path


def test_two_processes_train_what_one_does(prepared, tmp_path):
    alone, together = (shutil.copytree(prepared, tmp_path / name) for name in ("one", "two"))
    done = shell("train_model.py", "--run_dir", str(alone))
    assert done.returncode == 0, done.stderr
    done = torchrun("train_model.py", "--run_dir", str(together))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("[7/10]") == 1
    expected = load_file(alone / "model" / "model.safetensors")
    for name, weight in load_file(together / "model" / "model.safetensors").items():
        assert (weight - expected[name]).abs().max() < 1e-5, name
    losses = [
        [
            entry.get("loss", entry.get("eval_loss"))
            for entry in read_log(path / "log_history.jsonl")
        ]
        for path in (alone, together)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    counts = [
        {name: count for name, count in results.items() if "tokens" in name}
        for path in (alone, together)
        for results in [json.loads((path / "train_model.json").read_text())["results"]]
    ]
    assert counts[0] == counts[1] and len(counts[0]) == 3
    done = shell("evaluate_model.py", "--run_dir", str(together))
    assert done.returncode == 0, done.stderr


def test_each_block_is_validated_by_one_of_the_processes(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    for blocks in (0, 1, 3, 4, 10):
        shares = []
        for rank in range(4):
            monkeypatch.setenv("RANK", str(rank))
            shares += own_share(blocks)
        assert sorted(shares) == list(range(blocks))


def test_other_steps_refuse_several_processes(prepared):
    done = torchrun("evaluate_model.py", "--run_dir", str(prepared))
    assert done.returncode != 0
    assert "error: only step 7 runs in several processes" in done.stderr


@pytest.mark.parametrize(
    "batches, processes, own", [((4, 6), 2, (4, 3)), ((4, 1), 2, (2, 1)), ((6, 4), 3, (2, 4))]
)
def test_the_effective_batch_is_shared_out(monkeypatch, batches, processes, own):
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    assert own_batches(*batches) == own


def test_a_batch_that_cannot_be_shared_out_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UserError, match="must be a multiple of the 3 processes"):
        own_batches(4, 2)
