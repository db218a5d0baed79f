"""What happens beside training steps: stopping, early or when asked to, and keeping checkpoints."""

import math
import shutil
import signal
from pathlib import Path
from typing import Any

from torch.optim.lr_scheduler import LambdaLR
from transformers import (
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from toolkit.model.kernels import Kernels
from toolkit.run.command import UserError
from toolkit.run.processes import any_process
from toolkit.training.checkpoints import newest_first
from toolkit.training.log_history import as_line

SETTINGS = {"betas", "eps", "momentum"}  # of optimizers, but for rate and decay


class RefreshCopies(TrainerCallback):
    """Let the copies of weights in the run's precision follow the weights."""

    def __init__(self, kernels: Kernels):
        self.kernels = kernels

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        self.kernels.refresh()

    on_train_begin = on_optimizer_step  # a checkpoint's weights may have come


class ObeyThePlan(TrainerCallback):
    """Train by this run's rate, decay, schedule and intervals where a checkpoint brought its own.

    The library loads settings with an optimizer's state: with `--resume CHECKPOINT --learning_rate
    1e-5` it would go on at the checkpoint's rate, while every record says 1e-5. So with
    `logging_steps`, `eval_steps` and `save_steps`.
    """

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: Any,
        lr_scheduler: Any,
        **_: Any,
    ) -> None:
        state.compute_steps(args, state.max_steps)
        optimizer = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps both
        scheduler = getattr(lr_scheduler, "scheduler", lr_scheduler)
        for group, decay in zip(optimizer.param_groups, (args.weight_decay, 0.0), strict=True):
            group |= {name: optimizer.defaults[name] for name in SETTINGS & group.keys()}
            group["weight_decay"] = decay
        if isinstance(scheduler, LambdaLR):
            peaks = [args.learning_rate] * len(optimizer.param_groups)
            rates = [
                p * f(scheduler.last_epoch)
                for p, f in zip(peaks, scheduler.lr_lambdas, strict=True)
            ]
            state_of_it = {**scheduler.state_dict(), "base_lrs": peaks, "_last_lr": rates}
            scheduler.load_state_dict(state_of_it)
            for group, peak, rate in zip(optimizer.param_groups, peaks, rates, strict=True):
                group |= {"initial_lr": peak, "lr": rate}


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
        control.should_training_stop |= self.is_over(state)

    def is_over(self, state: TrainerState) -> bool:
        losses = [entry["eval_loss"] for entry in state.log_history if "eval_loss" in entry]
        since_best = len(losses) - 1 - losses.index(min(losses)) if losses else 0
        return since_best >= self.patience


class KeepBestAndLast(TrainerCallback):
    """Save at every new best validation, whatever `save_steps` says; keep that and the newest.

    Where they are one, keep the one before, too: should the newest be damaged, not all is lost.
    """

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict,
        **_: Any,
    ) -> None:
        better = state.best_metric is None or metrics["eval_loss"] < state.best_metric
        if state.global_step and better:  # not so what is untrained
            control.should_save = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        best = f"checkpoint-{state.best_global_step}"
        others = newest_first(Path(args.output_dir), before=state.global_step)
        others.sort(key=lambda checkpoint: checkpoint.name != best)  # without it the one before
        for checkpoint in others[1:]:
            shutil.rmtree(checkpoint)


class SaveOnSignal(TrainerCallback):
    """On Ctrl-C or SIGTERM, finish the step, save and stop; on a second Ctrl-C, stop at once.

    `saves`: False where there is nothing to go on from.
    """

    def __init__(self) -> None:
        self.came, self.saves = False, True
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
        self.end()

    def end(self) -> None:
        """Leave signals to whom they were before; a training that fails does not end itself."""
        while self._earlier:
            signal.signal(*self._earlier.popitem())

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if any_process(self.came, args.device):
            self.came = True
            control.should_save, control.should_training_stop = self.saves, True

    def _note(self, *_: Any) -> None:
        if self.came:
            raise KeyboardInterrupt
        self.came = True


class LogHistory(TrainerCallback):
    """Write what Trainer logs to a file of JSON lines, each line flushed when it is known."""

    def __init__(self, path: Path):
        self.path = path

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.is_world_process_zero:
            self.write(state)

    def write(self, state: TrainerState) -> None:
        self.path.write_text("".join(as_line(entry) for entry in state.log_history))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.is_world_process_zero:
            with self.path.open("a") as file:
                file.write(as_line(state.log_history[-1]))
