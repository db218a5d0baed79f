"""Step 6: set up the Trainer, and say beforehand what training will do.

Leaves configure_trainer.json.
"""

from __future__ import annotations

if __name__ == "__main__":  # from the shell: go on where the libraries are
    __import__("install_libraries").enter_environment()

import copy
from dataclasses import dataclass, replace
from typing import Any, Literal

from load_gpt2 import read_gpt2
from toolkit.run.command import UserError, command
from toolkit.run.lazily import lazily
from toolkit.run.options import build, flag, require_ranges
from toolkit.run.processes import take_own_card
from toolkit.run.run_directory import RunDirectory
from toolkit.run.start import parse
from toolkit.training.log_history import LOG
from toolkit.training.plan import WITHOUT_WARMUP, Schedule
from train_test_split import read_splits

with lazily():
    import torch

    from toolkit.blocks.collator import collate
    from toolkit.blocks.training_stream import Splits
    from toolkit.model.forward import GPT2LMHeadModel
    from toolkit.model.trainable import (
        add_adapters,
        refuse_more_blocks,
        require_peft,
        train_last_blocks,
    )
    from toolkit.training.arguments import refuse_what_the_library_would, training_arguments
    from toolkit.training.learning_rate_trials import pick_learning_rate
    from toolkit.training.plan import describe_plan, make_plan
    from toolkit.training.stream_position import follow_stream
    from toolkit.training.trackers import prepare_tracker, require_tracker
    from toolkit.training.trainer import PipelineTrainer


@dataclass
class TrainerOptions:
    """step 6, configure_trainer"""

    num_train_epochs: float | None = flag(
        None,
        "passes over the training blocks (default: 3; small models: 2; from scratch: 8)",
        above=0,
    )
    max_steps: int | None = flag(None, "optimizer steps, instead of epochs", above=0)
    max_minutes: float | None = flag(
        None,
        "stop training in so many minutes, saved and validated, with the best model so far; step 7 "
        "alone goes on",
        above=0,
    )
    per_device_train_batch_size: int | Literal["auto"] = flag(
        4,
        "blocks a micro-batch; auto: as many as fit into memory, the effective batch kept at 4",
        above=0,
    )
    gradient_accumulation_steps: int = flag(1, "micro-batches an optimizer step", above=0)
    learning_rate: float | Literal["auto"] | None = flag(
        None,
        "peak; auto: short trials (default: 5e-5; LoRA: 5e-4; small models: 4e-4 and "
        "5e-3; from scratch: 1e-3)",
        above=0,
    )
    warmup_steps: float = flag(
        0.05, "steps of linear warmup; below 1: a share of all steps", at_least=0
    )
    lr_scheduler_type: Schedule = flag("cosine", "how the learning rate goes")
    weight_decay: float = flag(0.1, "AdamW's, on matrices only", at_least=0)
    early_stopping_patience: int | None = flag(
        None, "validations without a new best before stopping (default: never stop)", above=0
    )
    eval_steps: int | None = flag(
        None, "steps between validations (default: up to 10 in all)", above=0
    )
    save_steps: int | None = flag(
        None, "steps between checkpoints; a new best is always saved (default: eval_steps)", above=0
    )
    logging_steps: int | None = flag(
        None, "steps between points of the loss curve (default: 100 points in all)", above=0
    )
    trainable_blocks: int | None = flag(
        None, "train the last N blocks, final norm and head only; freeze the rest", above=0
    )
    lora_rank: int | None = flag(
        None, "train low-rank adapters only, merged into the saved model", above=0
    )
    torch_compile: bool = flag(False, "compile the model (CUDA; the first step takes a minute)")
    report_to: Literal["none", "tensorboard", "wandb", "trackio"] = flag(
        "none", "experiment tracker (install its package)"
    )
    trainer: list[str] | None = flag(
        None, "KEY=VALUE ...: any other field of transformers.TrainingArguments"
    )

    def __post_init__(self) -> None:
        require_ranges(self)
        if self.trainable_blocks and self.lora_rank:
            raise ValueError("--trainable_blocks and --lora_rank: choose one of the two")
        if self.num_train_epochs and self.max_steps:
            raise ValueError(
                "--num_train_epochs and --max_steps both say how long to train: give one"
            )

        warmup = self.warmup_steps not in (0, TrainerOptions.warmup_steps)
        if warmup and self.lr_scheduler_type in WITHOUT_WARMUP:
            raise ValueError(
                f"--warmup_steps {self.warmup_steps:g}: {self.lr_scheduler_type} has no warmup; "
                "leave it out, or take constant_with_warmup"
            )

    def refuse_impossible(self, model: dict[str, Any], run: RunDirectory) -> None:
        """Refuse what cannot be with this model or this machine. `model`: step 3's results."""
        if self.trainable_blocks:
            refuse_more_blocks(self.trainable_blocks, model["n_layer"])
        if self.lora_rank:
            require_peft()
        if self.trainer or self.lr_scheduler_type != "cosine":
            refuse_what_the_library_would(self, run)
        require_tracker(self.report_to)
        if self.torch_compile and run.device != "cuda":
            raise UserError(
                f"--torch_compile is for CUDA: on {run.device} it costs a minute and gains nothing"
            )


