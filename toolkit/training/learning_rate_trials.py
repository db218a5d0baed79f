"""`--learning_rate auto`: a few short seeded trials, scored on validation loss."""

import math
from collections.abc import Callable
from typing import Any

from datasets import Dataset
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from toolkit.run.command import UserError
from toolkit.run.console import say
from toolkit.training.trainer import PipelineTrainer

FACTORS = (0.3, 1.0, 3.0, 10.0)  # of the usual learning rate
BEYOND, MOST_BEYOND = 10**0.5, 3  # how far the next rate is, and how many more are tried
FEWEST_STEPS, MOST_STEPS, SHARE_OF_STEPS = 10, 40, 0.1
VALIDATION_BLOCKS = 32


def trial_steps(steps: int) -> int:
    """Return how long the trials before a run of `steps` steps are: a tenth of it, 10 to 40."""
    return min(MOST_STEPS, max(FEWEST_STEPS, round(SHARE_OF_STEPS * steps)))


def pick_learning_rate(
    make_trainer: Callable[[dict[str, Any]], PipelineTrainer],
    plan: dict[str, Any],
    validation: Dataset,
) -> dict[str, Any]:
    """Return the best `learning_rate` of a few short trials, their `trial_steps`, and the `trials`.

    `make_trainer` returns a trainer of a fresh copy of the model for a plan; `plan` has the usual
    rate. Each trial sees the same batches, warms up and falls as the run itself will. Where the
    best rate is the highest or the lowest that was tried, others beyond it are. Short trials favour
    high rates a little. Raises UserError where every trial diverged.
    """
    held_out = validation.select(range(min(VALIDATION_BLOCKS, len(validation))))
    steps = trial_steps(plan["steps"])
    warmup = math.ceil(plan["warmup_steps"] / plan["steps"] * steps)
    short = {**plan, "steps": steps, "warmup_steps": warmup}
    short |= {"eval_steps": steps + 1, "logging_steps": steps}
    trials: list[dict[str, float]] = []

    def attempt(rate: float) -> None:
        loss = loss_of_trial(make_trainer({**short, "learning_rate": rate}), held_out)
        trials.append({"learning_rate": rate, "validation_loss": loss})
        say(f"       tried learning rate {rate:.3g}: validation loss {loss:.3f}")

    for factor in FACTORS:
        attempt(factor * plan["learning_rate"])
    if all(math.isinf(trial["validation_loss"]) for trial in trials):
        raise UserError("--learning_rate auto: every trial diverged; give a learning rate")
    while (beyond := rate_beyond(trials)) and len(trials) < len(FACTORS) + MOST_BEYOND:
        attempt(beyond)
    best = min(trials, key=loss_in)["learning_rate"]
    if beyond:
        side = "higher" if beyond > best else "lower"
        say(f"       no {side} rate than {best:.3g} was tried: one may be better still")
    return {"learning_rate": best, "trial_steps": steps, "trials": trials}


def loss_in(trial: dict[str, float]) -> float:
    return trial["validation_loss"]


def rate_beyond(trials: list[dict[str, float]]) -> float | None:
    """Return a rate beyond the best one, where that is the highest or the lowest, else None."""
    rates = [trial["learning_rate"] for trial in trials]
    best = min(trials, key=loss_in)["learning_rate"]
    return best * BEYOND if best == max(rates) else best / BEYOND if best == min(rates) else None


def loss_of_trial(trainer: PipelineTrainer, held_out: Dataset) -> float:
    """Return the validation loss after a trial's training; infinity where it diverged."""
    trainer.args.save_strategy = SaveStrategy.NO
    trainer.args.eval_strategy = IntervalStrategy.NO
    trainer.args.eval_on_start = trainer.interruption.saves = False
    try:
        trainer.train()
        if trainer.interruption.came:
            raise KeyboardInterrupt
        return trainer.evaluate(held_out)["eval_loss"]
    except UserError:
        return math.inf
    finally:
        trainer.interruption.end()
