"""Which checkpoint training goes on from, and which it must not touch."""

import json
import os
import shutil

import pytest

import train_model
from tests.conftest import chain_main
from tests.training.test_training import trainer_for
from toolkit.run.command import UserError
from toolkit.run.run_directory import RunDirectory
from toolkit.training.checkpoints import find_checkpoint, what_is_broken
from toolkit.training.log_history import read_log
from toolkit.training.trainer import PipelineTrainer


@pytest.fixture
def folder(finished, tmp_path):
    """Checkpoints of the finished run: the newest, and a copy with a higher step number."""
    folder = shutil.copytree(finished.path / "checkpoints", tmp_path / "checkpoints")
    newest = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    for checkpoint in folder.glob("checkpoint-*"):
        if checkpoint != newest:
            shutil.rmtree(checkpoint)
    newest.rename(folder / "checkpoint-6")
    shutil.copytree(folder / "checkpoint-6", folder / "checkpoint-10")
    return folder


@pytest.fixture
def owner(folder):
    return json.loads((folder / "made_for.json").read_text())


def test_the_newest_whole_checkpoint_is_taken(folder, owner):
    assert find_checkpoint(folder, owner, "auto").name == "checkpoint-10"


def cut_in_half(path):
    os.truncate(path, path.stat().st_size // 2)


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


DAMAGE = [
    ("model.safetensors", cut_in_half),
    ("optimizer.pt", cut_in_half),
    ("optimizer.pt", flip_a_byte),
    ("rng_state.pth", os.unlink),
    ("optimizer.pt", os.unlink),
    ("trainer_state.json", cut_in_half),
    ("trainer_state.json", os.unlink),
]


@pytest.mark.parametrize("file, damage", DAMAGE, ids=[f"{d.__name__} {f}" for f, d in DAMAGE])
def test_a_damaged_checkpoint_is_passed_over_for_an_older_whole_one(
    folder, owner, capsys, file, damage
):
    damage(folder / "checkpoint-10" / file)
    assert what_is_broken(folder / "checkpoint-10")
    assert find_checkpoint(folder, owner, "auto").name == "checkpoint-6"
    assert "passed over checkpoint-10" in capsys.readouterr().out
    shutil.copytree(folder / "checkpoint-6", folder / "checkpoint-10")
    damage(folder / "checkpoint-10" / file)
    with pytest.raises(UserError, match="--resume"):
        find_checkpoint(folder, owner, str(folder / "checkpoint-10"))


def test_never_starts_anew(folder, owner):
    assert find_checkpoint(folder, owner, "never") is None
    assert [path.name for path in folder.iterdir()] == ["made_for.json"]


def test_checkpoints_of_another_configuration_are_not_gone_on_from(folder):
    assert find_checkpoint(folder, "another", "auto") is None
    assert json.loads((folder / "made_for.json").read_text()) == "another"
    assert not list(folder.glob("checkpoint-*"))


def test_a_stopped_training_of_another_configuration_is_set_aside(folder, capsys):
    state = json.loads((folder / "checkpoint-10/trainer_state.json").read_text())
    state["max_steps"] = 99
    (folder / "checkpoint-10/trainer_state.json").write_text(json.dumps(state))
    assert find_checkpoint(folder, "another", "auto") is None
    aside = folder.with_name("checkpoints_stopped_at_10")
    assert what_is_broken(aside / "checkpoint-10") is None
    assert f"kept in {aside}; go on from it with --resume {aside}" in capsys.readouterr().out


def test_a_named_checkpoint_is_taken_whatever_it_was_made_for(folder, tmp_path):
    named = folder / "checkpoint-6"
    assert find_checkpoint(tmp_path / "new", "another", str(named)) == named


def test_a_training_that_had_ended_is_not_trained_on(run_copy, monkeypatch, capsys):
    """Only what is made of it is made again: the library's Trainer would take a step more."""
    before = json.loads((run_copy / "train_model.json").read_text())
    history = read_log(run_copy / "log_history.jsonl")
    shutil.rmtree(run_copy / "model")
    (run_copy / "log_history.jsonl").unlink()
    monkeypatch.setattr(PipelineTrainer, "train", None)
    train_model.main(["--run_dir", str(run_copy)])
    after = json.loads((run_copy / "train_model.json").read_text())
    assert after["results"] == before["results"]  # the hashes of the weights among them
    assert read_log(run_copy / "log_history.jsonl") == history[:-1]  # but for the library's totals
    assert " at 0 tokens/s" not in capsys.readouterr().out


@pytest.mark.parametrize("patience, ended", [(1, True), (2, True), (3, False), (None, False)])
def test_a_training_that_had_stopped_early_has_ended(finished, tmp_path, patience, ended):
    run = RunDirectory(finished.path, 7, "cpu", "fp32")
    trainer = trainer_for(run, tmp_path, early_stopping_patience=patience, max_steps=99)
    losses = [{"eval_loss": loss, "step": n} for n, loss in enumerate([3.0, 2.0, 2.5, 2.1])]
    state = {"global_step": 4, "log_history": losses}
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    assert trainer.take_over_ended(tmp_path) == ended


def test_a_resumed_training_obeys_its_own_rate_decay_and_schedule(finished, tmp_path):
    run = RunDirectory(finished.path, 7, "cpu", "fp32")
    often = {"eval_steps": 2, "logging_steps": 1, "warmup_steps": 0}
    first = {"learning_rate": 1e-3, "lr_scheduler_type": "constant", "weight_decay": 0.1}
    trainer_for(run, tmp_path / "a", max_steps=2, **first, **often).train()
    then = {"learning_rate": 1e-5, "lr_scheduler_type": "linear", "weight_decay": 0.3}
    then["trainer"] = ["adam_beta1=0.8"]
    resumed = trainer_for(run, tmp_path / "b", max_steps=4, **then, **often)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a/checkpoints/checkpoint-2"))
    rates = {e["step"]: e["learning_rate"] for e in resumed.state.log_history if "loss" in e}
    assert rates[2] == 1e-3 and rates[3] == pytest.approx(1e-5 * 2 / 4)
    groups = resumed.optimizer.param_groups
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    assert all(group["betas"] == (0.8, 0.999) for group in groups)


def test_force_begins_anew(run_copy, all_flags):
    words = [*all_flags, "--run_dir", str(run_copy), "--from_step", "7", "--to_step", "7"]
    chain_main(*words, "--force")
    record = json.loads((run_copy / "train_model.json").read_text())
    assert record["measured"]["resumed_from"] is None
