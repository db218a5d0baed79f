"""What a stopped training goes on through, and what makes it another one."""

import copy
import json
import shutil

import pytest
import torch

from tests.conftest import chain_main
from tests.training.test_training import trainer_for
from toolkit.run.run_directory import RunDirectory
from toolkit.training.callbacks import SaveOnSignal
from toolkit.training.same_training import planned_settings

FLAGS = [
    # what is given, and whether it is the same training: the plan is for 6 steps, at a rate of 1e-3
    ("--report_to tensorboard", True),
    ("--logging_steps 2", True),
    ("--save_steps 1", True),
    ("--learning_rate 1e-3", True),
    ("--trainer run_name=other logging_first_step=true", True),
    ("--learning_rate 2e-3", False),
    ("--max_steps 7", False),
    ("--eval_steps 2", False),  # another step may be the best, and that model is saved
    ("--early_stopping_patience 1", False),
    ("--weight_decay 0.2", False),
    ("--gradient_accumulation_steps 2", False),
    ("--trainer adam_beta1=0.8", False),
]


@pytest.mark.parametrize("words, same", FLAGS, ids=[words for words, _ in FLAGS])
def test_flags_that_change_no_weight_leave_it_the_same_training(finished, words, same):
    known = json.loads((finished.path / "configure_trainer.json").read_text())
    now, (name, *values) = copy.deepcopy(known), words.removeprefix("--").split()
    values = (
        values if name == "trainer" else [json.loads(v) if v[0].isdigit() else v for v in values]
    )
    now["options"][name] = values if name == "trainer" else values[0]
    for planned in {"steps"} if name == "max_steps" else {name} & now["results"].keys():
        now["results"][planned] = values[0]
    assert now != known
    assert (planned_settings(now) == planned_settings(known)) == same


def test_a_resumed_training_logs_and_saves_as_it_is_told_now_to_the_same_weights(
    finished, tmp_path, caplog
):
    run = RunDirectory(finished.path, 7, "cpu", "fp32")
    flags = {"eval_steps": 3, "warmup_steps": 0, "lr_scheduler_type": "constant"}
    trainer_for(run, tmp_path / "a", max_steps=3, logging_steps=3, **flags).train()
    whole = trainer_for(run, tmp_path / "b", max_steps=6, **flags)
    whole.train()
    told = {"max_steps": 6, "logging_steps": 1, "save_steps": 5}
    resumed = trainer_for(run, tmp_path / "c", **told, **flags)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a/checkpoints/checkpoint-3"))
    logged = [entry["step"] for entry in resumed.state.log_history if "loss" in entry]
    assert logged == [3, 4, 5, 6]
    assert (resumed.state.logging_steps, resumed.state.save_steps) == (1, 5)
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name
    assert "do not match" not in caplog.text


def test_a_finished_training_is_not_trained_again_for_its_log(run_copy, all_flags, capsys):
    before = json.loads((run_copy / "train_model.json").read_text())
    checkpoints = sorted(path.name for path in (run_copy / "checkpoints").iterdir())
    words = ["--logging_steps", "2", "--to_step", "7"]
    chain_main("--run_dir", run_copy, *all_flags, *words)
    out = capsys.readouterr().out
    assert "trained to its end: nothing is trained or logged again" in out
    after = json.loads((run_copy / "train_model.json").read_text())
    assert after["results"] == before["results"]
    assert sorted(path.name for path in (run_copy / "checkpoints").iterdir()) == checkpoints


def test_a_stopped_training_goes_on_where_flags_change_no_weight(
    run_copy, all_flags, capsys, monkeypatch
):
    shutil.rmtree(run_copy / "checkpoints")
    (run_copy / "train_model.json").unlink()
    words = ["--run_dir", run_copy, *all_flags, "--to_step", "7"]
    with monkeypatch.context() as patch:
        patch.setattr(
            SaveOnSignal, "on_train_begin", lambda self, *_, **__: setattr(self, "came", 1)
        )
        with pytest.raises(SystemExit, match="130"):
            chain_main(*words)
    assert "stopped at step 1 of 6 and saved" in capsys.readouterr().err
    chain_main(*words, "--logging_steps", "2", "--save_steps", "2")
    record = json.loads((run_copy / "train_model.json").read_text())
    assert record["measured"]["resumed_from"] == 1
