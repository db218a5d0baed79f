"""Step 6's options as the library's TrainingArguments; `--trainer KEY=VALUE ...` sets the rest."""

import math
import re
from typing import Any, NoReturn

from transformers import HfArgumentParser, TrainingArguments

from toolkit.run.command import UserError
from toolkit.run.files import json_of
from toolkit.run.options import did_you_mean
from toolkit.run.processes import own_batches
from toolkit.run.run_directory import RunDirectory
from toolkit.training.library_fields import JSON, OBEYED, why_not
from toolkit.training.rehearsal import complaints_refused, rehearse
from toolkit.training.trackers import ToldArguments, settings_told

SECRET = re.compile(r"\b(hf_|sk-|ghp_|github_pat_|wandb_v1_)\w{16,}|\b[0-9a-f]{40}\b")

USUAL_RATE, USUAL_STEPS = 5e-5, 1_000  # while no plan is made
# What a plan says, and no complaint of the library depends on.
ONE_OF_EACH = (
    *("per_device_train_batch_size", "gradient_accumulation_steps"),
    *("warmup_steps", "eval_steps", "save_steps", "logging_steps"),
)


class ArgumentParser(HfArgumentParser):
    """The library's parser of its own fields, with complaints of one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"--trainer: {message.removeprefix('argument ')[:300]}")


def training_arguments(options: Any, plan: dict[str, Any], run: RunDirectory) -> TrainingArguments:
    """Return what a Trainer goes by. `options`: step 6's; `plan`: what became of them."""
    planned = ("learning_rate", "warmup_steps", "eval_steps", "save_steps", "logging_steps")
    micro_batch, accumulation = own_batches(
        plan["per_device_train_batch_size"], plan["gradient_accumulation_steps"]
    )
    asked = ("weight_decay", "lr_scheduler_type", "report_to")
    fixed = {
        **{name: plan[name] for name in planned},
        **{name: getattr(options, name) for name in asked},
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "output_dir": str(run.path / "checkpoints"),
        "seed": run.seed,
        "use_cpu": run.device == "cpu",
        "bf16": False,  # the kernels' affair; of fp16 the Trainer scales the loss
        "fp16": run.precision == "fp16",
        "max_steps": plan["steps"],
        "eval_strategy": "steps",
        "eval_on_start": True,  # what training began from stands in the curve
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
        "save_only_model": True,  # the rest is not pickled: CheckpointState writes it
        "dataloader_pin_memory": run.device == "cuda",
        "remove_unused_columns": False,  # the collator reads what the model does not
        "logging_nan_inf_filter": False,  # a loss that is no number stops training
        "ddp_find_unused_parameters": False,
    }
    more = extra_arguments(options.trainer or [])
    with complaints_refused(f"--trainer {' '.join(options.trainer or [])}"):
        arguments = ToldArguments(**fixed, **{"run_name": run.path.name, **more})
    arguments.told = settings_told(options, plan, run)
    rehearse(arguments, more, plan["steps"])
    return arguments


def refuse_what_the_library_would(options: Any, run: RunDirectory) -> None:
    """Refuse, before the steps that come first, what the library would not take for training."""
    rate = options.learning_rate if isinstance(options.learning_rate, float) else USUAL_RATE
    plan = {"learning_rate": rate, "steps": options.max_steps or USUAL_STEPS}
    training_arguments(options, dict.fromkeys(ONE_OF_EACH, 1) | plan, run)


def extra_arguments(pairs: list[str]) -> dict[str, Any]:
    """Return `KEY=VALUE` texts as arguments of TrainingArguments. Raises UserError, in one line."""
    keys = [pair.partition("=")[0] for pair in pairs]
    for pair in pairs:
        refuse_field(pair)
        if keys.count(key := pair.partition("=")[0]) > 1:
            raise UserError(f"--trainer {pair}: {key} is given twice; give it once")
    words = [f"--{pair}" for pair in pairs]
    parsed = vars(ArgumentParser(TrainingArguments, allow_abbrev=False).parse_args(words))
    more = {key: parsed[key] for key in keys}
    for key, value in more.items():
        refuse_value(key, value)
    return more


def refuse_field(pair: str) -> None:
    """Refuse a field that is not one, or is not obeyed, or a value that looks like a secret."""
    key, equals, value = pair.partition("=")
    secret, why = SECRET.search(value), why_not(key)
    if secret or why:
        pair = f"{key}=..."  # it may be a secret: it goes nowhere, not even to the screen
    if secret:
        raise UserError(
            f"--trainer {pair}: looks like a secret, and flags are written to records and "
            "reports; give secrets by environment variables"
        )
    if why:
        raise UserError(f"--trainer {pair}: not here: {why}")
    if not equals or key not in TrainingArguments.__dataclass_fields__:
        hint = did_you_mean(key, OBEYED) or "; docs/training.md lists those that are taken"
        raise UserError(
            f"--trainer {pair}: must be KEY=VALUE, KEY a field of TrainingArguments{hint}"
        )
    if key not in OBEYED:
        raise UserError(f"--trainer {pair}: a field that only newer versions of transformers have")


def refuse_value(key: str, value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"--trainer {key}={value}: must be a finite number")
    if isinstance(value, int) and value < 0:  # no field that is obeyed means something by it
        raise UserError(f"--trainer {key}={value}: must not be below 0")
    if key == "max_grad_norm" and value < 0:
        raise UserError(f"--trainer {key}={value}: must be above 0, or 0 for no clipping")
    if key in JSON and not is_object(value):
        raise UserError(
            f"--trainer {key}={value}: must be a JSON object, its names in double quotes, within "
            f"""single ones for the shell: --trainer '{key}={{"name": 1}}'"""
        )


def is_object(text: Any) -> bool:
    try:
        return isinstance(json_of(text) if isinstance(text, str) else text, dict)
    except ValueError:
        return False
