"""The library's Trainer, with what this pipeline promises on top of it."""

import logging
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.optim.lr_scheduler import LRScheduler
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerState
from transformers.trainer_utils import TrainOutput

from toolkit.model.kernels import choose_kernels
from toolkit.model.library_internals import not_missing_in_checkpoints
from toolkit.model.precision import autocast
from toolkit.model.trainable import plain_model
from toolkit.run.command import UserError
from toolkit.scoring.losses import score_blocks
from toolkit.training.callbacks import (
    EarlyStopping,
    KeepBestAndLast,
    LogHistory,
    ObeyThePlan,
    RefreshCopies,
    SaveOnSignal,
    StopWhenDiverged,
)
from toolkit.training.checkpoint_state import CheckpointState
from toolkit.training.forecast import Forecast
from toolkit.training.library_fields import IGNORED
from toolkit.training.manifest import begin_checkpoint
from toolkit.training.memory import give_back_freed_memory
from toolkit.training.pace import Speedometer, Stopwatch, TrainingBar
from toolkit.training.schedule import make_schedule
from toolkit.training.time_limit import StopInTime
from toolkit.training.token_count import TokenCount
from toolkit.training.trackers import TrackedRun


class PipelineTrainer(Trainer):
    """A Trainer that is fast, and whose losses are true means per token.

    Everything that is replaced of the library's:
    - `compute_loss`: the model's own forward pass (`toolkit/model/forward.py`) gives the loss,
      because stock training mis-scales GPT-2's and holds full logits, several times.
    - `create_scheduler`: the first step trains, too: stock warmup begins with a rate of 0.
    - `save_model`: weights alone; the library would pickle its arguments, which step 6 records.
    - `train`, `_load_rng_state`: a checkpoint's state is read from safetensors, not from pickles.
    - `evaluate`: validation sums over all tokens (`toolkit/scoring/losses.py`), because stock
      evaluation averages the means of batches, holds full logits, and draws a random number, so
      that dropout differs afterwards.
    Everything that is added is a callback:
    - `CheckpointState`: what a checkpoint holds beside weights and log, and its manifest.
    - `ObeyThePlan`: a checkpoint's state does not bring back the rate it was made with.
    - `RefreshCopies`: copies of weights in bf16 are made once a step, not at every use.
    - `TokenCount`, `Stopwatch`, `Speedometer`, `Forecast`, `TrainingBar` (for the library's two):
      honest counts and speeds, of tokens of text.
    - `LogHistory`: the log as a file; `TrackedRun`: a tracker goes on in the run it began.
    - `SaveOnSignal`, `StopInTime`: Ctrl-C and --max_minutes lose nothing.
    - `StopWhenDiverged`, `EarlyStopping`, `KeepBestAndLast`: the best model is kept, disk is not.
    """

    def __init__(
        self,
        *args: Any,
        plan: dict[str, Any],
        history_path: Path,
        precision: str,
        compiled: bool = False,
        patience: int | None = None,
        max_minutes: float | None = None,
        **kwargs: Any,
    ):
        refuse_ignored(kwargs)
        super().__init__(*args, **kwargs)
        logging.getLogger("transformers.trainer_utils").addFilter(is_true)
        model, device = plain_model(self.model), self.args.device.type
        self.precision = precision
        self.kernels = choose_kernels(device, precision, "training")
        self.loss_is_scaled_for_ga = True  # by the tokens of all micro-batches
        if model.config.tie_word_embeddings:  # resuming, the library takes it for missing
            not_missing_in_checkpoints(self.model, ["lm_head.weight"])
        if compiled:
            model.compile_body()
        self.token_count, self.interruption = TokenCount(), SaveOnSignal()
        self.stopwatch = Stopwatch(self.token_count)
        self.checkpoint_state = CheckpointState(self)
        self.log_file, self.early_stopping = LogHistory(history_path), None
        for stock in (ProgressCallback, PrinterCallback):
            self.remove_callback(stock)
        for callback in (
            RefreshCopies(self.kernels),
            self.checkpoint_state,
            ObeyThePlan(),
            self.token_count,
            self.stopwatch,
            self.interruption,
            StopWhenDiverged(model.config.vocab_size),
            Forecast(self.stopwatch, plan),
            KeepBestAndLast(),
            TrainingBar(),
            self.log_file,
        ):
            self.add_callback(callback)
        if patience:
            self.early_stopping = EarlyStopping(patience)
            self.add_callback(self.early_stopping)
        self.time_limit = StopInTime(max_minutes, plan) if max_minutes else None
        if max_minutes:
            self.add_callback(self.time_limit)
        # Before all others, trackers among them, so that they see what it adds to the log.
        speedometer = Speedometer(self.stopwatch, plan, device, precision)
        self.callback_handler.callbacks.insert(0, speedometer)
        trackers = [name for name in self.args.report_to if name != "none"]
        self.tracked_run = TrackedRun(trackers[0]) if trackers else None
        if self.tracked_run:
            self.callback_handler.callbacks.insert(0, self.tracked_run)

    def train(self, resume_from_checkpoint: str | None = None, **kwargs: Any) -> TrainOutput:
        self.checkpoint_state.checkpoint = resume_from_checkpoint and Path(resume_from_checkpoint)
        self.args.eval_on_start &= not resume_from_checkpoint  # else it is in the log already
        return super().train(resume_from_checkpoint, **kwargs)

    def save_model(self, output_dir: str | None = None, *_: Any, **__: Any) -> None:
        if self.args.should_save:
            begin_checkpoint(Path(output_dir))
            self.model.save_pretrained(output_dir)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint:
            self.checkpoint_state.restore_random_numbers()

    def take_over_ended(self, checkpoint: Path) -> bool:
        """Tell whether training had ended at a checkpoint, and if so take over its state.

        Trained on from there, the library's Trainer takes a step more.
        """
        state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        stopped = self.early_stopping is not None and self.early_stopping.is_over(state)
        if state.global_step < self.args.max_steps and not stopped:
            return False
        self.state = state
        self.token_count.on_train_begin(self.args, state, self.control)
        if self.tracked_run:
            self.tracked_run.remember(state)
        if self.is_world_process_zero():
            self.log_file.write(state)
        return True

    def let_go(self) -> None:
        """Free what only training needs: two moments, gradients and copies of the weights."""
        self.optimizer = self.lr_scheduler = None
        self.callback_handler.optimizer = self.callback_handler.lr_scheduler = None
        self.accelerator.free_memory()
        self.model.zero_grad(set_to_none=True)
        self.kernels.copies.clear()
        give_back_freed_memory()

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return a micro-batch's share of the step's mean loss, in nats per predicted token.

        `num_items_in_batch`: the tokens that the step predicts, in all processes, whose gradients
        are averaged and not summed: hence the factor.
        """
        names = ("input_ids", "labels")
        self.token_count.note(inputs["labels"])
        with autocast(self.args.device.type, self.precision):  # for adapters; kernels know theirs
            loss = model(
                **{name: inputs[name] for name in names},
                count=num_items_in_batch,
                kernels=self.kernels,
            )
        return loss * self.accelerator.num_processes

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> LRScheduler:
        if self.lr_scheduler is None:
            kind, kwargs = self.args.lr_scheduler_type, self.args.lr_scheduler_kwargs or {}
            warmup, steps = self.args.get_warmup_steps(num_training_steps), num_training_steps
            optimizer = optimizer or self.optimizer
            self.lr_scheduler = make_schedule(optimizer, kind, warmup, steps, kwargs)
        return self.lr_scheduler

    def evaluate(
        self, eval_dataset: Dataset | dict[str, Dataset] | None = None, *_: Any, **__: Any
    ) -> dict[str, float]:
        """Return `eval_loss`: mean nats per predicted token over the whole validation split.

        Of several sets, by name, it is that over all of them; `eval_NAME_loss` is that of each.
        """
        given = self.eval_dataset if eval_dataset is None else eval_dataset
        sets = given if isinstance(given, dict) else {"": given}
        self.model.eval()
        model, began = plain_model(self.model), time.perf_counter()
        found = {
            name: score_blocks(model, blocks, self.data_collator, self.precision, "validating")
            for name, blocks in sets.items()
        }
        self.model.train()
        give_back_freed_memory()
        self.stopwatch.validation_seconds = time.perf_counter() - began
        total = {key: sum(sums[key] for sums in found.values()) for key in ("nats", "tokens")}
        metrics = {"eval_loss": total["nats"] / total["tokens"]}
        metrics |= {f"eval_{n}_loss": s["nats"] / s["tokens"] for n, s in found.items() if n}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics


def refuse_ignored(given: dict[str, Any]) -> None:
    """Refuse what the library's Trainer takes and this one would not heed."""
    for name, why in IGNORED.items():
        if given.get(name) is not None:
            raise UserError(f"PipelineTrainer({name}=...): not here: {why}")


def is_true(record: logging.LogRecord) -> bool:
    """Keep back the library's warning that a checkpoint's intervals are obeyed: see ObeyThePlan."""
    return "do not match the ones in the `trainer_state.json`" not in record.getMessage()
