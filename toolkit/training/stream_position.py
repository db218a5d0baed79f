"""Where training is in a stream: kept in a Trainer's checkpoints, gone to when it resumes."""

from pathlib import Path
from typing import Any

from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from toolkit.blocks.training_stream import TrainingStream
from toolkit.model.library_internals import KeptInCheckpoints, restore_random_numbers
from toolkit.run.command import UserError
from toolkit.run.processes import process_count
from toolkit.training.library_fields import OF_BLOCKS


class StreamPosition(TrainerCallback, KeptInCheckpoints):
    """Keeps a stream's place in `trainer_state.json`, which a checkpoint gets last and whole."""

    def __init__(self, trainer: Trainer):
        self.trainer, self.block = trainer, 0
        self.checkpoint: Path | None = None  # whose random numbers training is to go on with

    def state(self) -> dict[str, Any]:
        return {"args": {}, "attributes": self.trainer.train_dataset.state_at(self.block)}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.global_step:
            saved = state.stateful_callbacks[type(self).__name__]["attributes"]
            self.trainer.train_dataset.go_to(saved)
            self.block = saved["given"]

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        if self.checkpoint:  # opening the stream has drawn one since the library restored them
            restore_random_numbers(self.trainer, str(self.checkpoint))
            self.checkpoint = None

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        self.block = state.global_step * batch


def follow_stream(trainer: Trainer) -> None:
    """Keep the stream's place in a Trainer's checkpoints. Does nothing to one without a stream."""
    if isinstance(trainer.train_dataset, TrainingStream):
        for field, why in OF_BLOCKS.items():
            if getattr(trainer.args, field):
                raise UserError(f"--trainer {field}: {why}")
        if process_count() > 1:
            raise UserError("a stream is read by one process: train it without torchrun")
        trainer.args.ignore_data_skip = True  # the stream goes to its place itself
        trainer.add_callback(StreamPosition(trainer))


def position_in(trainer: Trainer) -> StreamPosition | None:
    """Return what keeps the place in a Trainer's stream, or None where it has no stream."""
    callbacks = trainer.callback_handler.callbacks
    return next((c for c in callbacks if isinstance(c, StreamPosition)), None)


def resume_stream(trainer: Trainer, checkpoint: Path | None) -> None:
    """Say which checkpoint training is to go on from, before it does."""
    if position := position_in(trainer):
        position.checkpoint = checkpoint


def stream_results(trainer: Trainer) -> dict[str, dict[str, int]]:
    """Return what the stream gave to the training that has ended, for its record."""
    position = position_in(trainer)
    return {"stream": trainer.train_dataset.account(position.block)} if position else {}


def describe_stream(results: dict[str, Any]) -> str:
    """Return what the console says of `stream_results`."""
    if stream := results.get("stream"):
        return (
            f"; {stream['blocks']:,} blocks, of {stream['documents_read']:,} documents and "
            f"{stream['tokens_read']:,} tokens of the stream"
        )
    return ""
