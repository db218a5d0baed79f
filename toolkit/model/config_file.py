"""A GPT-2's config.json, as people and programs have written it since 2019."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import GPT2Config, PreTrainedConfig
from transformers.activations import ACT2FN

from toolkit.model.sizes import refuse_too_large
from toolkit.run.command import UserError, first_line
from toolkit.run.files import json_of, open_file

# What shapes a GPT-2. All else is not taken: the library would obey it, and fetch kernels and code,
# or make a table as long as `num_labels` says.
EVERY_MODEL = {field.name for field in dataclasses.fields(PreTrainedConfig)}
SHAPING = {field.name for field in dataclasses.fields(GPT2Config)} - EVERY_MODEL
SHAPING |= set(GPT2Config.attribute_map)  # what other families call the same
MOST_BYTES = 1 << 20  # of a config.json; GPT-2's has under a thousand
MOST_LABELS = 10**5  # the library makes a name for each, when it opens the tokenizer
SIZES = ("n_layer", "n_head", "n_embd", "n_positions", "vocab_size")
RATES = ("resid_pdrop", "embd_pdrop", "attn_pdrop")


def open_config(folder: Path, where: str) -> GPT2Config:
    """Return the config in a folder; refuse one that is not of a GPT-2. `where`: what to call it.

    Numbers may be written otherwise than the library wants them (1, 12.0, "1e-5").
    """
    held = read_json(folder / "config.json", where)
    kind = held.get("model_type", "gpt2" if "n_embd" in held else None)  # of 2019: none
    if kind != "gpt2":
        what = f"a {kind} model" if kind else "no GPT-2"
        raise UserError(f"{where} holds {what}; this pipeline trains GPT-2 models")
    if held.get("quantization_config"):
        raise UserError(f"{where} holds quantized weights; give the model that they were made from")
    if isinstance(labels := held.get("num_labels"), int) and labels > MOST_LABELS:
        raise UserError(f"{where}: its config.json says num_labels {labels}")
    kept = {name: value for name, value in held.items() if name in SHAPING}
    for field in dataclasses.fields(GPT2Config):
        if field.name in kept:
            kept[field.name] = as_number(kept[field.name], field.default)
    kept |= special_ids(kept)
    try:
        with silent():
            config = GPT2Config.from_dict(kept)
    except (StrictDataclassError, ValueError, TypeError, KeyError, AttributeError) as error:
        what = " ".join(str(error).split())[:200]
        raise UserError(f"{where}: its config.json cannot be read ({what})") from None
    refuse_impossible(config, where)
    return config


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Keep the library's warnings from the console: what matters of them is refused, in a line."""
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)


def read_json(path: Path, where: str) -> dict[str, Any]:
    if not path.exists():
        raise UserError(f"{where} is no model folder: it holds no {path.name}")
    try:
        with open_file(path) as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
        held = json_of(content)
    except (OSError, ValueError) as error:
        raise UserError(f"{where}: its {path.name} cannot be read ({first_line(error)})") from None
    if not isinstance(held, dict):
        raise UserError(f"{where}: its {path.name} holds no object")
    return held


def as_number(value: Any, default: Any) -> Any:
    """Return a value as the kind of number that a field's default is; else as it stands."""
    if isinstance(value, bool | None) or not isinstance(value, int | float | str):
        return value
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return value
    if isinstance(default, float):
        return number
    whole = not isinstance(default, str | bool) and number.is_integer()
    return int(number) if whole else value


def special_ids(held: dict[str, Any]) -> dict[str, Any]:
    """Return the special tokens' ids without those that are none of the entries.

    The library's default, 50256, stands in many a config of a smaller vocabulary.
    """
    size = held.get("vocab_size", GPT2Config.vocab_size)

    def is_entry(number: Any) -> bool:
        return isinstance(number, int) and isinstance(size, int) and 0 <= number < size

    found = {}
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        said = held.get(name)
        several = [number for number in said if is_entry(number)] if isinstance(said, list) else []
        found[name] = several or (said if is_entry(said) else None)
    return found


def refuse_impossible(config: GPT2Config, where: str) -> None:
    inner = {} if config.n_inner is None else {"n_inner": config.n_inner}
    sizes = {name: getattr(config, name) for name in SIZES} | inner
    least = {name: value for name, value in sizes.items() if value < 1}
    if config.layer_norm_epsilon <= 0:
        least["layer_norm_epsilon"] = config.layer_norm_epsilon
    rates = {name: getattr(config, name) for name in RATES}
    least |= {name: rate for name, rate in rates.items() if not 0 <= rate < 1}
    for name, value in least.items():
        raise UserError(f"{where}: its config.json says {name} {value}")
    try:
        refuse_too_large(**sizes)
    except ValueError as error:
        raise UserError(f"{where}: its config.json: {error}") from None
    if config.n_embd % config.n_head:
        raise UserError(
            f"{where}: its config.json says n_embd {config.n_embd}, which is no multiple of n_head "
            f"{config.n_head}"
        )
    name = config.activation_function
    if name not in ACT2FN or list(ACT2FN[name].parameters()):
        lacks = "has weights of its own" if name in ACT2FN else "transformers does not have"
        raise UserError(f"{where}: its config.json names the activation {name}, which {lacks}")
    if config.add_cross_attention:
        raise UserError(f"{where} has cross-attention: it is the decoder of another kind of model")
