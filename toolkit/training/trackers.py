"""`--report_to`: the library's experiment trackers, each an optional package."""

import importlib.util
import os
from pathlib import Path

from toolkit.run.command import UserError

# Where each one keeps its files, unless the environment says otherwise.
FOLDERS = {"tensorboard": "TENSORBOARD_LOGGING_DIR", "wandb": "WANDB_DIR", "trackio": "TRACKIO_DIR"}

_set_by_us: dict[str, str] = {}  # variable -> value: in a notebook one process makes several runs


def require_tracker(name: str) -> None:
    if name != "none" and importlib.util.find_spec(name) is None:
        raise UserError(f"--report_to {name} needs the package {name}: pip install {name}")


def prepare_tracker(name: str, run_directory: Path) -> None:
    """Let a tracker write into the run directory. Raises UserError where it is not installed."""
    require_tracker(name)
    if name == "none":
        return
    folder = run_directory / name
    folder.mkdir(exist_ok=True)
    variable, ours = FOLDERS[name], str(folder.resolve())
    if os.environ.get(variable) in (None, _set_by_us.get(variable)):  # else the user has said where
        os.environ[variable] = _set_by_us[variable] = ours
