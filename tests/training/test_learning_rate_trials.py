"""--learning_rate auto: short trials, and which rate they pick."""

import json
import math
import os
import signal

import pytest

import configure_trainer
from tests.training.test_training import trainer_for
from toolkit.run.command import UserError
from toolkit.run.run_directory import RunDirectory
from toolkit.training import learning_rate_trials
from toolkit.training.learning_rate_trials import pick_learning_rate
from toolkit.training.trainer import PipelineTrainer
from train_test_split import read_splits


@pytest.fixture
def run(finished) -> RunDirectory:
    return RunDirectory(finished.path, seed=7, device="cpu", precision="fp32")


def test_the_automatic_learning_rate_is_the_best_of_its_trials(run_copy):
    flags = ["--run_dir", str(run_copy), "--learning_rate", "auto", "--max_steps", "12"]
    configure_trainer.main(flags)
    plan = json.loads((run_copy / "configure_trainer.json").read_text())["results"]
    trials = {t["learning_rate"]: t["validation_loss"] for t in plan["trials"]}
    assert len(trials) >= 4 and len({*trials.values()}) == len(trials)
    assert plan["learning_rate"] == min(trials, key=trials.get)
    configure_trainer.main(flags)
    again = json.loads((run_copy / "configure_trainer.json").read_text())["results"]
    assert again == plan


@pytest.mark.parametrize(
    "best, tried, says",
    [
        (1.0, [0.3, 1, 3, 10], ""),
        (30.0, [0.3, 1, 3, 10, 31.6, 100], ""),
        (0.1, [0.3, 1, 3, 10, 0.095, 0.03], ""),
        (1e9, [0.3, 1, 3, 10, 31.6, 100, 316], "no higher rate than 316 was tried"),
        (1e-9, [0.3, 1, 3, 10, 0.095, 0.03, 0.0095], "no lower rate than 0.00949 was tried"),
    ],
)
def test_a_best_rate_at_the_end_of_the_range_is_looked_beyond(
    monkeypatch, capsys, best, tried, says
):
    def loss_of_trial(rate, _):
        return abs(math.log(rate / best))

    monkeypatch.setattr(learning_rate_trials, "loss_of_trial", loss_of_trial)
    plan = {"steps": 4, "learning_rate": 1.0, "warmup_steps": 1}
    found = pick_learning_rate(lambda short: short["learning_rate"], plan, Blocks())
    assert [trial["learning_rate"] for trial in found["trials"]] == pytest.approx(tried, rel=0.02)
    assert found["learning_rate"] == min(tried, key=lambda rate: abs(math.log(rate / best))) or (
        found["learning_rate"] == pytest.approx(min(tried, key=lambda r: loss_of_trial(r, 0)), 0.02)
    )
    assert says in capsys.readouterr().out


class Blocks(list):
    select = staticmethod(list)


def test_an_interrupt_during_a_trial_ends_it_all_and_a_failed_trial_leaves_signals(
    run, tmp_path, monkeypatch
):
    before = signal.getsignal(signal.SIGINT)
    plan_of_four = {"steps": 4, "learning_rate": 1e-3, "warmup_steps": 1}
    evaluated = []
    monkeypatch.setattr(PipelineTrainer, "evaluate", lambda *_: evaluated.append(1))

    def make_trainer(plan):
        trainer = trainer_for(run, tmp_path, max_steps=4)
        step = trainer.training_step
        trainer.training_step = lambda *given: (os.kill(os.getpid(), signal.SIGINT), step(*given))[
            1
        ]
        return trainer

    with pytest.raises(KeyboardInterrupt):
        pick_learning_rate(make_trainer, plan_of_four, read_splits(run)["test"])
    assert signal.getsignal(signal.SIGINT) == before
    assert not evaluated and not list(tmp_path.glob("checkpoints/*"))

    def diverging(plan):
        trainer = trainer_for(run, tmp_path, max_steps=4)
        monkeypatch.setattr(trainer, "training_step", explode)
        return trainer

    def explode(*_):
        raise UserError("training diverged")

    with pytest.raises(UserError, match="every trial diverged"):
        pick_learning_rate(diverging, plan_of_four, read_splits(run)["test"])
    assert signal.getsignal(signal.SIGINT) == before
