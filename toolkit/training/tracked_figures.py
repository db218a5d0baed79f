"""Step 8's figures for the tracker that has the curves.

No file of training needs this one: an edit of the metrics trains nothing anew.
"""

import os
from collections.abc import Callable
from typing import Any

from toolkit.run.command import first_line
from toolkit.run.console import say
from toolkit.run.run_directory import RunDirectory
from toolkit.scoring.metrics import METRICS
from toolkit.training.trackers import FOLDERS, prepare_tracker


def tell_test_figures(run: RunDirectory, metrics: dict[str, Any]) -> None:
    """Give the tracker of a run the figures of step 8, at the step whose model was saved."""
    tracker = run.record("configure_trainer")["options"]["report_to"]
    trained = run.record("train_model")
    where = trained["measured"].get("tracker_run")
    if tracker == "none" or where is None:
        return
    figures = {
        f"test{of}/{metric.name}": metrics[model][metric.name]
        for model, of in (("tuned", ""), ("base", "_before_training"))
        if model in metrics
        for metric in METRICS
        if metrics[model][metric.name] is not None
    }
    try:
        prepare_tracker(tracker, run.path)
        TELL[tracker](figures, where, trained["results"]["best_step"])
    except Exception as error:  # whatever ails a tracker, the figures are in the record
        say(f"       {tracker} was not told the test figures: {first_line(error)}")


def tell_tensorboard(figures: dict[str, float], where: dict[str, str], step: int) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(os.environ[FOLDERS["tensorboard"]]) as writer:
        for name, value in figures.items():
            writer.add_scalar(name, value, step)


def tell_wandb(figures: dict[str, float], where: dict[str, str], step: int) -> None:
    import wandb

    if wandb.run is None or wandb.run.id != where["id"]:
        project = os.environ.get("WANDB_PROJECT", "huggingface")
        wandb.init(project=project, id=where["id"], resume="allow")
    wandb.run.summary.update(figures)
    wandb.finish()


def tell_trackio(figures: dict[str, float], where: dict[str, str], step: int) -> None:
    import trackio

    runs = trackio.Api().runs(where["project"])
    settings = next((run.config for run in runs if run.name == where["name"]), None)
    trackio.init(
        project=where["project"], name=where["name"], resume="allow", config=settings
    )  # without settings it would forget those that training told
    trackio.log({**figures, "train/global_step": step})
    trackio.finish()


TELL: dict[str, Callable[[dict[str, float], dict[str, str], int], None]] = {
    "tensorboard": tell_tensorboard,
    "wandb": tell_wandb,
    "trackio": tell_trackio,
}
