"""Stop training before a number of minutes is over, validated and saved."""

import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from toolkit.run.processes import any_process

MARGIN = 1.2  # of what the last step, validation and saving took, for they vary


class StopInTime(TrainerCallback):
    """Stop where another step, a validation and saving after it would end too late.

    They are taken to last as they did the last time. The validation is one that the plan has not,
    so that the model as it stopped may be the best. `came`: whether the time was over.
    """

    def __init__(self, minutes: float, plan: dict[str, Any]):
        self.seconds_allowed, self.came = 60 * minutes, False
        self.validation_in_steps = plan["tokens_per_validation"] / plan["tokens_per_step"] / 3
        self.spent: dict[str, float] = {}
        self._began = self._since = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._began = self._since = time.perf_counter()

    def lap(self, what: str) -> float:
        """Note how long something took, and return the seconds since training began."""
        now = time.perf_counter()
        self.spent[what], self._since = now - self._since, now
        return now - self._began

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        seconds, spent = self.lap("step"), self.spent
        validation = spent.get("validation", spent["step"] * self.validation_in_steps)
        ending = validation + spent.get("save", validation) + spent.get("log", 0.0)
        still = spent["step"] + spent["between"] + ending
        if control.should_evaluate or control.should_save:  # this step, and the next again
            still += ending
        is_over = seconds + MARGIN * still > self.seconds_allowed
        if any_process(is_over, args.device) and state.global_step < state.max_steps:
            self.came = True
            control.should_evaluate = control.should_save = control.should_training_stop = True

    def on_log(self, *_: Any, logs: dict[str, float] | None = None, **__: Any) -> None:
        if "loss" in (logs or {}):  # what validation logs is part of it
            self.lap("log")

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.lap("between")

    def on_evaluate(self, *_: Any, **__: Any) -> None:
        self.lap("validation")

    def on_save(self, *_: Any, **__: Any) -> None:
        self.lap("save")
