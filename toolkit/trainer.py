"""The library's Trainer, with what this pipeline promises on top of it."""

from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, ProgressCallback, Trainer

from toolkit.log_history import LogHistory
from toolkit.training_callbacks import (
    EarlyStopping,
    KeepBestAndLast,
    SaveOnSignal,
    Stopwatch,
    TrainingBar,
)


class PipelineTrainer(Trainer):
    """A Trainer whose evaluations draw no random numbers from training.

    With the stock one, dropout differs after an evaluation.
    """

    def __init__(self, *args: Any, history_path: Path, patience: int | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
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

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices):
            return super().evaluate(*args, **kwargs)
