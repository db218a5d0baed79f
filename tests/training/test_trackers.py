"""--report_to: what experiment trackers get, and where it lies."""

import json
import os
import sys
from types import SimpleNamespace

import pytest

import configure_trainer
import evaluate_model
import train_model
from configure_trainer import TrainerOptions
from tests.training.test_training import trainer_for
from toolkit.run.command import UserError
from toolkit.run.run_directory import RunDirectory
from toolkit.training import tracked_figures, trackers
from toolkit.training.told_to_trackers import settings_told
from toolkit.training.tracked_figures import tell_test_figures, tell_wandb
from toolkit.training.trackers import TrackedRun


@pytest.fixture
def run(finished) -> RunDirectory:
    return RunDirectory(finished.path, seed=7, device="cpu", precision="fp32")


def test_an_absent_tracker_is_named_with_its_command(run, tmp_path, monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="--report_to trackio needs .*: pip install trackio"):
        trainer_for(run, tmp_path, report_to="trackio")


def test_each_runs_tracker_writes_into_its_own_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda _: True)
    monkeypatch.setenv("WANDB_MODE", "offline")
    for variable in ("WANDB_DIR", "WANDB_CACHE_DIR"):
        monkeypatch.setenv(variable, "x")  # so that what is set is undone
        monkeypatch.delenv(variable)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        trackers.prepare_tracker("wandb", tmp_path / name)
        assert os.environ["WANDB_DIR"] == str(tmp_path / name / "wandb")
        assert os.environ["WANDB_CACHE_DIR"] == str(tmp_path / name / "wandb" / "cache")
    monkeypatch.setenv("WANDB_DIR", "/the users")
    trackers.prepare_tracker("wandb", tmp_path / "a")
    assert os.environ["WANDB_DIR"] == "/the users"


@pytest.fixture
def wandb(monkeypatch, tmp_path):
    """A wandb that is installed, and that nobody is logged in to."""
    fake = SimpleNamespace(run=None, ended=0)
    fake.finish = lambda: (vars(fake).update(run=None, ended=fake.ended + 1), None)[1]
    fake.init = lambda **given: vars(fake).update(given=given, run=SimpleNamespace(**given))
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda _: True)
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_RUN_ID", "WANDB_RESUME", "WANDB_DIR"):
        monkeypatch.setenv(name, "x")  # so that what a test leaves is undone
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return fake


def test_wandb_without_a_login_is_refused_before_anything_is_done(wandb, monkeypatch, tmp_path):
    with pytest.raises(UserError, match="run `wandb login`, or set WANDB_MODE=offline"):
        trackers.require_tracker("wandb")
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    trackers.require_tracker("wandb")
    (tmp_path / "netrc").unlink()
    monkeypatch.setenv("WANDB_MODE", "offline")
    trackers.require_tracker("wandb")


def test_a_resumed_training_goes_on_in_the_same_run_and_another_is_another(wandb, monkeypatch):
    args = SimpleNamespace(run_name="mine", project="p")
    monkeypatch.setattr(trackers, "_set_by_us", {})

    def begin(kept):
        tracked = TrackedRun("wandb")
        tracked.on_train_begin(args, SimpleNamespace(stateful_callbacks=kept), None)
        assert os.environ["WANDB_RUN_ID"] == tracked.where(args)["id"]
        assert os.environ["WANDB_RESUME"] == "allow"
        return tracked

    first = begin({})
    wandb.run = "the first one's"
    other = begin({})
    assert other.run_id != first.run_id and wandb.ended == 1
    assert begin({"TrackedRun": first.state()}).run_id == first.run_id


def test_trackio_knows_a_run_by_a_name_of_its_own():
    args = SimpleNamespace(run_name="mine", project="p")
    tracked = TrackedRun("trackio")
    for _ in range(2):
        tracked.on_train_begin(args, SimpleNamespace(stateful_callbacks={}), None)
    assert args.run_name == tracked.where(args)["name"] == f"mine-{tracked.run_id}"


