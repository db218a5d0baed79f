"""Find a checkpoint to go on from that is whole, and that this very training may go on from."""

import math
import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerState

from toolkit.run.command import UserError
from toolkit.run.console import say
from toolkit.run.files import remove
from toolkit.training.manifest import is_unfinished, what_is_broken
from toolkit.training.same_training import (
    changes,
    differs_in_length_only,
    has_the_same_rates,
    made_for,
    rates,
    refuse_what_cannot_change,
)

STATE = "trainer_state.json"


def find_checkpoint(folder: Path, settings: dict[str, Any], resume: str) -> Path | None:
    """Return the checkpoint in `folder` to go on from, or None to start anew (none are left).

    `settings`: see `settings_of`. `resume`: auto, never, or a checkpoint folder, which must be
    whole and is copied into `folder`. Under auto, broken newer checkpoints are set aside; those of
    another training are removed, but for one that was stopped, which is kept, and a longer or
    shorter one of the same kind: see `goes_on`.
    """
    if resume not in ("auto", "never"):
        return take_named(Path(resume), folder, settings)
    if resume == "auto":
        set_broken_aside(folder)
        if checkpoints := newest_first(folder):
            if goes_on(checkpoints[0], settings):
                return checkpoints[0]
            set_stopped_aside(folder)
    for checkpoint in newest_first(folder):
        shutil.rmtree(checkpoint)
    return None


def goes_on(checkpoint: Path, now: dict[str, Any]) -> bool:
    """Tell whether a training goes on from a checkpoint by itself: the same, or a longer one.

    Raises UserError for a longer one that would have had other learning rates until there.
    """
    known, step = made_for(checkpoint)["settings"], step_of(checkpoint)
    if not changes(known, now):
        return True
    if not differs_in_length_only(known, now) or now["steps"] <= step:
        return False
    where = f"{checkpoint.name} of a training of {known['steps']:,} steps"
    if has_the_same_rates(known, now, step):
        say(f"       goes on from {where}: its learning rates are those of {now['steps']:,} steps")
        return True
    raise UserError(
        f"{checkpoint.parent} holds {where}, whose {rates_differ(known, now, step)}; go on from it "
        f"all the same with --resume {checkpoint}, or train anew with --resume never, which "
        "deletes it"
    )


def rates_differ(known: dict[str, Any], now: dict[str, Any], step: int) -> str:
    """Return what a schedule does where a training goes on with another number of steps."""
    kind, old, new = known["lr_scheduler_type"], rates(known), rates(now)
    if old is None:
        return f"{kind} schedule saw other validations (--eval_steps {known['eval_steps']})"
    warmup = {"warmup_steps": known["warmup_steps"]}
    if has_the_same_rates(known, now | warmup, step):
        return f"learning rates are those of --warmup_steps {known['warmup_steps']}: give that"
    return (
        f"learning rates until then are not those of {now['steps']:,} steps: with {kind} the rate "
        f"would go from {old[step - 1]:.3g} to {new[step]:.3g}"
    )


def take_named(named: Path, folder: Path, settings: dict[str, Any]) -> Path:
    """Return a checkpoint that is asked for by its path, in `folder`, with the best so far.

    Newer ones that are there are set aside, and so is another training that was stopped.
    """
    if problem := what_is_broken(named):
        raise UserError(
            f"--resume {named}: {problem}; take another checkpoint, or train on from its weights "
            f"alone, if they are whole, with --model {named}"
        )
    known, state = made_for(named)["settings"], read_trainer_state(named)
    if not known:
        raise UserError(f"--resume {named}: it does not say what it was made for")
    refuse_what_cannot_change(known, settings, f"--resume {named}")
    if settings["steps"] < state.global_step:
        raise UserError(
            f"--resume {named}: it is at step {state.global_step:,}, beyond --max_steps "
            f"{settings['steps']}; give more"
        )
    home = folder / f"checkpoint-{state.global_step}"
    if named.resolve() != home.resolve():
        move_in(named, state, folder)
    for newer in newest_first(folder):
        if step_of(newer) > state.global_step:
            say(f"       {newer.name} is newer: kept as {set_aside(newer)}")
    return home


def move_in(named: Path, state: TrainerState, folder: Path) -> None:
    """Copy a checkpoint, and the best one that it names, into a folder of checkpoints."""
    coming = folder.with_name(f"{folder.name}_coming")
    remove(coming)
    shutil.copytree(named, coming / f"checkpoint-{state.global_step}")
    best = named.with_name(f"checkpoint-{state.best_global_step}")
    if best.is_dir() and not (coming / best.name).exists():
        shutil.copytree(best, coming / best.name)
    if newest_first(folder):
        set_stopped_aside(folder)
    remove(folder)
    coming.rename(folder)


def settle_best(state: TrainerState, folder: Path) -> None:
    """Let a state name the best checkpoint in `folder`: its own, or of the others where that broke.

    The paths in a state are those of the folder in which it was saved.
    """
    own = folder / f"checkpoint-{state.best_global_step}"
    if state.best_global_step and what_is_broken(own) is None:
        state.best_model_checkpoint = str(own)
        return
    losses = {e["step"]: e["eval_loss"] for e in state.log_history if "eval_loss" in e}
    checkpoints = newest_first(folder, before=state.global_step + 1)
    whole = {step_of(path): path for path in checkpoints if what_is_broken(path) is None}
    best = min(losses.keys() & whole.keys(), key=losses.get, default=None)
    if state.best_global_step:
        left = f"of those left {whole[best].name} is the best" if best else "none is left"
        say(f"       {own.name}, the best so far, is damaged or gone: {left}")
    state.best_global_step, state.best_metric = best, losses.get(best)
    state.best_model_checkpoint = str(whole[best]) if best else None


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
            say(f"       passed over {checkpoint.name}: {problem}; kept as {set_aside(checkpoint)}")


def set_stopped_aside(folder: Path) -> None:
    """Rename a folder of checkpoints if the newest, a whole one, is not the end of its training."""
    newest = newest_first(folder)[0]
    if what_is_broken(newest) or step_of(newest) >= read_trainer_state(newest).max_steps:
        return
    aside = free_name(folder.with_name(f"{folder.name}_stopped_at_{step_of(newest)}"))
    folder.rename(aside)
    say(
        f"       a training that was stopped was made for other flags: kept in {aside}; go on from "
        f"it with --resume {aside / newest.name}, or delete it"
    )


def set_aside(checkpoint: Path) -> Path:
    aside = free_name(checkpoint.with_name(f"set_aside_{checkpoint.name}"))
    return checkpoint.rename(aside)


def free_name(path: Path) -> Path:
    """Return the path, or with a number after it where something is there."""
    free, number = path, 1
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}_{number}")
    return free


def read_trainer_state(checkpoint: Path) -> TrainerState:
    return TrainerState.load_from_json(str(checkpoint / STATE))


def step_of(checkpoint: Path) -> int:
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1
