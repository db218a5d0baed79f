"""How long training will take: steps, validations and checkpoints, each as it was measured."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from toolkit.run.console import duration, say
from toolkit.run.files import sha256_of
from toolkit.training.pace import Stopwatch
from toolkit.training.preflight import checkpoint_bytes

TIMED_STEPS = 3
WORTH_SAYING = 60  # seconds from which on it is said
PROBE_BYTES = 32_000_000


@dataclass(frozen=True)
class Costs:
    """Seconds of a step, of a validation, and of a checkpoint."""

    step: float
    validation: float
    checkpoint: float


def seconds_left(done: int, plan: dict[str, Any], costs: Costs) -> float:
    """Return the time that the steps after `done` take, with their validations and checkpoints.

    The last step has both; each validation may be a new best, and is saved then.
    """
    last = {plan["steps"]}
    validated = last.union(range(plan["eval_steps"], plan["steps"], plan["eval_steps"]))
    saved = validated.union(range(plan["save_steps"], plan["steps"], plan["save_steps"]))
    left = [sum(step > done for step in steps) for steps in (validated, saved)]
    return (
        (plan["steps"] - done) * costs.step
        + left[0] * costs.validation
        + left[1] * costs.checkpoint
    )


def seconds_to_write(size: int, folder: Path) -> float:
    """Return the time that a checkpoint of so many bytes takes to be written and hashed there."""
    folder.mkdir(parents=True, exist_ok=True)
    probe, began = folder / ".probe.safetensors", time.perf_counter()
    try:
        save_file({"probe": torch.zeros(PROBE_BYTES // 4)}, probe)
        sha256_of([probe])
    finally:
        probe.unlink(missing_ok=True)
    return (time.perf_counter() - began) * size / PROBE_BYTES


class Forecast(TrainerCallback):
    """After three timed steps, say once how long training will take."""

    def __init__(self, stopwatch: Stopwatch, plan: dict[str, Any]):
        self.stopwatch, self.plan = stopwatch, plan

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: torch.nn.Module,
        **_: Any,
    ) -> None:
        if self.stopwatch.steps != TIMED_STEPS or not state.is_world_process_zero:
            return
        costs = self.costs(model, Path(args.output_dir))
        if (seconds := seconds_left(state.global_step, self.plan, costs)) >= WORTH_SAYING:
            speed = self.stopwatch.tokens_per_second
            say(f"       {duration(seconds)} to go at {speed:,.0f} tokens/s")
        self.stopwatch.go_on()

    def costs(self, model: torch.nn.Module, folder: Path) -> Costs:
        """Return what was measured; of a resumed training no validation was yet.

        A token of it costs a third of a trained one: it goes forward only.
        """
        step = self.stopwatch.seconds / TIMED_STEPS
        tokens = self.plan["tokens_per_validation"] / self.plan["tokens_per_step"]
        validation = self.stopwatch.validation_seconds
        return Costs(
            step,
            step * tokens / 3 if math.isnan(validation) else validation,
            seconds_to_write(checkpoint_bytes(model), folder),
        )