def test_a_tracker_is_told_what_was_done(finished, run, tmp_path):
    trainer = trainer_for(run, tmp_path, lora_rank=2)
    plan = json.loads((finished.path / "configure_trainer.json").read_text())["results"]
    trainer.args.told = settings_told(TrainerOptions(lora_rank=2), plan, run)
    told = trainer.args.to_dict()
    corpus = json.loads((finished.path / "create_dataset.json").read_text())["options"]["corpus"]
    assert told["num_train_epochs"] == plan["epochs"] != 3.0
    assert (told["precision"], told["bf16"], told["lora_rank"]) == ("fp32", False, 2)
    assert (told["block_size"], told["corpus"]) == (32, " ".join(corpus))
    assert told["learning_rate"] == 1e-3  # of the library's own
    elsewhere = RunDirectory(tmp_path, 7, "cpu", "bf16")
    assert settings_told(TrainerOptions(), plan, elsewhere)["bf16"]


def test_tensorboard_gets_the_curves_the_settings_and_the_test_figures(run_copy):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    words = ["--run_dir", str(run_copy)]
    flags = ["--report_to", "tensorboard", "--logging_steps", "1", "--max_steps", "4"]
    configure_trainer.main([*words, *flags])
    train_model.main(words)
    evaluate_model.main([*words, "--no-evaluate_base"])
    curves = accumulator.EventAccumulator(str(run_copy / "tensorboard"))
    curves.Reload()
    history = (run_copy / "log_history.jsonl").read_text().splitlines()
    logged = [entry["loss"] for entry in map(json.loads, history) if "loss" in entry]
    drawn = [event.value for event in curves.Scalars("train/loss")]
    assert drawn == pytest.approx(logged) and len(drawn) == 4
    told = json.loads(curves.Tensors("args/text_summary")[0].tensor_proto.string_val[0])
    assert told["block_size"] == 32 and told["corpus"]
    trained = json.loads((run_copy / "train_model.json").read_text())
    tuned = json.loads((run_copy / "evaluate_model.json").read_text())["results"]["tuned"]
    (event,) = curves.Scalars("test/perplexity")
    assert event.step == trained["results"]["best_step"]
    assert event.value == pytest.approx(tuned["perplexity"])
    state = max((run_copy / "checkpoints").glob("checkpoint-*/trainer_state.json"))
    kept = json.loads(state.read_text())["stateful_callbacks"]["TrackedRun"]["attributes"]
    assert kept["run_id"] == trained["measured"]["tracker_run"]["id"]


def test_wandb_gets_the_test_figures_in_the_run_of_the_training(wandb, monkeypatch):
    summary = {}
    wandb.init = lambda **given: vars(wandb).update(
        run=SimpleNamespace(summary=summary, id=given["id"]), given=given
    )
    tell_wandb({"test/perplexity": 7.0}, {"id": "abc"}, 6)
    assert summary == {"test/perplexity": 7.0} and wandb.ended == 1
    assert wandb.given["id"] == "abc" and wandb.given["resume"] == "allow"


def test_a_tracker_that_fails_takes_no_figures_along(run_copy, monkeypatch, capsys):
    record = json.loads((run_copy / "train_model.json").read_text())
    record["measured"]["tracker_run"] = {"id": "abc"}
    records = {
        "train_model": record,
        "configure_trainer": {"options": {"report_to": "tensorboard"}},
    }
    told = SimpleNamespace(path=run_copy, record=records.get)
    monkeypatch.setitem(tracked_figures.TELL, "tensorboard", lambda *_: 1 / 0)
    tell_test_figures(told, {"tuned": {m.name: 1.0 for m in tracked_figures.METRICS}})
    assert "tensorboard was not told the test figures: division by zero" in capsys.readouterr().out


def test_what_a_tracker_complains_of_is_one_line_and_our_own_defects_are_none():
    complaint = type("CommError", (Exception,), {"__module__": "wandb.errors"})
    with pytest.raises(UserError, match="--report_to wandb: no network; mend that, or leave"):
        with trackers.complaints_of_tracker_refused(TrackedRun("wandb")):
            raise complaint("no network\nand more")
    for tracked, error in ((None, complaint()), (TrackedRun("wandb"), KeyError())):
        with pytest.raises(type(error)), trackers.complaints_of_tracker_refused(tracked):
            raise error
