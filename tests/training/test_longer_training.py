"""A training that goes on for longer, for a time, or with other settings than it began with."""

import itertools
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

import configure_trainer
import train_model
from tests.training.test_training import trainer_for
from toolkit.run.command import UserError
from toolkit.run.run_directory import RunDirectory
from toolkit.training import time_limit
from toolkit.training.checkpoints import find_checkpoint, read_trainer_state, settle_best
from toolkit.training.manifest import what_is_broken
from toolkit.training.same_training import (
    has_the_same_rates,
    made_for,
    refuse_what_cannot_change,
)

STEADY = ["--lr_scheduler_type", "constant_with_warmup", "--eval_steps", "2"]


def train(run, *words, resume="auto"):
    """Do steps 6 and 7, and return the record of 7."""
    configure_trainer.main(["--run_dir", str(run), *words])
    train_model.main(["--run_dir", str(run), "--resume", str(resume)])
    return json.loads((run / "train_model.json").read_text())


def weights_of(run):
    return (run / "model/model.safetensors").read_bytes()


# Longer


def test_a_longer_training_goes_on_and_ends_as_one_that_was_so_long_from_the_start(
    finished, tmp_path, capsys
):
    longer, at_once = (shutil.copytree(finished.path, tmp_path / name) for name in "ab")
    train(longer, *STEADY, "--max_steps", "4", "--warmup_steps", "0.5")
    record = train(longer, *STEADY, "--max_steps", "6", "--warmup_steps", "0.5")
    assert "checkpoint-4 of a training of 4 steps: its learning" in capsys.readouterr().out
    assert record["measured"]["resumed_from"] == 4
    changed = {"steps": [4, 6], "warmup_steps": [2, 3]}  # a share, of more steps now
    assert record["results"]["continued"] == [{"from_step": 4, "changed": changed}]
    train(at_once, *STEADY, "--max_steps", "6", "--warmup_steps", "2")
    assert weights_of(longer) == weights_of(at_once)
    logs = [(run / "log_history.jsonl").read_text().splitlines() for run in (longer, at_once)]
    losses = [
        [e.get("loss", e.get("eval_loss")) for e in map(json.loads, log) if e["step"] > 4]
        for log in logs
    ]
    assert losses[0] == losses[1]


def test_where_its_rates_would_not_be_the_same_it_is_refused_until_it_is_asked_for(
    run_copy, refusal
):
    before = {path: path.read_bytes() for path in (run_copy / "checkpoints").rglob("*.*")}
    words = ["--run_dir", str(run_copy), "--max_steps", "8", "--eval_steps", "3"]
    configure_trainer.main(words)
    error = refusal(train_model.main, "--run_dir", run_copy)
    assert "checkpoint-6 of a training of 6 steps" in error
    assert "with cosine the rate would go from 6.7e-05 to 0.000146" in error
    assert "--resume never" in error
    assert all(path.read_bytes() == content for path, content in before.items())
    named = run_copy / "checkpoints/checkpoint-6"
    record = train(run_copy, *words[2:], resume=named)
    assert record["measured"]["resumed_from"] == 6 and record["results"]["steps"] == 8
    assert "from step 6 on with steps 6 -> 8" in record["measured"]["summary"]
    checkpoint = run_copy / "checkpoints/checkpoint-8"
    assert made_for(checkpoint)["continued"] == record["results"]["continued"]


RATES = [
    # schedule, steps and warmup then, steps and warmup now, the step that was reached: the same?
    ("constant", 10, 0, 20, 0, 10, True),
    ("constant_with_warmup", 10, 2, 20, 4, 10, True),
    ("constant_with_warmup", 10, 2, 20, 2, 1, True),
    ("constant_with_warmup", 10, 2, 20, 4, 1, False),  # warmup is not over
    ("inverse_sqrt", 10, 2, 20, 2, 10, True),
    ("inverse_sqrt", 10, 2, 20, 4, 10, False),  # it falls by its warmup
    ("warmup_stable_decay", 10, 2, 20, 2, 6, True),
    ("warmup_stable_decay", 10, 2, 20, 2, 10, False),  # it has fallen already
    ("cosine", 10, 2, 20, 2, 2, True),
    ("cosine", 10, 2, 20, 2, 6, False),
    ("linear", 10, 0, 20, 0, 6, False),
]


@pytest.mark.parametrize("kind, steps, warmup, longer, then, step, same", RATES)
def test_a_longer_training_goes_on_where_the_rates_until_then_are_its_own(
    kind, steps, warmup, longer, then, step, same
):
    known = {"lr_scheduler_type": kind, "learning_rate": 1e-3, "eval_steps": 2}
    if kind == "warmup_stable_decay":
        known["trainer lr_scheduler_kwargs"] = '{"num_decay_steps": 4}'
    known |= {"steps": steps, "warmup_steps": warmup}
    now = known | {"steps": longer, "warmup_steps": then}
    assert has_the_same_rates(known, now, step) == same


def test_what_validation_settles_is_the_same_where_it_saw_the_same(finished):
    known = {"lr_scheduler_type": "greedy", "eval_steps": 2, "steps": 4}
    assert has_the_same_rates(known, known | {"steps": 8}, 4)
    assert not has_the_same_rates(known, known | {"steps": 8, "eval_steps": 4}, 4)


# For a time


