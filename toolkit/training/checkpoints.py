"""Find a checkpoint to go on from that is whole and was made by this very configuration."""

import json
import math
import shutil
from pathlib import Path

from toolkit.run.command import UserError
from toolkit.run.console import say
from toolkit.run.files import write_atomically
from toolkit.training.manifest import is_unfinished, what_is_broken

OWNER = "made_for.json"


def find_checkpoint(folder: Path, configuration: str, resume: str) -> Path | None:
    """Return the checkpoint folder to resume from, or None to start anew (`folder` is emptied).

    `configuration`: a hash of what the weights depend on; under `auto`, checkpoints of another one
    are discarded, but for those of a training that was stopped: they are set aside, which is said.
    `resume`: auto, never, or a checkpoint folder, which must be whole. Broken newer ones are set
    aside.
    """
    if resume not in ("auto", "never"):
        if problem := what_is_broken(Path(resume)):
            raise UserError(
                f"--resume {resume}: {problem}; take another checkpoint, or train on from its "
                f"weights alone, if they are whole, with --model {resume}"
            )
        own(folder, configuration)
        return Path(resume)
    owner = folder / OWNER
    ours = owner.exists() and owner.read_bytes() == json.dumps(configuration).encode()
    if resume == "auto":
        set_broken_aside(folder)
        if not ours:
            set_stopped_aside(folder)
        elif checkpoints := newest_first(folder):
            return checkpoints[0]
    for checkpoint in newest_first(folder):
        shutil.rmtree(checkpoint)
    own(folder, configuration)
    return None


def newest_first(folder: Path, before: float = math.inf) -> list[Path]:
    """Return the checkpoints in a folder, of steps before one."""
    checkpoints = sorted(folder.glob("checkpoint-*"), key=step_of, reverse=True)
    return [checkpoint for checkpoint in checkpoints if step_of(checkpoint) < before]


def set_broken_aside(folder: Path) -> None:
    """Rename broken checkpoints that are newer than the newest whole one; drop unfinished ones."""
    for checkpoint in newest_first(folder):
        problem = what_is_broken(checkpoint)
        if problem is None:
            return
        if is_unfinished(checkpoint):
            shutil.rmtree(checkpoint)
            say(f"       passed over {checkpoint.name}: {problem}")
        else:
            aside = free_name(checkpoint.with_name(f"set_aside_{checkpoint.name}"))
            checkpoint.rename(aside)
            say(f"       passed over {checkpoint.name}: {problem}; kept as {aside}")


def set_stopped_aside(folder: Path) -> None:
    """Rename a folder of checkpoints if the newest whole one is not the end of its training."""
    checkpoints = newest_first(folder)
    if not checkpoints:
        return
    whole = checkpoints[0]
    state = json.loads((whole / "trainer_state.json").read_text())
    if step_of(whole) >= state.get("max_steps", 0):
        return
    aside = free_name(folder.with_name(f"{folder.name}_stopped_at_{step_of(whole)}"))
    folder.rename(aside)
    say(
        f"       a training that was stopped was made for other flags: kept in {aside}; go on from "
        f"it with --resume {aside / whole.name}, or delete it"
    )


def free_name(path: Path) -> Path:
    """Return the path, or with a number after it where something is there."""
    free, number = path, 1
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}_{number}")
    return free


def own(folder: Path, configuration: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / OWNER, json.dumps(configuration).encode())


def step_of(checkpoint: Path) -> int:
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1
