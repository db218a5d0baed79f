"""Step 6 of 10: set up the Trainer, and say beforehand what training will do.

Leaves configure_trainer.json.
"""

if __name__ == "__main__":  # from the shell: go on where the libraries are
    __import__("install_libraries").enter_environment()

from dataclasses import dataclass
from typing import Any

from transformers import GPT2LMHeadModel, SchedulerType, TrainingArguments

from create_dataset import collate
from import_modules import parse
from load_gpt2 import read_gpt2
from toolkit.command import command
from toolkit.options import build, flag, require_above
from toolkit.run_directory import RunDirectory
from toolkit.trainer import PipelineTrainer
from toolkit.training_arguments import extra_arguments
from toolkit.training_plan import plan_training
from toolkit.training_stream import follow_stream
from train_test_split import Splits, read_splits

# What suits a pretrained model, and what a model that starts from nothing needs.
FINE_TUNING = {"num_train_epochs": 3.0, "learning_rate": 5e-5}
FROM_SCRATCH = {"num_train_epochs": 8.0, "learning_rate": 1e-3}


@dataclass
class TrainerOptions:
    """step 6, configure_trainer"""

    num_train_epochs: float | None = flag(
        None, "passes over the training blocks (default: 3; from scratch: 8)"
    )
    max_steps: int | None = flag(None, "optimizer steps, instead of epochs")
    per_device_train_batch_size: int = flag(4, "blocks a micro-batch")
    gradient_accumulation_steps: int = flag(1, "micro-batches an optimizer step")
    learning_rate: float | None = flag(
        None, "peak learning rate (default: 5e-5; from scratch: 1e-3)"
    )
    warmup_steps: float = flag(0.05, "steps of linear warmup; below 1: a share of all steps")
    lr_scheduler_type: str = flag("cosine", "linear, cosine, constant, ...")
    weight_decay: float = flag(0.1, "AdamW's, on matrices only")
    early_stopping_patience: int | None = flag(
        None, "validations without a new best before stopping (default: never stop)"
    )
    eval_steps: int | None = flag(None, "steps between validations (default: up to 10 in all)")
    save_steps: int | None = flag(
        None, "steps between checkpoints; a new best is always saved (default: eval_steps)"
    )
    logging_steps: int | None = flag(
        None, "steps between points of the loss curve (default: 100 points in all)"
    )
    trainer: list[str] | None = flag(
        None, "KEY=VALUE ...: any other field of transformers.TrainingArguments"
    )

    def __post_init__(self) -> None:
        require_above(
            self,
            0,
            "num_train_epochs",
            "max_steps",
            "per_device_train_batch_size",
            "gradient_accumulation_steps",
            "learning_rate",
            "early_stopping_patience",
            "eval_steps",
            "save_steps",
            "logging_steps",
        )
        for name in ("warmup_steps", "weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name} must not be negative, got {getattr(self, name)}")
        kinds = [kind.value for kind in SchedulerType]
        if self.lr_scheduler_type not in kinds:
            raise ValueError(
                f"--lr_scheduler_type must be one of {', '.join(kinds)}, "
                f"got {self.lr_scheduler_type}"
            )
        if self.num_train_epochs and self.max_steps:
            raise ValueError(
                "--num_train_epochs and --max_steps both say how long to train: give one"
            )


def configure_trainer(
    model: GPT2LMHeadModel, splits: Splits, options: TrainerOptions, run: RunDirectory
) -> PipelineTrainer:
    """Return a Trainer ready to train `model` on train blocks and validate on validation blocks."""
    with run.step(__file__, options, after=("load_gpt2", "train_test_split")) as step:
        plan = make_plan(options, run)
        trainer = build_trainer(model, splits, options, plan, run)
        step.results = plan
        step.summary = (
            f"{plan['trainable_parameters']:,} parameters to train, {plan['steps']:,} steps of "
            f"{plan['tokens_per_step']:,} tokens ({describe_epochs(plan)}), learning rate "
            f"{plan['learning_rate']:g}, validation every {plan['eval_steps']} steps"
        )
    return trainer


def read_trainer(run: RunDirectory) -> PipelineTrainer:
    """Return the Trainer of step 6, built anew from its record, around the untrained model."""
    run.finished("configure_trainer")
    record = run.record("configure_trainer")
    options = build(TrainerOptions, record["options"])
    return build_trainer(read_gpt2(run)[0], read_splits(run), options, record["results"], run)


def describe_epochs(plan: dict[str, Any]) -> str:
    return f"{plan['epochs']:.3g} epochs" if plan["epochs"] else "from a stream"


def make_plan(options: TrainerOptions, run: RunDirectory) -> dict[str, Any]:
    """Return what training will do, with every value that the options left to us."""
    loaded = run.results("load_gpt2")
    usual = FROM_SCRATCH if loaded["from_scratch"] else FINE_TUNING
    split = run.results("train_test_split")
    block_size, accounts = split["block_size"], split["splits"]
    blocks = {name: accounts[name]["blocks"] for name in ("train", "validation")}
    steps = plan_training(vars(options), blocks, block_size, usual)
    return {"trainable_parameters": loaded["parameters"], **steps}


def build_trainer(
    model: GPT2LMHeadModel,
    splits: Splits,
    options: TrainerOptions,
    plan: dict[str, Any],
    run: RunDirectory,
) -> PipelineTrainer:
    fixed = {
        "output_dir": str(run.path / "checkpoints"),
        "seed": run.seed,
        "use_cpu": run.device == "cpu",
        "bf16": run.precision == "bf16",
        "fp16": run.precision == "fp16",
        "max_steps": plan["steps"],
        **{
            name: plan[name]
            for name in ("learning_rate", "eval_steps", "save_steps", "logging_steps")
        },
        "eval_strategy": "steps",
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
        "per_device_eval_batch_size": options.per_device_train_batch_size,
        "dataloader_pin_memory": run.device == "cuda",
        "remove_unused_columns": False,  # the collator reads what the model does not
    }
    same = (
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "warmup_steps",
        "weight_decay",
    )
    fixed |= {name: getattr(options, name) for name in (*same, "lr_scheduler_type")}
    usual = {"report_to": "none", "ddp_find_unused_parameters": False}
    trainer = PipelineTrainer(
        model=model,
        args=TrainingArguments(
            **fixed, **{**usual, **extra_arguments(options.trainer or [], {*fixed, *vars(options)})}
        ),
        data_collator=collate,
        train_dataset=splits["train"],
        eval_dataset=splits["validation"],
        history_path=run.path / "log_history.jsonl",
        precision=run.precision,
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
