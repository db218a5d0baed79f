"""A corpus read on the fly: the same documents held out, every block once, and exact resume."""

import json
import signal

import pytest

import create_dataset
import train_test_split
from tests.test_chain import finish, start_training, wait_for_checkpoint
from toolkit.run_directory import RunDirectory


@pytest.fixture(scope="module")
def stream_flags(flags):
    """The tiny run's flags, streaming."""
    corpus = flags["create_dataset.py"]
    return flags | {
        "create_dataset.py": [*corpus, "--streaming"],
        "train_test_split.py": ["--block_size", "32"],
    }


@pytest.fixture
def streamed(run_copy, stream_flags):
    """A run directory whose steps 4 and 5 were done anew, streaming."""
    here = ["--run_dir", str(run_copy)]
    create_dataset.main([*here, *stream_flags["create_dataset.py"]])
    train_test_split.main([*here, *stream_flags["train_test_split.py"]])
    return RunDirectory(run_copy, 7, "cpu", "fp32")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, stream_flags):
    run = tmp_path_factory.mktemp("whole") / "run"
    finish(start_training(run, stream_flags, "--to_step", "7"))
    return run


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_stopped_stream_goes_on_to_the_same_weights(
    uninterrupted, tmp_path, stream_flags, number, code
):
    run = tmp_path / "run"
    process = start_training(run, stream_flags, "--to_step", "7")
    wait_for_checkpoint(run, process)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code and "Traceback" not in error
    finish(start_training(run, stream_flags, "--to_step", "7"))
    records = [json.loads((r / "train_model.json").read_text()) for r in (run, uninterrupted)]
    assert records[0]["measured"]["resumed_from"] >= 3
    assert records[0]["results"] == records[1]["results"]
    weights = "model/model.safetensors"
    assert (run / weights).read_bytes() == (uninterrupted / weights).read_bytes()
