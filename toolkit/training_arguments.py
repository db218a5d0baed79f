"""`--trainer KEY=VALUE ...`: any field of transformers.TrainingArguments, in its own type."""

from typing import Any, NoReturn

from transformers import HfArgumentParser, TrainingArguments

from toolkit.command import UserError

# What would be ignored, or would undo what this pipeline promises.
REFUSED = {
    "label_smoothing_factor": "the losses here are true cross entropies",
    "auto_find_batch_size": "take --per_device_train_batch_size auto",
    "use_liger_kernel": "head and loss are fused already",
    "deepspeed": "use torchrun: a GPT-2 fits on every card",
    "save_strategy": "what is trained is taken from the checkpoint of the best validation",
    "fsdp": "use torchrun: a GPT-2 fits on every card",
}


class ArgumentParser(HfArgumentParser):
    """The library's parser of its own fields, with complaints of one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"--trainer: {message.removeprefix('argument ')[:300]}")


def extra_arguments(pairs: list[str], taken: set[str]) -> dict[str, Any]:
    """Return `KEY=VALUE` texts as arguments of TrainingArguments. `taken`: what other flags set."""
    words = []
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or key not in TrainingArguments.__dataclass_fields__:
            raise UserError(
                f"--trainer {pair}: must be KEY=VALUE, KEY a field of TrainingArguments"
            )
        if key in REFUSED:
            raise UserError(f"--trainer {pair}: not here: {REFUSED[key]}")
        if key in taken:
            raise UserError(
                f"--trainer {pair}: {key} is set by this pipeline's own flags (see --help)"
            )
        words += [f"--{key}", value]
    parsed = vars(ArgumentParser(TrainingArguments, allow_abbrev=False).parse_args(words))
    return {key: parsed[key] for key in (pair.partition("=")[0] for pair in pairs)}
