"""`--report_to`: the library's experiment trackers, each an optional package."""

import importlib.util
import os
from pathlib import Path

from toolkit.run.command import UserError

# Where each one keeps its files, unless the environment says otherwise.
FOLDERS = {"tensorboard": "TENSORBOARD_LOGGING_DIR", "wandb": "WANDB_DIR", "trackio": "TRACKIO_DIR"}


def prepare_tracker(name: str, run_directory: Path) -> None:
    """Let a tracker write into the run directory. Raises UserError where it is not installed."""
    if name == "none":
        return
    if importlib.util.find_spec(name) is None:
        raise UserError(f"--report_to {name} needs the package {name}: pip install {name}")
    folder = run_directory / name
    folder.mkdir(exist_ok=True)
    os.environ.setdefault(FOLDERS[name], str(folder.resolve()))
