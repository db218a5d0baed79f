"""Step 7: train, and save the best model as a plain Hugging Face folder.

Ctrl-C saves a checkpoint; the same command goes on from it. On several cards:
torchrun --nproc_per_node 4 train_model.py. Leaves train_model.json, model/,
checkpoints/, log_history.jsonl.
"""

from __future__ import annotations

if __name__ == "__main__":  # from the shell: go on where the libraries are
    __import__("install_libraries").enter_environment()

import shutil
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configure_trainer import read_trainer
from create_dataset import is_on_conversations
from load_gpt2 import read_gpt2
from toolkit.run.command import Interrupted, UserError, command
from toolkit.run.console import say
from toolkit.run.files import remove
from toolkit.run.lazily import lazily
from toolkit.run.options import flag
from toolkit.run.processes import is_first_process, told_by_first
from toolkit.run.run_directory import RunDirectory, Step
from toolkit.run.start import parse
from toolkit.training.log_history import LOG
from train_test_split import read_own_tokenizer

with lazily():
    from transformers import PreTrainedTokenizerFast, TrainerState

    from toolkit.corpus.conversations import give_template
    from toolkit.model import gpt2
    from toolkit.model.forward import GPT2LMHeadModel
    from toolkit.model.tokenizer_files import save_tokenizer
    from toolkit.model.trainable import copy_adapter, open_checkpoint
    from toolkit.training.checkpoints import find_checkpoint, settle_best, step_of
    from toolkit.training.memory import (
        give_back_freed_memory,
        keep_freed_memory,
        out_of_memory_refused,
        peak_memory_bytes,
    )
    from toolkit.training.outcome import describe, results_of
    from toolkit.training.same_training import made_now, settings_of
    from toolkit.training.stream_position import resume_stream
    from toolkit.training.trackers import complaints_of_tracker_refused
    from toolkit.training.trainer import PipelineTrainer


@dataclass
class TrainOptions:
    """step 7, train_model"""

    resume: str = flag(
        "auto",
        "auto: from the newest whole checkpoint of this very configuration; never: anew; or a "
        "checkpoint folder",
        recorded=False,
    )

    def __post_init__(self) -> None:
        if not self.resume:
            raise ValueError("--resume must be auto, never or a checkpoint folder")

    def refuse_impossible(self, model: dict[str, Any], run: RunDirectory) -> None:
        """Refuse a checkpoint that is not there, before the steps that come first."""
        if self.resume not in ("auto", "never") and not Path(self.resume).is_dir():
            raise UserError(f"--resume {self.resume}: no such checkpoint folder")


def train_model(
    trainer: PipelineTrainer,
    tokenizer: PreTrainedTokenizerFast,
    options: TrainOptions,
    run: RunDirectory,
) -> GPT2LMHeadModel:
    """Return the trained model, as of its best validation, ready to evaluate."""
    with run.step(__file__, options, after="configure_trainer") as step:
        settings = settings_of(run)
        checkpoint = find_checkpoint(run.path / "checkpoints", settings, options.resume)
        resumed_from = step_of(checkpoint) if checkpoint else None
        made = made_now(checkpoint, resumed_from, settings)
        told_by_first(str(checkpoint) if checkpoint else None)
        step.earlier_is_intact = (
            False  # from here on the earlier run's checkpoints and log are gone
        )
        trainer.checkpoint_state.made_for = made
        train_from(checkpoint, trainer)
        if trainer.interruption.came and trainer.state.global_step < trainer.state.max_steps:
            raise Interrupted(how_to_go_on(trainer.state, options))
        trainer.let_go()
        model = best_model(trainer.state, run)
        save_model(model, tokenizer, trainer.state, step, run)
        shutil.copyfile(run.path / LOG, step.file(LOG, measured=True))
        step.results = results_of(trainer, made["continued"])
        step.measured = measure(trainer) | {"resumed_from": resumed_from}
        if trainer.tracked_run:
            step.measured["tracker_run"] = trainer.tracked_run.where(trainer.args)
        speed = step.measured["tokens_per_second"]
        step.summary = describe(step.results, speed, run)
    return model


def how_to_go_on(state: TrainerState, options: TrainOptions) -> str:
    again = options.resume == "auto"
    command = "the same command" if again else "the same without --resume and --force"
    return (
        f"stopped at step {state.global_step:,} of {state.max_steps:,} and saved; "
        f"{command} goes on from there"
    )


def save_model(
    model: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerFast,
    state: TrainerState,
    step: Step,
    run: RunDirectory,
) -> None:
    """Write model/, and adapter/ where adapters were trained."""
    folder = step.folder("model")
    if run.record("configure_trainer")["options"]["lora_rank"]:
        copy_adapter(Path(state.best_model_checkpoint), step.folder("adapter"))
    else:
        remove(run.path / "adapter")  # of an earlier run with --lora_rank
    gpt2.fit_model(model, tokenizer).save_pretrained(folder)
    if is_on_conversations(run):
        give_template(tokenizer)
    save_tokenizer(tokenizer, folder)


def train_along(trainer: PipelineTrainer) -> None:
    """Train with the first of several processes, which alone leaves something."""
    checkpoint = told_by_first(None)
    train_from(Path(checkpoint) if checkpoint else None, trainer)


def train_from(checkpoint: Path | None, trainer: PipelineTrainer) -> None:
    resume_stream(trainer, checkpoint)
    if checkpoint and trainer.take_over_ended(checkpoint):
        if is_first_process():
            say("       it had been trained to its end: nothing is trained or logged again")
        return
    give_back_freed_memory()  # what step 6 took to look ahead
    keep_freed_memory()
    try:
        with (
            out_of_memory_refused(trainer.args.per_device_train_batch_size),
            complaints_of_tracker_refused(trainer.tracked_run),
        ):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        trainer.interruption.end()


def read_tuned(run: RunDirectory) -> GPT2LMHeadModel:
    """Return the trained model, on the run's device."""
    return gpt2.open_model(run.artifact("train_model", "model")).to(run.device).eval()


def best_model(state: TrainerState, run: RunDirectory) -> GPT2LMHeadModel:
    """Return the model of the checkpoint with the lowest validation loss, on the run's device."""
    settle_best(state, run.path / "checkpoints")
    if not state.best_model_checkpoint:
        raise UserError(
            f"{run.path / 'checkpoints'}: no whole checkpoint that was validated is left; train "
            "again with: python3 train_model.py --resume never"
        )
    model = open_checkpoint(Path(state.best_model_checkpoint), lambda: read_gpt2(run)[0])
    model.config.use_cache = (
        True  # Trainer turns the cache off, which would make every user's sampling slow
    )
    return model.to(run.device).eval()


def measure(trainer: PipelineTrainer) -> dict[str, float]:
    """Return the speed and memory of the training loop, its first step aside."""
    speed = trainer.stopwatch.tokens_per_second
    if not speed:  # all but a step was done before: as the log says
        logged = [entry.get("tokens_per_second", 0) for entry in trainer.state.log_history]
        speed = statistics.median(list(filter(None, logged)) or [0])
    return {
        "seconds": round(trainer.stopwatch.seconds, 3),
        "tokens_per_second": round(speed),
        "peak_memory_bytes": peak_memory_bytes(),
    }


@command
def main(argv: list[str] | None = None) -> None:
    run, options = parse(argv, TrainOptions, about=__doc__, several_processes=True)
    trainer = read_trainer(run)
    if is_first_process():
        train_model(trainer, read_own_tokenizer(run), options, run)
    else:
        train_along(trainer)


if __name__ == "__main__":
    main()
