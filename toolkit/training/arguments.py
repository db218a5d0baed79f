"""Step 6's options as the library's TrainingArguments; `--trainer KEY=VALUE ...` sets the rest."""

import re
from typing import Any, NoReturn

from transformers import HfArgumentParser, TrainingArguments

from toolkit.run.command import UserError
from toolkit.run.processes import own_batches
from toolkit.run.run_directory import RunDirectory

# What would be ignored, or would undo what this pipeline promises.
REFUSED = {
    "label_smoothing_factor": "the losses here are true cross entropies",
    "auto_find_batch_size": "take --per_device_train_batch_size auto",
    "use_liger_kernel": "head and loss are fused already",
    "deepspeed": "use torchrun: a GPT-2 fits on every card",
    "save_strategy": "what is trained is taken from the checkpoint of the best validation",
    "fsdp": "use torchrun: a GPT-2 fits on every card",
    "save_only_model": "an interrupted training could not go on",
    "push_to_hub": "take the runner's --push_to_hub, which publishes the finished run, private",
}
REFUSED |= dict.fromkeys(
    (name for name in TrainingArguments.__dataclass_fields__ if name.startswith("hub_")),
    "log in with `hf auth login` and take the runner's --push_to_hub",
)
SECRET = re.compile(r"\b(hf_|sk-|ghp_|github_pat_|wandb_v1_)\w{16,}|\b[0-9a-f]{40}\b")


class ArgumentParser(HfArgumentParser):
    """The library's parser of its own fields, with complaints of one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"--trainer: {message.removeprefix('argument ')[:300]}")


def training_arguments(options: Any, plan: dict[str, Any], run: RunDirectory) -> TrainingArguments:
    """Return what a Trainer goes by. `options`: step 6's; `plan`: what became of them."""
    planned = ("learning_rate", "eval_steps", "save_steps", "logging_steps")
    micro_batch, accumulation = own_batches(
        plan["per_device_train_batch_size"], plan["gradient_accumulation_steps"]
    )
    asked = ("warmup_steps", "weight_decay", "lr_scheduler_type", "report_to")
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
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
        "dataloader_pin_memory": run.device == "cuda",
        "remove_unused_columns": False,  # the collator reads what the model does not
        "logging_nan_inf_filter": False,  # a loss that is no number stops training
    }
    usual = {"run_name": run.path.name, "ddp_find_unused_parameters": False}
    more = extra_arguments(options.trainer or [], {*fixed, *vars(options)})
    return TrainingArguments(**fixed, **{**usual, **more})


def extra_arguments(pairs: list[str], taken: set[str]) -> dict[str, Any]:
    """Return `KEY=VALUE` texts as arguments of TrainingArguments. `taken`: what other flags set."""
    words = []
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if SECRET.search(value) or key in REFUSED:
            pair = f"{key}=..."  # it may be a secret: it goes nowhere, not even to the screen
        if SECRET.search(value):
            raise UserError(
                f"--trainer {pair}: looks like a secret, and flags are written to records and "
                "reports; give secrets by environment variables"
            )
        if not equals or key not in TrainingArguments.__dataclass_fields__:
            raise UserError(
                f"--trainer {pair}: must be KEY=VALUE, KEY a field of TrainingArguments"
            )
        if key in REFUSED:
            raise UserError(f"--trainer {pair}: not here: {REFUSED[key]}")
        if key in taken:
            raise UserError(
                f"--trainer {pair}: {key} is set by this pipeline's own flags (see --help)"
            )
        words += [f"--{key}", value]
    parsed = vars(ArgumentParser(TrainingArguments, allow_abbrev=False).parse_args(words))
    return {key: parsed[key] for key in (pair.partition("=")[0] for pair in pairs)}
