"""What a checkpoint holds beside weights and log, so that training goes on bit for bit."""

import json
import random
from pathlib import Path
from typing import Any

import numpy
import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from toolkit.model.library_internals import loss_since_logged, restore_loss_since_logged
from toolkit.run.processes import wait_for_all
from toolkit.training.checkpoints import settle_best
from toolkit.training.manifest import PROCESS, end_checkpoint
from toolkit.training.same_training import MADE_FOR
from toolkit.training.state_files import read_state, write_state

OPTIMIZER = "optimizer"


class CheckpointState(TrainerCallback):
    """Writes what the library would pickle as safetensors, and then the manifest; reads it back.

    `checkpoint`: the one that training goes on from, if any. `made_for`: the training that its
    own belong to, see `made_now`.
    """

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self.checkpoint: Path | None = None
        self.made_for: dict[str, Any] | None = None

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        wait_for_all()  # the first process makes the folder
        loss, logged = loss_since_logged(self.trainer)
        own = {"random": random_numbers(), "loss_since_logged": loss, "last_logged": logged}
        write_state(folder / f"{PROCESS}_{args.process_index}", own)
        if args.should_save:
            write_state(folder / OPTIMIZER, self.of_optimizer())
            if self.made_for:
                (folder / MADE_FOR).write_text(json.dumps(self.made_for, indent=1))
        wait_for_all()
        if args.should_save:
            end_checkpoint(folder)

    def of_optimizer(self) -> dict[str, Any]:
        scheduler, scaler = self.trainer.lr_scheduler, self.scaler
        return {
            "optimizer": self.trainer.optimizer.state_dict(),
            "schedule": type(scheduler).__name__,
            "scheduler": scheduler.state_dict(),
            "scaler": scaler.state_dict() if scaler else None,
        }

    @property
    def scaler(self) -> Any:
        return getattr(self.trainer.accelerator, "scaler", None)  # that of gradients in fp16

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self.checkpoint is None:
            return
        settle_best(state, Path(args.output_dir))
        kept, scheduler = read_state(self.checkpoint / OPTIMIZER), self.trainer.lr_scheduler
        self.trainer.optimizer.load_state_dict(kept["optimizer"])
        if kept["schedule"] == type(scheduler).__name__:
            scheduler.load_state_dict(kept["scheduler"])
        else:  # another kind begins at its peak, or where it would be at this step
            for group in self.trainer.optimizer.param_groups:
                group["lr"] = args.learning_rate
            scheduler.last_epoch = state.global_step if isinstance(scheduler, LambdaLR) else 0
        if self.scaler and kept["scaler"]:
            self.scaler.load_state_dict(kept["scaler"])
        own = self.of_process()
        restore_loss_since_logged(self.trainer, own["loss_since_logged"], own["last_logged"])

    def of_process(self) -> dict[str, Any]:
        return read_state(self.checkpoint / f"{PROCESS}_{self.trainer.args.process_index}")

    def restore_random_numbers(self) -> None:
        """Set every generator to where it was when the checkpoint was written."""
        kept = self.of_process()["random"]
        random.setstate(kept["python"])
        numpy.random.set_state(kept["numpy"])
        torch.random.set_rng_state(kept["cpu"])
        if torch.cuda.is_available() and "cuda" in kept:
            torch.cuda.random.set_rng_state(kept["cuda"])


def random_numbers() -> dict[str, Any]:
    """Return the state of every generator that training may draw from, in this process."""
    name, keys, *rest = numpy.random.get_state()
    kept = {
        "python": random.getstate(),
        "numpy": (name, keys.tolist(), *rest),
        "cpu": torch.random.get_rng_state(),
    }
    if torch.cuda.is_available():
        kept["cuda"] = torch.cuda.random.get_rng_state()
    return kept
