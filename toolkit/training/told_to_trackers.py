"""What trackers are told beside the curves: settings that say what was done, and test figures."""

import os
from collections.abc import Callable
from typing import Any

from transformers import TrainingArguments

from toolkit.run.command import first_line
from toolkit.run.console import say
from toolkit.run.run_directory import RunDirectory
from toolkit.scoring.metrics import METRICS
from toolkit.training.trackers import FOLDERS, prepare_tracker


class ToldArguments(TrainingArguments):
    """TrainingArguments of which trackers are told what was done, and not what the fields say.

    Steps are planned and precision is the kernels': `num_train_epochs` and `bf16` would be wrong.
    """

    told: dict[str, Any] = {}

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | self.told


def settings_told(options: Any, plan: dict[str, Any], run: RunDirectory) -> dict[str, Any]:
    """Return what a tracker should know of a training and its library does not say.

    `options`: step 6's; `plan`: its results. Of steps that have left no record nothing is told.
    """
    records = {name: run.record(name) for name in ("load_gpt2", "create_dataset")}
    split = run.record("train_test_split")
    loaded, made = records["load_gpt2"], records["create_dataset"]
    names = ("trainable_parameters", "parameters", "tokens_per_step", "steps_per_epoch")
    return {
        "num_train_epochs": plan.get("epochs"),
        "precision": run.precision,
        "bf16": run.precision == "bf16",
        "device": run.device,
        "lora_rank": options.lora_rank,
        "trainable_blocks": options.trainable_blocks,
        **{name: plan[name] for name in names if name in plan},
        **({"base_model": loaded["results"]["model"]} if loaded else {}),
        **({"corpus": " ".join(made["options"]["corpus"])} if made else {}),
        **({"block_size": split["results"]["block_size"]} if split else {}),
    }


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
