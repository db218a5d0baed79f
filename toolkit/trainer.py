"""The library's Trainer, with what this pipeline promises on top of it."""

import math
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, ProgressCallback, Trainer

from toolkit.command import UserError
from toolkit.compute_rate import matrix_product_rate
from toolkit.console import say
from toolkit.log_history import LogHistory
from toolkit.memory import peak_memory_bytes
from toolkit.processes import average_gradients
from toolkit.scoring import score_blocks
from toolkit.trainable import plain_model
from toolkit.training_callbacks import (
    AfterEachStep,
    EarlyStopping,
    KeepBestAndLast,
    SaveOnSignal,
    StopWhenDiverged,
)
from toolkit.training_pace import Forecast, Stopwatch, TrainingBar
from toolkit.training_plan import tokens_after
from toolkit.training_twin import TrainingTwin


class PipelineTrainer(Trainer):
    """A Trainer that is fast, and whose losses are true means per token.

    Forward and backward run through a `TrainingTwin`, which never holds full logits. Stock
    evaluation averages the means of batches, holds full logits, and draws a random number, so that
    dropout differs afterwards; this one does not disturb the training.
    """

    def __init__(
        self,
        *args: Any,
        plan: dict[str, Any],
        history_path: Path,
        precision: str,
        compiled: bool = False,
        patience: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.plan = plan
        self.precision, self.compiled = precision, compiled
        if plain_model(
            self.model
        ).config.tie_word_embeddings:  # resuming, the library takes it for missing
            self.model._keys_to_ignore_on_save = ["lm_head.weight"]
        self.twin: TrainingTwin | None = None
        self.rows_at_once = self.args.per_device_train_batch_size
        self.batches: list[dict[str, torch.Tensor]] = []  # micro-batches of the present step
        self.step_of_batches = -1
        self.matrix_product_rate: float | None = None
        self.stopwatch, self.interruption = Stopwatch(), SaveOnSignal()
        for stock in (ProgressCallback, PrinterCallback):
            self.remove_callback(stock)
        for callback in (
            AfterEachStep(self.refresh_twin),
            self.stopwatch,
            self.interruption,
            StopWhenDiverged(plain_model(self.model).config.vocab_size),
            Forecast(self.stopwatch, plan),
            KeepBestAndLast(),
            TrainingBar(),
            LogHistory(history_path),
        ):
            self.add_callback(callback)
        if patience:
            self.add_callback(EarlyStopping(patience))

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Add a micro-batch's gradients; return its share of the step's mean loss, in nats.

        Where a card's memory does not suffice, the micro-batch is halved from here on, and the
        step's gradients are taken anew: the effective batch stays what it was.
        """
        if self.twin is None:  # only now are a checkpoint's weights in the model
            self.twin = TrainingTwin(self.model, self.precision, self.compiled)
        if self.step_of_batches != self.state.global_step:
            self.step_of_batches, self.batches = self.state.global_step, []
        self.batches.append(self._prepare_inputs(inputs))
        again = self.batches[-1:]
        while True:
            try:
                for batch in again:
                    loss = self.backward(batch, num_items_in_batch)
                break
            except torch.OutOfMemoryError:
                self.halve_micro_batch()
                again = self.batches
        if self.accelerator.sync_gradients and self.accelerator.num_processes > 1:
            average_gradients(self.model)
        return loss

    def backward(self, batch: dict[str, torch.Tensor], count: torch.Tensor) -> torch.Tensor:
        """Take the gradients of a micro-batch, `rows_at_once` rows at a time."""
        total = torch.zeros((), device=self.args.device)
        rows = self.rows_at_once
        for parts in zip(
            *(batch[name].split(rows) for name in ("input_ids", "labels")), strict=True
        ):
            loss = self.twin.loss(*parts, count) * self.accelerator.num_processes
            self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def halve_micro_batch(self) -> None:
        if self.rows_at_once == 1:
            raise UserError(
                "out of memory with a micro-batch of one block: choose a shorter --block_size, "
                "--trainable_blocks, --lora_rank or a smaller --model"
            )
        self.rows_at_once = math.ceil(self.rows_at_once / 2)
        say(
            f"       out of memory: going on with micro-batches of {self.rows_at_once}; the "
            "effective batch stays the same"
        )
        self.model.zero_grad()
        torch.cuda.empty_cache()

    def refresh_twin(self) -> None:
        self.twin.refresh()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, and beside a training loss the speed and memory of the steps since the last one."""
        seconds, steps = self.stopwatch.lap() if "loss" in logs else (0.0, 0)
        if steps:
            if self.matrix_product_rate is None:
                self.matrix_product_rate = matrix_product_rate(
                    self.args.device.type, self.precision
                )
            last = self.state.global_step
            tokens = tokens_after(last, self.plan) - tokens_after(last - steps, self.plan)
            speed = tokens / seconds
            used = speed * self.plan["operations_per_token"] / self.matrix_product_rate
            logs |= {
                "tokens_per_second": round(speed, 1),
                "model_flops_utilization": round(used, 4),
                "peak_memory_bytes": peak_memory_bytes(),
            }
        super().log(logs, start_time)

    def evaluate(self, eval_dataset: Dataset | None = None, *_: Any, **__: Any) -> dict[str, float]:
        """Return `eval_loss`: mean nats per predicted token over the whole validation split."""
        blocks = self.eval_dataset if eval_dataset is None else eval_dataset
        self.model.eval()
        sums = score_blocks(self.model, blocks, self.data_collator, self.precision, "validating")
        self.model.train()
        metrics = {"eval_loss": sums["nats"] / sums["tokens"]}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics
