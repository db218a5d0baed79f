"""What is said of how validation went: a beginner trusts it."""

import json
import re

import pytest

from tests.conftest import chain_main
from tests.serving.test_page import SAMPLING
from toolkit.report.report import notes_on
from toolkit.run.run_directory import RunDirectory
from toolkit.serving.page_facts import page_facts
from toolkit.training import trainer
from toolkit.training.validation_verdict import how_validation_went, validations_in


@pytest.mark.parametrize(
    "losses, expected",
    [
        ([9.0, 3.0, 2.5, 2.2, 2.0], "validation loss improved up to step 40"),
        (
            [9.0, 3.0, 2.0, 1.999, 1.998],
            "plateaued at step 20: validation loss 2.000, in the end 1.998",
        ),
        ([9.0, 3.0, 2.0, 2.2, 2.6], "overfitted from step 20: validation loss 2.000, then 2.600"),
        ([3.876, 4.2, 3.949], "worse than before training: validation loss 3.876 then, 3.949 at"),
        ([4.6, 4.4], "validation loss 4.600 before training, 4.400 at step 10"),
        ([4.6, 4.6], "worse than before training"),
    ],
)
def test_the_verdict_says_how_validation_went(losses, expected):
    """The first loss is the untrained model's."""
    history = [{"step": 10 * n, "eval_loss": loss} for n, loss in enumerate(losses)]
    assert how_validation_went(validations_in(history)).startswith(expected)


@pytest.mark.parametrize(
    "losses, expected",
    [([3.0], "validated once, at step 10: whether"), ([3.0, 2.0], "validation loss improved")],
)
def test_of_a_log_without_the_untrained_models_loss_no_more_is_said_than_is_known(losses, expected):
    history = [{"step": 10 * (n + 1), "eval_loss": loss} for n, loss in enumerate(losses)]
    assert how_validation_went(validations_in(history)).startswith(expected)


def test_the_untrained_model_stands_first_in_the_curve(finished):
    log = (finished.path / "log_history.jsonl").read_text().splitlines()
    first = json.loads(log[0])
    assert first["step"] == 0 and first["eval_loss"] > 5
    steps = [entry["step"] for entry in map(json.loads, log) if "eval_loss" in entry]
    assert steps == [0, 3, 6]
    saved = sorted(path.name for path in (finished.path / "checkpoints").glob("checkpoint-*"))
    assert "checkpoint-0" not in saved


def test_training_that_makes_a_model_worse_says_so_on_console_report_card_and_page(
    run_copy, all_flags, capsys, monkeypatch
):
    losses = iter([3.876, 3.95, 3.949])
    found = ({"nats": loss, "tokens": 1} for loss in losses)
    monkeypatch.setattr(trainer, "score_blocks", lambda *_: next(found))
    chain_main("--run_dir", run_copy, *all_flags, "--weight_decay", "0.2", "--to_step", "9")
    says = "worse than before training: validation loss 3.876 then, 3.949 at best, at step 6"
    assert says in capsys.readouterr().out
    for name in ("report.md", "report.html", "model_card.md"):
        assert says.capitalize() in (run_copy / name).read_text(), name
    assert f"{says.capitalize()}" in page_facts(RunDirectory(run_copy), SAMPLING)["notes"][0]


def test_the_verdict_is_a_note_of_the_pages():
    trained = {"steps": 40, "best_step": 20, "stopped_early": False}
    notes = notes_on({"train_model": {**trained, "verdict": "overfitted from step 20: 2, then 3"}})
    assert notes[0].startswith("Validation was best at step 20 of 40; that model was saved")
    assert notes[1] == "Overfitted from step 20: 2, then 3."


@pytest.mark.parametrize("shown, kind", [("unit", "documents"), ("no unit", None)])
def test_the_panel_speaks_of_intervals_only_where_there_are_any(finished, shown, kind):
    from toolkit.report.plots import Story, draw_alone, draw_perplexities

    metrics = json.loads((finished.path / "evaluate_model.json").read_text())["results"]
    for model in ("base", "tuned"):
        metrics[model] = {k: v for k, v in metrics[model].items() if kind or k != "intervals"}
    drawn = draw_alone(draw_perplexities, Story([{"step": 1, "loss": 1.0}], metrics=metrics))
    assert ("with 95% intervals" in re.sub("<[^>]*>", "", drawn)) == (kind is not None)
