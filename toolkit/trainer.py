"""The library's Trainer, with what this pipeline promises on top of it."""

from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PrinterCallback, ProgressCallback, Trainer

from toolkit.log_history import LogHistory
from toolkit.scoring import score_blocks
from toolkit.training_callbacks import (
    EarlyStopping,
    KeepBestAndLast,
    SaveOnSignal,
    Stopwatch,
    TrainingBar,
)


class PipelineTrainer(Trainer):
    """A Trainer whose validation loss is the true mean per token, at no cost to the training.

    Stock evaluation averages the means of batches, holds full logits, and draws a random number, so
    that dropout differs afterwards.
    """

    def __init__(
        self,
        *args: Any,
        history_path: Path,
        precision: str,
        patience: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.precision = precision
        if self.model.config.tie_word_embeddings:  # resuming, the library takes it for missing
            self.model._keys_to_ignore_on_save = ["lm_head.weight"]
        self.stopwatch, self.interruption = Stopwatch(), SaveOnSignal()
        for stock in (ProgressCallback, PrinterCallback):
            self.remove_callback(stock)
        for callback in (
            self.stopwatch,
            self.interruption,
            KeepBestAndLast(),
            TrainingBar(),
            LogHistory(history_path),
        ):
            self.add_callback(callback)
        if patience:
            self.add_callback(EarlyStopping(patience))

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
