"""What a training run will do: how many steps, of how many tokens, and when it looks up."""

import math
from typing import Any

from toolkit.command import UserError

MOST_VALIDATIONS = 10


def plan_training(
    asked: dict[str, Any], blocks: dict[str, int], block_size: int, usual: dict[str, float]
) -> dict[str, Any]:
    """Return the plan. `asked`: step 6's options, where None leaves a value to us or to `usual`.

    `blocks`: how many blocks train and validation hold; train None for a stream, which counts as
    one epoch of whole batches. Steps are optimizer steps; the last one of an epoch may see fewer
    tokens than `tokens_per_step`. Raises UserError for a stream without `max_steps`.
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
        "tokens_per_step": batch * block_size,
        "tokens_per_epoch": blocks["train"] * block_size,
        "learning_rate": asked["learning_rate"] or usual["learning_rate"],
        "eval_steps": eval_steps,
        "save_steps": asked["save_steps"] or eval_steps,
        "logging_steps": asked["logging_steps"] or max(1, steps // 100),
    }


def tokens_after(steps: int, plan: dict[str, Any]) -> int:
    """Return how many tokens the first `steps` steps of a plan train on, ragged ones included."""
    epochs, rest = divmod(steps, plan["steps_per_epoch"])
    return epochs * plan["tokens_per_epoch"] + rest * plan["tokens_per_step"]
