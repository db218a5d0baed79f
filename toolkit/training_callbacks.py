"""What happens beside training steps: timing, early stopping, keeping checkpoints, progress."""

import math
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from toolkit.command import UserError
from toolkit.console import duration, say
from toolkit.processes import any_process
from toolkit.training_plan import seconds_left


class Stopwatch(TrainerCallback):
    """Seconds of the training loop without evaluating, saving, and the first step (warm-up)."""

    def __init__(self) -> None:
        self.seconds, self.steps = 0.0, -1
        self._since = 0.0
        self._lap = (0.0, 0)

    def lap(self) -> float | None:
        """Return the mean seconds of a step since the last lap; None if none was timed."""
        (seconds, steps), self._lap = self._lap, (self.seconds, self.steps)
        return (self.seconds - seconds) / (self.steps - steps) if self.steps > steps else None

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._since = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self.steps >= 0:
            self.seconds += now - self._since
        self.steps += 1
        self._since = now

    def _resume(self, *_: Any, **__: Any) -> None:
        self._since = time.perf_counter()

    on_log = on_evaluate = on_save = _resume


class AfterEachStep(TrainerCallback):
    """Do something as soon as the optimizer has changed the weights."""

    def __init__(self, action: Callable[[], None]):
        self.action = action

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        self.action()


class Forecast(TrainerCallback):
    """After three timed steps, say once how long training will take."""

    def __init__(self, stopwatch: Stopwatch, plan: dict[str, Any]):
        self.stopwatch, self.plan = stopwatch, plan

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self.stopwatch.steps != 3 or not state.is_world_process_zero:
            return
        step_seconds = self.stopwatch.seconds / 3
        seconds = seconds_left(state.global_step, step_seconds, self.plan)
        if seconds >= 60:
            speed = self.plan["tokens_per_step"] / step_seconds
            say(f"       {duration(seconds)} to go at {speed:,.0f} tokens/s")


class StopWhenDiverged(TrainerCallback):
    """Stop where the loss is no number, or higher than knowing nothing: ln(vocabulary) and more."""

    def __init__(self, vocabulary: int):
        self.knowing_nothing = math.log(vocabulary)
        self.highest: float | None = None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        loss = (logs or {}).get("loss", (logs or {}).get("eval_loss"))
        if loss is None:
            return
        if self.highest is None:
            self.highest = max(loss, self.knowing_nothing) + 1.0
        if loss <= self.highest:  # not so for what is no number
            return
        best = state.best_model_checkpoint
        kept = f"; the best checkpoint so far is {best}" if best else ""
        raise UserError(
            f"training diverged at step {state.global_step:,} (loss {loss:.4g}): lower "
            f"--learning_rate (it was {args.learning_rate:g}) or raise --warmup_steps{kept}"
        )


class EarlyStopping(TrainerCallback):
    """Stop after `patience` validations without a new best.

    Counts from the log: a resumed run agrees.
    """

    def __init__(self, patience: int):
        self.patience = patience

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        losses = [entry["eval_loss"] for entry in state.log_history if "eval_loss" in entry]
        if len(losses) - 1 - losses.index(min(losses)) >= self.patience:
            control.should_training_stop = True


class KeepBestAndLast(TrainerCallback):
    """Save at every new best validation, whatever `save_steps` says; keep that and the newest."""

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict,
        **_: Any,
    ) -> None:
        if state.best_metric is None or metrics["eval_loss"] < state.best_metric:
            control.should_save = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        keep = {f"checkpoint-{state.global_step}", Path(state.best_model_checkpoint or "").name}
        for checkpoint in Path(args.output_dir).glob("checkpoint-*"):
            if checkpoint.name not in keep:
                shutil.rmtree(checkpoint)


class SaveOnSignal(TrainerCallback):
    """On Ctrl-C or SIGTERM, finish the step, save and stop; on a second Ctrl-C, stop at once."""

    def __init__(self) -> None:
        self.came = False
        self._earlier: dict[int, Any] = {}

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._earlier[number] = signal.signal(number, self._note)
            except (
                ValueError
            ):  # not the main thread (a notebook server): signals are not ours there
                return

    def on_train_end(self, *_: Any, **__: Any) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if any_process(self.came, args.device):
            self.came = True
            control.should_save = control.should_training_stop = True

    def _note(self, *_: Any) -> None:
        if self.came:
            raise KeyboardInterrupt
        self.came = True


class TrainingBar(ProgressCallback):
    """One progress bar, with the latest losses on it."""

    def __init__(self) -> None:
        super().__init__()
        self._shown: dict[str, str] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        self.current_step = state.global_step
        if self.training_bar is not None:
            self.training_bar.unit = "step"
            self.training_bar.set_description("training", refresh=False)
            self.training_bar.update(state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        names = {"loss": "loss", "eval_loss": "validation"}
        logs = logs or {}
        self._shown |= {names[k]: f"{value:.3f}" for k, value in logs.items() if k in names}
        if "tokens_per_second" in logs:
            self._shown["tokens/s"] = f"{logs['tokens_per_second']:,.0f}"
        if self.training_bar is not None:
            self.training_bar.set_postfix(self._shown, refresh=False)
