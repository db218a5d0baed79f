"""Build the optimizer and the schedule before anything depends on them, and refuse in one line.

The library builds them when training starts: what it complains of then comes after hours of other
steps, and as a traceback.
"""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
from transformers import Trainer, TrainingArguments
from transformers.optimization import GreedyLR, get_scheduler

from toolkit.run.command import UserError, first_line

SETTINGS = ("adam_beta1", "adam_beta2", "adam_epsilon")
# Optimizers that need more than gradients from the training loop, and what they need.
OTHER_LOOPS = {
    "galore": "picks modules; --lora_rank trains in little memory",
    "apollo": "picks modules; --lora_rank trains in little memory",
    "lomo": "steps while it goes back",
    "adalomo": "steps while it goes back",
    "schedule_free": "holds other weights while it trains than those to validate and to save",
}


@contextlib.contextmanager
def complaints_refused(what: str) -> Iterator[None]:
    """Turn what the library says of the body into one line about `what`."""
    try:
        yield
    except (ValueError, TypeError, ImportError, RuntimeError, NotImplementedError) as error:
        raise UserError(f"{what}: {first_line(error)}") from None


def rehearse(arguments: TrainingArguments, given: dict[str, Any], steps: int) -> None:
    """Build optimizer and schedule of a training of `steps` steps, for one weight, and drop them.

    `given`: the fields that --trainer sets. Raises UserError where the library refuses them, and
    where one of them changes nothing.
    """
    name = str(arguments.optim.value)
    for family, why in OTHER_LOOPS.items():
        if name.startswith(family):
            raise UserError(f"--trainer optim={name}: not here: {name} {why}")
    said = [f"{key}={given[key]}" for key in ("optim", "optim_args", *SETTINGS) if key in given]
    with complaints_refused(f"--trainer {' '.join(said) or f'optim={name}'}"):
        kind, settings = Trainer.get_optimizer_cls_and_kwargs(arguments)
        optimizer = kind([torch.nn.Parameter(torch.zeros(1, 1))], **settings)
        refuse_ignored(arguments, given, settings)
    schedule = f"--lr_scheduler_type {arguments.lr_scheduler_type.value}"
    if "lr_scheduler_kwargs" in given:
        schedule += f" --trainer lr_scheduler_kwargs={given['lr_scheduler_kwargs']}"
    with complaints_refused(schedule):
        kwargs, warmup = arguments.lr_scheduler_kwargs, arguments.get_warmup_steps(steps)
        built = get_scheduler(arguments.lr_scheduler_type, optimizer, warmup, steps, kwargs)
    if kwargs and arguments.lr_scheduler_type.value in ("constant", "constant_with_warmup"):
        raise UserError(f"{schedule}: this schedule has no settings; leave them out")
    if isinstance(built, GreedyLR) and built.min_lrs[0] > arguments.learning_rate:
        raise UserError(
            f"{schedule}: its lowest rate, {built.min_lrs[0]:g}, is above the learning rate, "
            f"{arguments.learning_rate:g}; give --trainer "
            """'lr_scheduler_kwargs={"min_lr": 1e-6, "max_lr": 1e-3}'"""
        )


def refuse_ignored(
    arguments: TrainingArguments, given: dict[str, Any], settings: dict[str, Any]
) -> None:
    """Refuse a setting without which the optimizer would be built just the same."""

    def without(key: str, value: Any) -> dict[str, Any]:
        others = copy.copy(arguments)
        setattr(others, key, value)
        return Trainer.get_optimizer_cls_and_kwargs(others)[1]

    usual = TrainingArguments.__dataclass_fields__
    name = arguments.optim.value
    for key in SETTINGS:
        changed = key in given and given[key] != usual[key].default
        if changed and without(key, usual[key].default) == settings:
            raise UserError(f"--trainer {key}={given[key]}: {name} has no such setting")
    pairs = (given.get("optim_args") or "").replace(" ", "").split(",")
    for pair in filter(None, pairs):
        key = pair.partition("=")[0]
        if key in ("lr", "learning_rate", "weight_decay"):
            flag = "weight_decay" if key == "weight_decay" else "learning_rate"
            raise UserError(f"--trainer optim_args={pair}: take --{flag}")
        others = ",".join(other for other in pairs if other != pair)
        if without("optim_args", others or None) == settings:
            raise UserError(f"--trainer optim_args={pair}: {name} has no such setting")
