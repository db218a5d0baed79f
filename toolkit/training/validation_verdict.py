"""What the validation losses of a training say: in one sentence, for a reader who trusts it."""

from typing import Any


def validations_in(history: list[dict[str, Any]]) -> list[tuple[int, float]]:
    """Return (step, loss) of each validation in a log; step 0 is the model before training."""
    return [(entry["step"], entry["eval_loss"]) for entry in history if "eval_loss" in entry]


def how_validation_went(validations: list[tuple[int, float]]) -> str:
    """Return one sentence on how validation went. `validations`: (step, loss), in their order.

    Worse than before training: even the best is. Overfitted: the last loss is above the best by
    more than 1% of it. Plateaued: all that was won after a validation is at most 2% of what was won
    between the first one of training and it; the first such step is named.
    """
    before = next((loss for step, loss in validations if step == 0), None)
    trained = [(step, loss) for step, loss in validations if step]
    best_step, best = min(trained, key=lambda entry: entry[1])
    first, last = trained[0][1], trained[-1][1]
    if before is not None and best >= before:
        return (
            f"worse than before training: validation loss {before:.3f} then, {best:.3f} at best, "
            f"at step {best_step:,}; that trained model is what is saved all the same: try a lower "
            "--learning_rate, or keep the model as it was"
        )
    if last > 1.01 * best:
        return f"overfitted from step {best_step:,}: validation loss {best:.3f}, then {last:.3f}"
    if len(trained) == 1:
        if before is None:
            return f"validated once, at step {best_step:,}: whether it improved is not known"
        return f"validation loss {before:.3f} before training, {best:.3f} at step {best_step:,}"
    for step, loss in trained[1:-1]:
        if loss - best <= 0.02 * (first - loss):
            return f"plateaued at step {step:,}: validation loss {loss:.3f}, in the end {last:.3f}"
    return f"validation loss improved up to step {best_step:,}"
