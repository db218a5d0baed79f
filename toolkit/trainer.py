"""The library's Trainer, with what this pipeline promises on top of it."""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, ProgressCallback, Trainer

from toolkit.log_history import LogHistory
from toolkit.scoring import score_blocks
from toolkit.training_callbacks import (
    AfterEachStep,
    EarlyStopping,
    KeepBestAndLast,
    SaveOnSignal,
    Stopwatch,
    TrainingBar,
)
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
        history_path: Path,
        precision: str,
        compiled: bool = False,
        patience: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.precision, self.compiled = precision, compiled
        if self.model.config.tie_word_embeddings:  # resuming, the library takes it for missing
            self.model._keys_to_ignore_on_save = ["lm_head.weight"]
        self.twin: TrainingTwin | None = None
        self.stopwatch, self.interruption = Stopwatch(), SaveOnSignal()
        for stock in (ProgressCallback, PrinterCallback):
            self.remove_callback(stock)
        for callback in (
            AfterEachStep(self.refresh_twin),
            self.stopwatch,
            self.interruption,
            KeepBestAndLast(),
            TrainingBar(),
            LogHistory(history_path),
        ):
            self.add_callback(callback)
        if patience:
            self.add_callback(EarlyStopping(patience))

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return this micro-batch's share of the step's mean loss, in nats per predicted token."""
        if self.twin is None:  # only now are a checkpoint's weights in the model
            self.twin = TrainingTwin(self.model, self.precision, self.compiled)
        return self.twin.loss(inputs, num_items_in_batch) * self.accelerator.num_processes

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Take one micro-batch; after a step's last, average the gradients over the processes."""
        loss = super().training_step(*args, **kwargs)
        if self.accelerator.num_processes > 1 and self.accelerator.sync_gradients:
            for weight in self.model.parameters():
                if weight.grad is not None:
                    torch.distributed.all_reduce(weight.grad)
                    weight.grad /= self.accelerator.num_processes
        return loss

    def refresh_twin(self) -> None:
        self.twin.refresh()

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