def test_a_time_limit_saves_in_time_and_the_rest_can_work_on_the_best_so_far(
    run_copy, finished, monkeypatch
):
    """By a clock on which every lap takes one second."""
    shutil.rmtree(run_copy / "checkpoints")
    clock = itertools.count()
    monkeypatch.setattr(time_limit, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    flags = ["--max_steps", "6", "--eval_steps", "3", "--logging_steps", "1"]
    record = train(run_copy, *flags, "--max_minutes", "0.25")
    assert next(clock) <= 15
    results, at = record["results"], record["results"]["steps"]
    assert 1 < at < 6 and results["out_of_time"] and results["stopped_early"]
    assert (
        f"trained {at} of 6 steps in the time that it had (on with python3"
        in record["measured"]["summary"]
    )
    assert what_is_broken(run_copy / f"checkpoints/checkpoint-{at}") is None
    assert results["best_step"] == at and weights_of(run_copy) != weights_of(finished.path)
    train_model.main(["--run_dir", str(run_copy)])  # again for so long, from there
    assert next(clock) <= 32
    record = train(run_copy, *flags)
    assert record["measured"]["resumed_from"] > at and record["results"]["steps"] == 6
    assert weights_of(run_copy) == weights_of(finished.path)


# With other settings


@pytest.fixture
def settings(finished):
    return made_for(finished.path / "checkpoints/checkpoint-6")["settings"]


CHANGED = [
    ({"seed": 8}, "--seed was 7 and is 8"),
    ({"blocks": "x"}, "its text, or its blocks, are others"),
    ({"base_model": "x"}, "its base model is another"),
    ({"lora_rank": 4}, "--lora_rank was None and is 4"),
    ({"trainer optim": "sgd"}, "--trainer optim was None and is sgd"),
    ({"gradient_accumulation_steps": 2}, "was 4 and is 8: .* keep the product 4"),
    ({"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}, None),
    ({"learning_rate": 1e-5, "weight_decay": 0.0, "warmup_steps": 3}, None),
    ({"lr_scheduler_type": "linear", "precision": "bf16", "device": "cuda"}, None),
    ({"trainer adam_beta1": "0.8", "early_stopping_patience": 2}, None),
]


@pytest.mark.parametrize("changed, says", CHANGED, ids=[" ".join(c) for c, _ in CHANGED])
def test_what_can_change_on_the_way_is_changed_and_what_cannot_is_refused_by_name(
    settings, changed, says
):
    if says is None:
        return refuse_what_cannot_change(settings, settings | changed, "--resume x")
    with pytest.raises(UserError, match=f"--resume x: .*{says}"):
        refuse_what_cannot_change(settings, settings | changed, "--resume x")


def test_a_schedule_that_finds_its_own_rate_keeps_it(settings):
    settings = settings | {"lr_scheduler_type": "greedy"}
    with pytest.raises(UserError, match="--learning_rate cannot change under greedy.* 0.001"):
        refuse_what_cannot_change(settings, settings | {"learning_rate": 1e-5}, "--resume x")


def test_a_named_checkpoint_brings_the_best_one_and_newer_ones_are_kept(
    finished, tmp_path, settings, capsys
):
    there = shutil.copytree(finished.path / "checkpoints", tmp_path / "there")
    newest = there / "checkpoint-6"
    best = f"checkpoint-{read_trainer_state(newest).best_global_step}"
    folder = tmp_path / "checkpoints"
    assert find_checkpoint(folder, settings, str(newest)) == folder / "checkpoint-6"
    assert {path.name for path in folder.iterdir()} == {"checkpoint-6", best}
    shutil.copytree(there / "checkpoint-3", folder / "checkpoint-3", dirs_exist_ok=True)
    first = folder / "checkpoint-3"
    assert find_checkpoint(folder, settings, str(first)) == first
    assert what_is_broken(folder / "set_aside_checkpoint-6") is None
    assert "checkpoint-6 is newer: kept as" in capsys.readouterr().out
    with pytest.raises(UserError, match="it is at step 3, beyond --max_steps 2"):
        find_checkpoint(folder, settings | {"steps": 2}, str(first))


def test_another_schedule_takes_over_at_the_step_that_was_reached(finished, tmp_path):
    run = RunDirectory(finished.path, 7, "cpu", "fp32")
    flags = {"eval_steps": 2, "logging_steps": 1, "warmup_steps": 0}
    trainer_for(run, tmp_path, max_steps=2, lr_scheduler_type="greedy", **flags).train()
    resumed = trainer_for(run, tmp_path, max_steps=4, lr_scheduler_type="linear", **flags)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoints/checkpoint-2"))
    rates = [e["learning_rate"] for e in resumed.state.log_history if "loss" in e]
    assert rates[2:] == pytest.approx([1e-3 * 2 / 4, 1e-3 * 1 / 4])


# The best one


def test_where_the_best_checkpoint_is_damaged_the_best_of_the_others_counts(
    finished, tmp_path, capsys
):
    folder = shutil.copytree(finished.path / "checkpoints", tmp_path / "moved")
    state = read_trainer_state(folder / "checkpoint-6")
    best = state.best_global_step
    settle_best(state, folder)
    assert state.best_model_checkpoint == str(folder / f"checkpoint-{best}")
    (folder / f"checkpoint-{best}/config.json").write_text("")
    settle_best(state, folder)
    other = {3: 6, 6: 3}[best]
    assert (state.best_global_step, Path(state.best_model_checkpoint).name) == (
        other,
        f"checkpoint-{other}",
    )
    losses = {e["step"]: e["eval_loss"] for e in state.log_history if "eval_loss" in e}
    assert state.best_metric == losses[other]
    assert f"damaged or gone: of those left checkpoint-{other} is" in capsys.readouterr().out
