"""What trackers are told of a training beside the curves: settings that say what was done."""

from typing import Any

from transformers import TrainingArguments

from toolkit.run.run_directory import RunDirectory


class ToldArguments(TrainingArguments):
    """TrainingArguments of which trackers are told what was done, and not what the fields say.

    Steps are planned and precision is the kernels': `num_train_epochs` and `bf16` would be wrong.
    """

    told: dict[str, Any] = {}

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | self.told


def settings_told(options: Any, plan: dict[str, Any], run: RunDirectory) -> dict[str, Any]:
    """Return what a tracker should know of a training and its library does not say.

    `options`: step 6's; `plan`: its results. Of steps that have left no record nothing is told.
    """
    records = {name: run.record(name) for name in ("load_gpt2", "create_dataset")}
    split = run.record("train_test_split")
    loaded, made = records["load_gpt2"], records["create_dataset"]
    names = ("trainable_parameters", "parameters", "tokens_per_step", "steps_per_epoch")
    return {
        "num_train_epochs": plan.get("epochs"),
        "precision": run.precision,
        "bf16": run.precision == "bf16",
        "device": run.device,
        "lora_rank": options.lora_rank,
        "trainable_blocks": options.trainable_blocks,
        **{name: plan[name] for name in names if name in plan},
        **({"base_model": loaded["results"]["model"]} if loaded else {}),
        **({"corpus": " ".join(made["options"]["corpus"])} if made else {}),
        **({"block_size": split["results"]["block_size"]} if split else {}),
    }
