"""`--report_to`: the library's experiment trackers, each an optional package.

The library sends them what training logs. Added here: where they lie, and that a resumed training
goes on in the run it began. What else they are told is in told_to_trackers.py and
tracked_figures.py.
"""

import contextlib
import importlib
import importlib.util
import netrc
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from toolkit.model.library_internals import KeptInCheckpoints
from toolkit.run.command import UserError, first_line

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
