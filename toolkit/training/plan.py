"""What a training run will do: how many steps, of how many tokens, and when it looks up."""

from __future__ import annotations

import math
from typing import Any, Literal

from toolkit.run.command import UserError
from toolkit.run.console import count, size
from toolkit.run.lazily import lazily
from toolkit.run.run_directory import RunDirectory

with lazily():
    import torch

    from toolkit.model.trainable import plain_model
    from toolkit.training import preflight
    from toolkit.training.compute_rate import training_operations_per_token

Schedule = Literal[
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "reduce_lr_on_plateau",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "warmup_stable_decay",
    "greedy",
]  # transformers.SchedulerType
WITHOUT_WARMUP = ("constant", "reduce_lr_on_plateau", "greedy")
MOST_VALIDATIONS = 10
# What suits a pretrained model, adapters, the two of a small one, and what starts from nothing.
FINE_TUNING = {"num_train_epochs": 3.0, "learning_rate": 5e-5}
ADAPTERS = {"num_train_epochs": 3.0, "learning_rate": 5e-4}
FINE_TUNING_SMALL = {"num_train_epochs": 2.0, "learning_rate": 4e-4}
ADAPTERS_SMALL = {"num_train_epochs": 3.0, "learning_rate": 5e-3}
FROM_SCRATCH = {"num_train_epochs": 8.0, "learning_rate": 1e-3}
SMALL = 20_000_000  # parameters up to which a model is small
EFFECTIVE_BATCH = 4  # blocks of a step, for each of --gradient_accumulation_steps, under auto


