"""How fast training goes, how long it will take, and the bar that shows it."""

import time
from typing import Any

import torch
from transformers import (
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from toolkit.run.console import duration, say
from toolkit.training.compute_rate import matrix_product_rate
from toolkit.training.memory import peak_memory_bytes
from toolkit.training.plan import seconds_left
from toolkit.training.token_count import TokenCount


class Stopwatch(TrainerCallback):
    """Seconds of the training loop without evaluating, saving, and the first step (warm-up).

    `steps`: those that were timed; `tokens`: theirs, of text.
    """

    def __init__(self, count: TokenCount) -> None:
        self.count = count
        self.seconds, self.steps, self.tokens = 0.0, -1, 0
        self._since = 0.0
        self._lap = (0.0, 0)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.steps > 0 else 0.0

    def lap(self) -> tuple[float, int]:
        """Return the seconds since the last lap, and the timed steps' tokens: 0 before any."""
        (seconds, tokens), self._lap = self._lap, (self.seconds, self.tokens)
        return self.seconds - seconds, self.tokens - tokens

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._since = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self.steps >= 0:
            self.seconds += now - self._since
            self.tokens += self.count.last_step
        self.steps += 1
        self._since = now

    def _resume(self, *_: Any, **__: Any) -> None:
        self._since = time.perf_counter()

    on_log = on_evaluate = on_save = _resume


class Speedometer(TrainerCallback):
    """Add to each training loss in the log the speed and memory of the steps since the last one."""

    def __init__(self, stopwatch: Stopwatch, plan: dict[str, Any], device: str, precision: str):
        self.stopwatch, self.plan, self.machine = stopwatch, plan, (device, precision)
        self.matrix_product_rate: float | None = None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        seconds, tokens = self.stopwatch.lap() if "loss" in (logs or {}) else (0.0, 0)
        if not tokens:
            return
        if self.matrix_product_rate is None:
            self.matrix_product_rate = matrix_product_rate(*self.machine)
        used = tokens / seconds * self.plan["operations_per_token"] / self.matrix_product_rate
        measured = {
            "tokens_per_second": round(tokens / seconds, 1),
            "model_flops_utilization": round(used, 4),
            "peak_memory_bytes": peak_memory_bytes(),
        }
        logs |= measured  # what the callbacks after this one see, and what is kept
        state.log_history[-1] |= measured


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
            speed = self.stopwatch.tokens_per_second
            say(f"       {duration(seconds)} to go at {speed:,.0f} tokens/s")


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
