"""Which checkpoint training goes on from, and which it must not touch."""

import hashlib
import json
import math
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import train_model
from tests.conftest import chain_main
from tests.faults.harm import DAMAGES
from tests.training.test_training import trainer_for
from toolkit.run.command import UserError
from toolkit.run.run_directory import RunDirectory
from toolkit.training.callbacks import KeepBestAndLast
from toolkit.training.checkpoints import find_checkpoint
from toolkit.training.log_history import as_line, read_log
from toolkit.training.manifest import begin_checkpoint, end_checkpoint, what_is_broken
from toolkit.training.same_training import made_for
from toolkit.training.state_files import read_state, write_state
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
def settings(folder):
    return made_for(folder / "checkpoint-10")["settings"]


def test_the_newest_whole_checkpoint_is_taken(folder, settings):
    assert find_checkpoint(folder, settings, "auto").name == "checkpoint-10"


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_checkpoint_with_any_file_damaged_is_set_aside_for_an_older_whole_one(
    folder, settings, capsys, damage
):
    whole = folder / "checkpoint-10"
    for file in [path.name for path in whole.iterdir()]:
        damage(whole / file)
        problem = what_is_broken(whole)
        assert file in problem or file == "manifest.json", problem
        assert find_checkpoint(folder, settings, "auto").name == "checkpoint-6"
        aside = folder / "set_aside_checkpoint-10"
        said = f"passed over checkpoint-10: {problem}; kept as {aside}"
        assert said in capsys.readouterr().out
        with pytest.raises(UserError, match=f"--resume .*{re.escape(problem)}"):
            find_checkpoint(folder, settings, str(aside))
        shutil.rmtree(aside)
        shutil.copytree(folder / "checkpoint-6", whole)


def test_what_a_killed_run_was_writing_is_dropped_and_what_others_made_is_kept(
    folder, settings, capsys
):
    begin_checkpoint(folder / "checkpoint-12")
    (folder / "checkpoint-11").mkdir()
    assert find_checkpoint(folder, settings, "auto").name == "checkpoint-10"
    said = capsys.readouterr().out
    assert "passed over checkpoint-12: it was being written when its run was ended" in said
    assert "checkpoint-11: it has no manifest.json: another program or an older version" in said
    assert not (folder / "checkpoint-12").exists() and (folder / "set_aside_checkpoint-11").exists()


def test_a_checkpoint_holds_no_pickle_and_its_manifest_says_what_sha256sum_says(finished):
    checkpoint = next((finished.path / "checkpoints").glob("checkpoint-*"))
    names = {path.name for path in checkpoint.iterdir()}
    assert {path.suffix for path in checkpoint.iterdir()} == {".json", ".safetensors"}
    known = json.loads((checkpoint / "manifest.json").read_text())["files"]
    assert set(known) == names - {"manifest.json"}
    for name, file in known.items():
        content = (checkpoint / name).read_bytes()
        assert file == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@pytest.mark.parametrize("losses", [[4, 3, 2, 1], [1, 2, 3, 4], [3, 1, 2, 2]], ids=str)
def test_two_checkpoints_are_kept_the_newest_and_the_best_or_the_one_before(tmp_path, losses):
    keep = KeepBestAndLast()
    for step in range(1, len(losses) + 1):
        (tmp_path / f"checkpoint-{step}").mkdir()
        best = losses.index(min(losses[:step])) + 1
        state = SimpleNamespace(global_step=step, best_global_step=best, is_world_process_zero=True)
        keep.on_save(SimpleNamespace(output_dir=tmp_path), state, None)
        kept = {int(path.name.rpartition("-")[2]) for path in tmp_path.iterdir()}
        assert kept == {step, best if best != step else max(step - 1, 1)}


def test_state_is_kept_to_the_last_bit_and_nothing_in_it_is_executed(tmp_path):
    tensors = [
        torch.randn(3, 2),
        torch.tensor(2.0),
        torch.zeros(0),
        torch.arange(5).to(torch.uint8),
    ]
    state = {"state": {0: tensors}, "betas": (0.1, 1e-17), "text": None, "rate": math.inf}
    write_state(tmp_path / "plain", state)
    read = read_state(tmp_path / "plain")
    assert all(map(torch.equal, read["state"].pop(0), state["state"].pop(0))) and read == state
    write_state(tmp_path / "other", {"what": Path("safetensors has no form for it")})
    with pytest.raises(UserError, match="other.pt: not read: it may run code"):
        read_state(tmp_path / "other")


def test_never_starts_anew(folder, settings):
    assert find_checkpoint(folder, settings, "never") is None
    assert not list(folder.iterdir())


def test_checkpoints_of_another_configuration_are_not_gone_on_from(folder, settings):
    assert find_checkpoint(folder, settings | {"weight_decay": 9}, "auto") is None
    assert not list(folder.glob("checkpoint-*"))


def test_a_stopped_training_of_another_configuration_is_set_aside(folder, settings, capsys):
    state = json.loads((folder / "checkpoint-10/trainer_state.json").read_text())
    state["max_steps"] = 99
    (folder / "checkpoint-10/trainer_state.json").write_text(json.dumps(state))
    (folder / "checkpoint-10/manifest.json").unlink()
    (folder / "checkpoint-10/unfinished").touch()
    end_checkpoint(folder / "checkpoint-10")
    assert find_checkpoint(folder, settings | {"weight_decay": 9}, "auto") is None
    aside = folder.with_name("checkpoints_stopped_at_10")
    assert what_is_broken(aside / "checkpoint-10") is None
    assert f"kept in {aside}; go on from it with --resume {aside}" in capsys.readouterr().out


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


@pytest.mark.parametrize("kind", ["cosine", "reduce_lr_on_plateau", "greedy"])
def test_a_resumed_training_has_the_weights_and_the_log_of_one_that_was_not_stopped(
    finished, tmp_path, kind
):
    """From between two points of the loss curve; with dropout."""
    run = RunDirectory(finished.path, 7, "cpu", "fp32")
    flags = {"max_steps": 6, "eval_steps": 3, "logging_steps": 2, "lr_scheduler_type": kind}
    whole = trainer_for(run, tmp_path / "a", warmup_steps=0, **flags)
    whole.train()
    resumed = trainer_for(run, tmp_path / "b", warmup_steps=0, **flags)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a/checkpoints/checkpoint-3"))
    logs = [
        [{**json.loads(as_line(entry)), "measured": 0} for entry in trainer.state.log_history[:-1]]
        for trainer in (whole, resumed)
    ]
    assert sum("loss" in entry for entry in logs[0]) == 3 and logs[0] == logs[1]
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name


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
