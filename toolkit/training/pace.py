"""How fast training goes, how long it will take, and the bar that shows it."""

import math
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

from toolkit.training.compute_rate import matrix_product_rate
from toolkit.training.memory import peak_memory_bytes
from toolkit.training.token_count import TokenCount


class Stopwatch(TrainerCallback):
    """Seconds of the training loop without evaluating, saving, and the first step (warm-up).

    `steps`: those that were timed; `tokens`: theirs, of text. `validation_seconds`: of the latest
    validation.
    """

    def __init__(self, count: TokenCount) -> None:
        self.count = count
        self.seconds, self.steps, self.tokens = 0.0, -1, 0
        self.validation_seconds = math.nan
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

    def go_on(self, *_: Any, **__: Any) -> None:
        """Leave out what has happened since the step ended."""
        self._since = time.perf_counter()

    on_log = on_evaluate = on_save = go_on


class Speedometer(TrainerCallback):
    """Add to each training loss in the log the speed and memory of the steps since the last one."""

    def __init__(self, stopwatch: Stopwatch, plan: dict[str, Any], device: str, precision: str):
        self.stopwatch, self.plan, self.machine = stopwatch, plan, (device, precision)
        self.matrix_product_rate = 0.0

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
        measured = {
            "tokens_per_second": round(tokens / seconds, 1),
            **self.utilization(tokens / seconds * self.plan["operations_per_token"]),
            "peak_memory_bytes": peak_memory_bytes(),
        }
        logs |= measured  # what the callbacks after this one see, and what is kept
        state.log_history[-1] |= measured

    def utilization(self, rate: float) -> dict[str, float]:
        """Return the share of the machine's matrix-product rate that a rate is.

        Above 1 the machine was slowed down by others while its own rate was measured: it is
        measured again, and where that does not mend it nothing is logged.
        """
        if rate > self.matrix_product_rate:
            again = matrix_product_rate(*self.machine)
            self.matrix_product_rate = max(again, self.matrix_product_rate)
        used = round(rate / self.matrix_product_rate, 4)
        return {"model_flops_utilization": used} if used <= 1 else {}


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
