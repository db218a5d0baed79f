"""What a training run will do: how many steps, of how many tokens, and when it looks up."""

import math
from typing import Any

from toolkit.run.command import UserError

MOST_VALIDATIONS = 10


def plan_training(
    asked: dict[str, Any], blocks: dict[str, int], block_size: int, usual: dict[str, float]
) -> dict[str, Any]:
    """Return the plan. `asked`: step 6's options, where None leaves a value to us or to `usual`.

    `blocks`: how many blocks train and validation hold; train None for a stream, which counts as
    one epoch of whole batches. Steps are optimizer steps; the last one of an epoch may see fewer
    tokens than `tokens_per_step`. The batch sizes asked for are numbers. Raises UserError for a
    stream without `max_steps`.
    """
    streamed = blocks["train"] is None
    if streamed and not asked["max_steps"]:
        raise UserError("--max_steps is needed with --streaming: a stream has no known end")
    batch = asked["per_device_train_batch_size"] * asked["gradient_accumulation_steps"]
    if streamed:
        blocks = {**blocks, "train": asked["max_steps"] * batch}
    micro_batches = math.ceil(blocks["train"] / asked["per_device_train_batch_size"])
    steps_per_epoch = math.ceil(micro_batches / asked["gradient_accumulation_steps"])
    epochs = asked["num_train_epochs"] or usual["num_train_epochs"]
    steps = asked["max_steps"] or math.ceil(epochs * steps_per_epoch)
    # Validation is to cost less than training does: a forward pass costs a third of a step.
    affordable = steps * batch // (2 * blocks["validation"])
    validations = min(MOST_VALIDATIONS, max(1, affordable))
    eval_steps = asked["eval_steps"] or math.ceil(steps / validations)
    return {
        "steps": steps,
        "steps_per_epoch": steps_per_epoch,
        "epochs": None if streamed else steps / steps_per_epoch,
        "per_device_train_batch_size": asked["per_device_train_batch_size"],
        "gradient_accumulation_steps": asked["gradient_accumulation_steps"],
        "tokens_per_step": batch * block_size,
        "tokens_per_epoch": blocks["train"] * block_size,
        "tokens_per_validation": blocks["validation"] * block_size,
        "learning_rate": usual["learning_rate"]
        if asked["learning_rate"] in (None, "auto")
        else asked["learning_rate"],
        "eval_steps": eval_steps,
        "save_steps": asked["save_steps"] or eval_steps,
        "logging_steps": asked["logging_steps"] or max(1, steps // 100),
    }


def describe_plan(plan: dict[str, Any], measured: dict[str, Any]) -> str:
    """Return what the console says of a plan, and of what it is foreseen to need."""
    share = plan["trainable_parameters"] / plan["parameters"]
    epochs = f"{plan['epochs']:.3g} epochs" if plan["epochs"] else "from a stream"
    trained = f" of {plan['parameters']:,}" if share < 1 else ""
    return (
        f"{plan['trainable_parameters']:,}{trained} parameters to train, {plan['steps']:,} steps "
        f"of {plan['tokens_per_step']:,} tokens ({epochs}), learning rate "
        f"{plan['learning_rate']:g}, validation every {plan['eval_steps']} steps; about "
        f"{measured['predicted_peak_memory_bytes'] / 1e9:.1f} GB of memory, up to "
        f"{measured['predicted_disk_bytes'] / 1e9:.1f} GB of disk"
    )


def tokens_after(steps: int, plan: dict[str, Any]) -> int:
    """Return how many tokens the first `steps` steps of a plan train on, ragged ones included."""
    epochs, rest = divmod(steps, plan["steps_per_epoch"])
    return epochs * plan["tokens_per_epoch"] + rest * plan["tokens_per_step"]


def seconds_left(done: int, step_seconds: float, plan: dict[str, Any]) -> float:
    """Return the time that the steps after `done`, with their validations, will take.

    A validation's token costs a third of a trained one: it goes forward only.
    """
    steps = plan["steps"] - done
    validations = plan["steps"] // plan["eval_steps"] - done // plan["eval_steps"]
    return step_seconds * (
        steps + validations * plan["tokens_per_validation"] / plan["tokens_per_step"] / 3
    )


def verdict(validations: list[tuple[int, float]]) -> str:
    """Return one sentence on how validation went. `validations`: (step, loss), in their order.

    Overfitted: the last loss is above the best by more than 1% of it. Plateaued: all that was won
    after a validation is at most 2% of what was won until then; the first such step is named.
    """
    first, last = validations[0][1], validations[-1][1]
    best_step, best = min(validations, key=lambda entry: entry[1])
    if last > 1.01 * best:
        return f"overfitted from step {best_step:,}: validation loss {best:.3f}, then {last:.3f}"
    for step, loss in validations[1:-1]:
        if loss - best <= 0.02 * (first - loss):
            return f"plateaued at step {step:,}: validation loss {loss:.3f}, in the end {last:.3f}"
    return f"validation loss improved up to step {best_step:,}"
