"""Step 6 of 10: set up the Trainer, and say beforehand what training will do.

Leaves configure_trainer.json.
"""

if __name__ == "__main__":  # from the shell: go on where the libraries are
    __import__("install_libraries").enter_environment()

import copy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import SchedulerType

from create_dataset import collate
from import_modules import parse
from load_gpt2 import read_gpt2
from toolkit.model.forward import GPT2LMHeadModel
from toolkit.model.trainable import add_adapters, plain_model, train_last_blocks
from toolkit.run.command import UserError, command
from toolkit.run.options import build, flag, require_ranges
from toolkit.run.processes import take_own_card
from toolkit.run.run_directory import RunDirectory
from toolkit.training import preflight
from toolkit.training.arguments import training_arguments
from toolkit.training.compute_rate import training_operations_per_token
from toolkit.training.learning_rate_trials import pick_learning_rate
from toolkit.training.plan import describe_plan, plan_training
from toolkit.training.stream_position import follow_stream
from toolkit.training.trackers import prepare_tracker
from toolkit.training.trainer import PipelineTrainer
from train_test_split import Splits, read_splits

# What suits a pretrained model, adapters, the two of a small one, and what starts from nothing.
FINE_TUNING = {"num_train_epochs": 3.0, "learning_rate": 5e-5}
ADAPTERS = {"num_train_epochs": 3.0, "learning_rate": 5e-4}
FINE_TUNING_SMALL = {"num_train_epochs": 2.0, "learning_rate": 4e-4}
ADAPTERS_SMALL = {"num_train_epochs": 3.0, "learning_rate": 5e-3}
FROM_SCRATCH = {"num_train_epochs": 8.0, "learning_rate": 1e-3}
SMALL = 20_000_000  # parameters up to which a model is small
EFFECTIVE_BATCH = 4  # blocks of a step, for each of --gradient_accumulation_steps, under auto


@dataclass
class TrainerOptions:
    """step 6, configure_trainer"""

    num_train_epochs: float | None = flag(
        None,
        "passes over the training blocks (default: 3; small models: 2; from scratch: 8)",
        above=0,
    )
    max_steps: int | None = flag(None, "optimizer steps, instead of epochs", above=0)
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
    lr_scheduler_type: str = flag("cosine", "linear, cosine, constant, ...")
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
        kinds = [kind.value for kind in SchedulerType]
        if self.lr_scheduler_type not in kinds:
            raise ValueError(
                f"--lr_scheduler_type must be one of {', '.join(kinds)}, "
                f"got {self.lr_scheduler_type}"
            )
        if self.trainable_blocks and self.lora_rank:
            raise ValueError("--trainable_blocks and --lora_rank: choose one of the two")
        if self.num_train_epochs and self.max_steps:
            raise ValueError(
                "--num_train_epochs and --max_steps both say how long to train: give one"
            )


def configure_trainer(
    model: GPT2LMHeadModel, splits: Splits, options: TrainerOptions, run: RunDirectory
) -> PipelineTrainer:
    """Return a Trainer ready to train `model` on train blocks and validate on validation blocks."""
    with run.step(__file__, options, after=("load_gpt2", "train_test_split")) as step:
        if options.torch_compile and run.device != "cuda":
            raise UserError(
                f"--torch_compile is for CUDA: on {run.device} it costs a minute and gains nothing"
            )
        model = make_trainable(model, options).to(run.device)
        plan, step.measured = make_plan(model, options, run)
        if options.learning_rate == "auto":
            elsewhere = RunDirectory(step.scratch(), run.seed, run.device, run.precision)

            def make_trainer(short: dict[str, Any]) -> PipelineTrainer:
                return build_trainer(copy.deepcopy(model), splits, options, short, elsewhere)

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
    model = make_trainable(read_gpt2(run)[0], options).to(run.device)
    return build_trainer(model, read_splits(run), options, record["results"], run)


def make_trainable(model: GPT2LMHeadModel, options: TrainerOptions) -> torch.nn.Module:
    if options.trainable_blocks:
        return train_last_blocks(model, options.trainable_blocks)
    return add_adapters(model, options.lora_rank) if options.lora_rank else model


def make_plan(
    model: torch.nn.Module, options: TrainerOptions, run: RunDirectory
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what training will do, every choice made, and what it will need on this machine."""
    usual = usual_values(run.results("load_gpt2"), options)
    split = run.results("train_test_split")
    block_size = split["block_size"]
    need = preflight.memory_need(model, block_size, run.precision)
    free = preflight.free_memory_bytes(run.device)
    micro_batch, accumulation = (
        options.per_device_train_batch_size,
        options.gradient_accumulation_steps,
    )
    effective = accumulation * (EFFECTIVE_BATCH if micro_batch == "auto" else micro_batch)
    micro_batch = preflight.settle_micro_batch(need, free, micro_batch, effective)
    asked = {
        **vars(options),
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": effective // micro_batch,
    }
    blocks = {name: split["splits"][name]["blocks"] for name in ("train", "validation")}
    plan = {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "trainable_parameters": sum(w.numel() for w in model.parameters() if w.requires_grad),
        "operations_per_token": training_operations_per_token(plain_model(model), block_size),
        **plan_training(asked, blocks, block_size, usual),
    }
    measured = {
        "predicted_peak_memory_bytes": preflight.held_bytes(run.device) + need.of(micro_batch),
        "predicted_disk_bytes": preflight.refuse_too_little_disk(model, run.path),
    }
    return plan, measured


def usual_values(loaded: dict[str, Any], options: TrainerOptions) -> dict[str, float]:
    if loaded["from_scratch"]:
        return FROM_SCRATCH
    small = loaded["parameters"] <= SMALL
    if options.lora_rank:
        return ADAPTERS_SMALL if small else ADAPTERS
    return FINE_TUNING_SMALL if small else FINE_TUNING


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
        history_path=run.path / "log_history.jsonl",
        precision=run.precision,
        compiled=options.torch_compile,
        patience=options.early_stopping_patience,
    )
    follow_stream(trainer)
    return trainer


@command
def main(argv: list[str] | None = None) -> None:
    run, options = parse(argv, TrainerOptions, about=__doc__)
    configure_trainer(read_gpt2(run)[0], read_splits(run), options, run)


if __name__ == "__main__":
    main()
