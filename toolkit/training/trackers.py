"""`--report_to`: the library's experiment trackers, each an optional package.

The library sends them what training logs. Added here: where they lie, that a resumed training goes
on in the run it began, settings that say what was done, and the test figures of step 8.
"""

import contextlib
import importlib
import importlib.util
import netrc
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from toolkit.model.library_internals import KeptInCheckpoints
from toolkit.run.command import UserError, first_line
from toolkit.run.console import say
from toolkit.run.run_directory import RunDirectory
from toolkit.scoring.metrics import METRICS

# Where two of them keep their files, unless the environment says otherwise. Trackio's runs share
# one database, where its own command looks for them.
FOLDERS = {"tensorboard": "TENSORBOARD_LOGGING_DIR", "wandb": "WANDB_DIR"}
WANDB_HOST = "https://api.wandb.ai"

_set_by_us: dict[str, str] = {}  # variable -> value: in a notebook one process makes several runs


def require_tracker(name: str) -> None:
    if name != "none" and importlib.util.find_spec(name) is None:
        raise UserError(f"--report_to {name} needs the package {name}: pip install {name}")
    if name == "wandb" and not wandb_can_begin():
        raise UserError(
            "--report_to wandb: nobody is logged in; run `wandb login`, or set WANDB_MODE=offline"
        )


def wandb_can_begin() -> bool:
    """Tell whether wandb needs no login, or has one. It would ask, when training begins."""
    if os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", WANDB_HOST)).hostname
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        if netrc.netrc(os.environ.get("NETRC")).authenticators(host):
            return True
    return bool(os.environ.get("WANDB_API_KEY"))


def prepare_tracker(name: str, run_directory: Path) -> None:
    """Let a tracker write into the run directory. Raises UserError where it is not installed."""
    require_tracker(name)
    if name in FOLDERS:
        folder = run_directory / name
        folder.mkdir(exist_ok=True)
        set_variable(FOLDERS[name], str(folder.resolve()))
    if name == "wandb":  # else its logs are links that lead out of the run directory
        set_variable("WANDB_CACHE_DIR", str(folder.resolve() / "cache"))


def set_variable(variable: str, value: str) -> None:
    """Set a variable of the environment, unless the user has."""
    if os.environ.get(variable) in (None, _set_by_us.get(variable)):
        os.environ[variable] = _set_by_us[variable] = value


class TrackedRun(TrainerCallback, KeptInCheckpoints):
    """Keeps in checkpoints which run of a tracker training is: resumed, it goes on in the same."""

    def __init__(self, tracker: str):
        self.tracker, self.run_id = tracker, uuid.uuid4().hex[:8]

    def state(self) -> dict[str, Any]:
        return {"args": {}, "attributes": {"run_id": self.run_id}}

    def remember(self, state: TrainerState) -> None:
        if kept := state.stateful_callbacks.get(type(self).__name__):
            self.run_id = kept["attributes"]["run_id"]

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.remember(state)
        args.run_name = self.name(args)
        if self.tracker == "wandb":
            import wandb

            if wandb.run is not None:  # of an earlier training in this process
                wandb.finish()
            set_variable("WANDB_RUN_ID", self.run_id)
            set_variable("WANDB_RESUME", "allow")

    def name(self, args: TrainingArguments) -> str:
        """Return the run's name, by which trackio knows it again: there it is of this run alone."""
        named = self.tracker != "trackio" or args.run_name.endswith(self.run_id)
        return args.run_name if named else f"{args.run_name}-{self.run_id}"

    def where(self, args: TrainingArguments) -> dict[str, str]:
        """Return what finds the run again when step 8 knows the test figures."""
        run_id = os.environ.get("WANDB_RUN_ID") if self.tracker == "wandb" else None
        return {"id": run_id or self.run_id, "name": self.name(args), "project": args.project}


@contextlib.contextmanager
def complaints_of_tracker_refused(tracked: TrackedRun | None) -> Iterator[None]:
    """Turn what a tracker itself raises into one line: no login, no network."""
    try:
        yield
    except Exception as error:
        if tracked is None or not type(error).__module__.startswith(tracked.tracker):
            raise
        raise UserError(
            f"--report_to {tracked.tracker}: {first_line(error)}; mend that, or leave the flag "
            "out: the same command goes on from the last checkpoint"
        ) from None


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
