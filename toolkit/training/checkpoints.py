"""Find a checkpoint to go on from that is whole and was made by this very configuration."""

import json
import shutil
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open

from toolkit.run.command import UserError
from toolkit.run.console import say
from toolkit.run.files import write_atomically
from toolkit.run.processes import process_count

OWNER = "made_for.json"


def find_checkpoint(folder: Path, configuration: str, resume: str) -> Path | None:
    """Return the checkpoint folder to resume from, or None to start anew (`folder` is emptied).

    `configuration`: a hash of what the weights depend on; under `auto`, checkpoints of another one
    are discarded, but for those of a training that was stopped: they are set aside, which is said.
    `resume`: auto, never, or a checkpoint folder, which must be whole. Broken newer ones are
    passed over.
    """
    if resume not in ("auto", "never"):
        if problem := what_is_broken(Path(resume)):
            raise UserError(f"--resume {resume}: {problem}")
        own(folder, configuration)
        return Path(resume)
    owner = folder / OWNER
    ours = owner.exists() and owner.read_text() == json.dumps(configuration)
    if resume == "auto" and not ours:
        set_stopped_aside(folder)
    if resume == "auto" and ours:
        for checkpoint in sorted(folder.glob("checkpoint-*"), key=step_of, reverse=True):
            problem = what_is_broken(checkpoint)
            if problem is None:
                return checkpoint
            say(f"       passed over {checkpoint.name}: {problem}")
            shutil.rmtree(checkpoint)  # Trainer would count it among those to keep
    shutil.rmtree(folder, ignore_errors=True)
    own(folder, configuration)
    return None


def set_stopped_aside(folder: Path) -> None:
    """Rename a folder of checkpoints if the newest whole one is not the end of its training."""
    checkpoints = sorted(folder.glob("checkpoint-*"), key=step_of, reverse=True)
    whole = next((path for path in checkpoints if what_is_broken(path) is None), None)
    if whole is None:
        return
    state = json.loads((whole / "trainer_state.json").read_text())
    if step_of(whole) >= state.get("max_steps", 0):
        return
    aside, number = folder.with_name(f"{folder.name}_stopped_at_{step_of(whole)}"), 1
    while aside.exists():  # that of another training: it is kept, too
        number += 1
        aside = folder.with_name(f"{folder.name}_stopped_at_{step_of(whole)}_{number}")
    folder.rename(aside)
    say(
        f"       a training that was stopped was made for other flags: kept in {aside}; go on from "
        f"it with --resume {aside / whole.name}, or delete it"
    )


def own(folder: Path, configuration: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / OWNER, json.dumps(configuration).encode())


def step_of(checkpoint: Path) -> int:
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def what_is_broken(checkpoint: Path) -> str | None:
    """Return what a checkpoint lacks, or None where it is whole.

    Trainer writes the state last, and without the optimizer's or the random numbers' it would go on
    silently on another trajectory.
    """
    if not checkpoint.is_dir():
        return "no such checkpoint folder"
    for name in ("trainer_state.json", "optimizer.pt", "scheduler.pt", "rng_state"):
        if not list(checkpoint.glob(f"{name}*")):
            return f"{name} is missing"
    random_states = sorted(checkpoint.glob("rng_state*.pth"))
    if len(random_states) != process_count():
        return f"it was made by {len(random_states)} processes, not {process_count()}"
    weights = sorted(checkpoint.glob("*.safetensors"))
    if not weights:
        return "the weights are missing"
    try:
        json.loads((checkpoint / "trainer_state.json").read_text())
        for path in weights:
            with safe_open(path, framework="pt"):
                pass
        for path in (checkpoint / "optimizer.pt", checkpoint / "scheduler.pt", *random_states):
            with zipfile.ZipFile(path) as archive:
                if damaged := archive.testzip():
                    return f"{path.name} is damaged ({damaged})"
    except (ValueError, OSError, SafetensorError, zipfile.BadZipFile) as error:
        return f"a file is cut short or damaged ({error})"
    return None
