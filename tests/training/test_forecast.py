"""How long training will take, and how much memory: what is foretold holds."""

import json
import math
import os
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from tests.conftest import PROJECT
from tests.training.test_training import small_model
from toolkit.run.console import duration
from toolkit.training import forecast
from toolkit.training.forecast import Costs, Forecast, seconds_left

PLAN = {"steps": 100, "eval_steps": 20, "save_steps": 20}
COSTS = Costs(step=2.0, validation=30.0, checkpoint=5.0)


def test_the_time_left_counts_steps_validations_and_checkpoints():
    assert seconds_left(100, PLAN, COSTS) == 0
    assert seconds_left(90, PLAN, COSTS) == 10 * 2 + 30 + 5
    assert seconds_left(0, PLAN, COSTS) == 100 * 2 + 5 * (30 + 5)
    assert seconds_left(0, {**PLAN, "eval_steps": 30}, COSTS) == 200 + 4 * 30 + 7 * 5
    assert seconds_left(0, {**PLAN, "save_steps": 1000}, COSTS) == 200 + 5 * (30 + 5)


def test_times_are_written_as_people_say_them():
    assert [duration(s) for s in (59.6, 80, 5 * 3600 + 900)] == [
        "1 min 0 s",
        "1 min 20 s",
        "5 h 15 min",
    ]


def test_the_forecast_goes_by_what_was_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(forecast, "seconds_to_write", lambda size, folder: 5.0)
    plan = {**PLAN, "tokens_per_validation": 900, "tokens_per_step": 300}
    watch = SimpleNamespace(seconds=6.0, steps=3, validation_seconds=30.0, tokens_per_second=7)
    watch.go_on = lambda: None
    args = SimpleNamespace(output_dir=tmp_path)
    state = SimpleNamespace(is_world_process_zero=True, global_step=4)
    Forecast(watch, plan).on_step_end(args, state, None, model=small_model())
    assert f"{duration(96 * 2 + 5 * 35)} to go at 7 tokens/s" in capsys.readouterr().out
    watch.validation_seconds = math.nan  # resumed: a validation's token goes forward only
    assert Forecast(watch, plan).costs(small_model(), tmp_path).validation == 2.0


def test_writing_is_timed_where_the_checkpoints_go(tmp_path):
    folder = tmp_path / "checkpoints"
    seconds = [forecast.seconds_to_write(size, folder) for size in (10**6, 10**9)]
    assert 0 < seconds[0] < seconds[1] and not list(folder.iterdir())


RUN_AS_A_USER = [sys.executable, str(PROJECT / "run_pipeline.py"), "--device", "cpu"]


@pytest.mark.slow
def test_the_time_that_is_foretold_is_within_a_fifth(tmp_path):
    """Of a training with many validations and checkpoints, from when it is said to its end."""
    words = ["--run_dir", str(tmp_path / "run"), "--model", "data/gpt2-mini", "--to_step", "7"]
    words += ["--max_steps", "300", "--eval_steps", "20", "--save_steps", "10"]
    words += ["--per_device_train_batch_size", "8"]
    output = subprocess.Popen(
        [*RUN_AS_A_USER, *words], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    )
    for line in output.stdout:
        if said := re.match(r" +(\d+) min (\d+) s to go", line):
            foretold, began = 60 * int(said[1]) + int(said[2]), time.perf_counter()
        if line.startswith("[7/10]"):
            took = time.perf_counter() - began
    assert output.wait() == 0
    assert foretold == pytest.approx(took, rel=0.2)


def test_the_memory_that_is_foretold_is_within_a_tenth_of_a_small_run(finished):
    """Which is that of the libraries; `finished` ran in a process of its own."""
    planned, trained = (
        json.loads((finished.path / f"{step}.json").read_text())["measured"]
        for step in ("configure_trainer", "train_model")
    )
    peak = trained["peak_memory_bytes"]
    assert planned["predicted_peak_memory_bytes"] == pytest.approx(peak, rel=0.1)


LARGE = "--from_scratch --n_layer 12 --n_head 12 --n_embd 768 --n_positions 256 --vocab_size 4000"
WIDE = "--from_scratch --n_layer 6 --n_head 6 --n_embd 384 --n_positions 512 --vocab_size 8000"
CONFIGURATIONS = [
    "--model data/gpt2-mini --precision fp32 --block_size 256",
    "--model data/gpt2-mini --precision bf16 --block_size 256 --per_device_train_batch_size 16",
    "--model data/gpt2-mini --precision bf16 --block_size 64 --lora_rank 8",
    f"{LARGE} --precision bf16 --block_size 256",
    f"{LARGE} --precision fp32 --block_size 128 --trainable_blocks 2",
    f"{WIDE} --precision fp32 --block_size 512 --per_device_train_batch_size 8",
]


@pytest.mark.slow
@pytest.mark.parametrize("words", CONFIGURATIONS)
def test_the_memory_that_is_foretold_is_within_a_tenth(tmp_path, words):
    """Of all ten steps, in a process of their own: the peak that the kernel counted."""
    run = ["--run_dir", str(tmp_path), "--max_documents", "300", "--max_steps", "4"]
    command = [*RUN_AS_A_USER, *run, *words.split(), "--eval_steps", "2"]
    process = os.posix_spawn(sys.executable, command, os.environ)
    _, ended, used = os.wait4(process, 0)
    assert ended == 0
    planned = json.loads((tmp_path / "configure_trainer.json").read_text())["measured"]
    predicted, peak = planned["predicted_peak_memory_bytes"], used.ru_maxrss * 1024
    assert predicted == pytest.approx(peak, rel=0.1)