def make_plan(
    model: torch.nn.Module, options: Any, run: RunDirectory
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what training will do, every choice made, and what it will need on this machine.

    `options`: step 6's.
    """
    usual = usual_values(run.results("load_gpt2"), options)
    split = run.results("train_test_split")
    block_size = split["block_size"]
    need = preflight.memory_need(model, block_size, run.precision)
    free = preflight.free_memory_bytes(run.device)
    micro_batch, accumulation = (
        options.per_device_train_batch_size,
        options.gradient_accumulation_steps,
    )
    effective = accumulation * (EFFECTIVE_BATCH if micro_batch == "auto" else micro_batch)
    micro_batch = preflight.settle_micro_batch(need, free, micro_batch, effective)
    asked = {
        **vars(options),
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": effective // micro_batch,
    }
    accounts = {name: split["splits"][name] for name in ("train", "validation")}
    plan = {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "trainable_parameters": sum(w.numel() for w in model.parameters() if w.requires_grad),
        "operations_per_token": operations_per_token(model, accounts["validation"]),
        **plan_training(asked, accounts, usual),
    }
    measured = {
        "predicted_peak_memory_bytes": preflight.held_bytes(run.device) + need.at_most(micro_batch),
        "predicted_disk_bytes": preflight.refuse_too_little_disk(model, run.path),
    }
    return plan, measured


def operations_per_token(model: torch.nn.Module, account: dict[str, int]) -> int:
    """Return the floating-point operations of training, for each token of text.

    `account`: step 5's of blocks like those that are trained on.
    """
    text = account["tokens_in_blocks"]
    learned = account.get("tokens_learned", text) / text
    length = round(text / account["blocks"])
    return training_operations_per_token(plain_model(model), length, learned)


def usual_values(loaded: dict[str, Any], options: Any) -> dict[str, float]:
    if loaded["from_scratch"]:
        return FROM_SCRATCH
    small = loaded["parameters"] <= SMALL
    if options.lora_rank:
        return ADAPTERS_SMALL if small else ADAPTERS
    return FINE_TUNING_SMALL if small else FINE_TUNING


def plan_training(
    asked: dict[str, Any], accounts: dict[str, dict[str, Any]], usual: dict[str, float]
) -> dict[str, Any]:
    """Return the plan. `asked`: step 6's options, where None leaves a value to us or to `usual`.

    `accounts`: step 5's of train and validation; a stream, of which nothing is known, counts as
    one epoch of whole batches, of examples as long as validation's. Steps are optimizer steps;
    tokens are those of text. The last step of an epoch may see fewer than `tokens_per_step`, and of
    examples that is the mean. The batch sizes asked for are numbers. Raises UserError for a stream
    without `max_steps`.
    """
    train, held_out = accounts["train"], accounts["validation"]
    streamed = train["blocks"] is None
    if streamed and not asked["max_steps"]:
        raise UserError("--max_steps is needed with --streaming: a stream has no known end")
    batch = asked["per_device_train_batch_size"] * asked["gradient_accumulation_steps"]
    blocks = asked["max_steps"] * batch if streamed else train["blocks"]
    micro_batches = math.ceil(blocks / asked["per_device_train_batch_size"])
    steps_per_epoch = math.ceil(micro_batches / asked["gradient_accumulation_steps"])
    epochs = asked["num_train_epochs"] or usual["num_train_epochs"]
    steps = asked["max_steps"] or math.ceil(epochs * steps_per_epoch)
    # Validation is to cost less than training does: a forward pass costs a third of a step.
    affordable = steps * batch // (2 * held_out["blocks"])
    validations = min(MOST_VALIDATIONS, max(1, affordable))
    eval_steps = asked["eval_steps"] or math.ceil(steps / validations)
    refuse_useless_patience(asked["early_stopping_patience"], steps, eval_steps)
    return {
        "steps": steps,
        "steps_per_epoch": steps_per_epoch,
        "epochs": None if streamed else steps / steps_per_epoch,
        "per_device_train_batch_size": asked["per_device_train_batch_size"],
        "gradient_accumulation_steps": asked["gradient_accumulation_steps"],
        **planned_tokens(held_out if streamed else train, batch, blocks),
        "tokens_per_validation": held_out["tokens_in_blocks"],
        "learning_rate": usual["learning_rate"]
        if asked["learning_rate"] in (None, "auto")
        else asked["learning_rate"],
        "warmup_steps": planned_warmup(asked, steps),
        "eval_steps": eval_steps,
        "save_steps": asked["save_steps"] or eval_steps,
        "logging_steps": asked["logging_steps"] or max(1, steps // 100),
    }


def refuse_useless_patience(patience: int | None, steps: int, eval_steps: int) -> None:
    """Refuse an early stopping that could stop nothing before the end."""
    before_the_end = (steps - 1) // eval_steps
    if patience and patience > before_the_end:
        often = f"give --eval_steps {(steps - 1) // patience} or less, or " * (steps > patience)
        raise UserError(
            f"--early_stopping_patience {patience}: only {count(before_the_end, 'validation')} "
            f"comes before the end of {count(steps, 'step')}, so that training would never stop "
            f"early; {often}leave it out"
        )


def planned_warmup(asked: dict[str, Any], steps: int) -> int:
    """Return the steps that the rate rises for; raise UserError where they are too many."""
    if asked["lr_scheduler_type"] in WITHOUT_WARMUP:
        return 0
    share = asked["warmup_steps"]
    warmup = math.ceil(share * steps) if share < 1 else int(share)
    if warmup > steps:
        raise UserError(
            f"--warmup_steps {share:g}: training has {steps:,} steps, so that the learning rate "
            "would never be reached; give fewer, or a share of all steps, below 1"
        )
    return warmup


def planned_tokens(account: dict[str, int], batch: int, blocks: int) -> dict[str, int]:
    """Return the tokens of a step of `batch` blocks, and of an epoch; of examples, those learned.

    `account`: step 5's of blocks like these.
    """
    planned = {}
    for name, kind in (("tokens", "tokens_in_blocks"), ("learned", "tokens_learned")):
        if kind in account:
            each = account[kind] / account["blocks"]
            planned[f"{name}_per_step"] = round(batch * each)
            planned[f"{name}_per_epoch"] = round(blocks * each)
    return planned


def describe_plan(plan: dict[str, Any], measured: dict[str, Any]) -> str:
    """Return what the console says of a plan, and of what it is foreseen to need."""
    share = plan["trainable_parameters"] / plan["parameters"]
    epochs = f"{plan['epochs']:.3g} epochs" if plan["epochs"] else "from a stream"
    trained = f" of {plan['parameters']:,}" if share < 1 else ""
    tokens = f"{plan['tokens_per_step']:,} tokens"
    if "learned_per_step" in plan:
        tokens = f"about {tokens} of text, {plan['learned_per_step']:,} of them learned"
    every = "step" if plan["eval_steps"] == 1 else f"{plan['eval_steps']:,} steps"
    return (
        f"{plan['trainable_parameters']:,}{trained} parameters to train, "
        f"{count(plan['steps'], 'step')} of {tokens} ({epochs}), learning rate "
        f"{plan['learning_rate']:g}, validation every {every}; about "
        f"{size(measured['predicted_peak_memory_bytes'])} of memory, up to "
        f"{size(measured['predicted_disk_bytes'])} of disk"
    )