def configure_trainer(
    model: GPT2LMHeadModel, splits: Splits, options: TrainerOptions, run: RunDirectory
) -> PipelineTrainer:
    """Return a Trainer ready to train `model` on train blocks and validate on validation blocks."""
    with run.step(__file__, options, after=("load_gpt2", "train_test_split")) as step:
        options.refuse_impossible(run.results("load_gpt2"), run)
        refuse_used(model)
        model = make_trainable(model, options, run.seed).to(run.device)
        plan, step.measured = make_plan(model, options, run)
        if options.learning_rate == "auto":
            elsewhere = RunDirectory(step.scratch(), run.seed, run.device, run.precision)

            untracked = replace(options, report_to="none", max_minutes=None)

            def make_trainer(short: dict[str, Any]) -> PipelineTrainer:
                return build_trainer(copy.deepcopy(model), splits, untracked, short, elsewhere)

            plan |= pick_learning_rate(make_trainer, plan, splits["validation"])
        trainer = build_trainer(model, splits, options, plan, run)
        step.results = plan
        step.summary = describe_plan(plan, step.measured)
    return trainer


def read_trainer(run: RunDirectory) -> PipelineTrainer:
    """Return the Trainer of step 6, built anew from its record, around the untrained model."""
    run.finished("configure_trainer")
    record = run.record("configure_trainer")
    options = build(TrainerOptions, record["options"])
    take_own_card()
    model = make_trainable(read_gpt2(run)[0], options, run.seed).to(run.device)
    return build_trainer(model, read_splits(run), options, record["results"], run)


def refuse_used(model: GPT2LMHeadModel) -> None:
    """Refuse a model that an earlier trainer has: trained, or with frozen blocks, in place.

    Trained further it would be compared with a base that it did not begin from.
    """
    if getattr(model, "has_a_trainer", False):
        raise UserError(
            "this model belongs to an earlier trainer; open it anew: model, _ = read_gpt2(run)"
        )
    model.has_a_trainer = True


def make_trainable(model: GPT2LMHeadModel, options: TrainerOptions, seed: int) -> torch.nn.Module:
    if options.trainable_blocks:
        return train_last_blocks(model, options.trainable_blocks)
    return add_adapters(model, options.lora_rank, seed) if options.lora_rank else model


def build_trainer(
    model: torch.nn.Module,
    splits: Splits,
    options: TrainerOptions,
    plan: dict[str, Any],
    run: RunDirectory,
) -> PipelineTrainer:
    prepare_tracker(options.report_to, run.path)
    trainer = PipelineTrainer(
        model=model,
        args=training_arguments(options, plan, run),
        data_collator=collate,
        train_dataset=splits["train"],
        eval_dataset=splits["validation"],
        plan=plan,
        history_path=run.path / LOG,
        precision=run.precision,
        compiled=options.torch_compile,
        patience=options.early_stopping_patience,
        max_minutes=options.max_minutes,
    )
    follow_stream(trainer)
    return trainer


@command
def main(argv: list[str] | None = None) -> None:
    run, options = parse(argv, TrainerOptions, about=__doc__)
    configure_trainer(read_gpt2(run)[0], read_splits(run), options, run)


if __name__ == "__main__":
    main()
