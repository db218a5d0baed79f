"""GPT-2 models and tokenizers from a folder, checked, or from a fresh config."""

from pathlib import Path

import transformers
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoTokenizer,
    GPT2Config,
    PreTrainedTokenizerFast,
)

from toolkit.model.forward import GPT2LMHeadModel
from toolkit.run.command import UserError, first_line


def open_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Return the fast tokenizer in a folder. Raises UserError where there is none of use."""
    if not any((folder / name).exists() for name in ("tokenizer.json", "vocab.json")):
        raise UserError(
            f"{folder} holds no tokenizer (tokenizer.json, or vocab.json and merges.txt)"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{folder}: its tokenizer cannot be read ({first_line(error)})") from None
    # Saved after use with truncation or padding, it would go on cutting and filling up texts.
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"{folder}: its tokenizer has no end-of-text token, which ends every document"
        )
    return tokenizer


def open_model(folder: Path) -> GPT2LMHeadModel:
    """Return the GPT-2 in a folder, in float32; refuse what is not whole or not GPT-2-shaped."""
    if not (folder / "config.json").exists():
        raise UserError(f"{folder} is no model folder: it holds no config.json")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}/config.json cannot be read ({first_line(error)})") from None
    if config.model_type != "gpt2":
        raise UserError(
            f"{folder} holds a {config.model_type} model; this pipeline trains GPT-2 models"
        )
    if config.add_cross_attention:
        raise UserError(f"{folder} has cross-attention: it is the decoder of another kind of model")
    if not any(folder.glob("*.safetensors")):
        raise UserError(
            f"{folder} holds no *.safetensors weights (pickled .bin weights are not opened)"
        )
    try:
        model, loading = GPT2LMHeadModel.from_pretrained(
            folder,
            config=config,
            dtype="float32",
            use_safetensors=True,
            output_loading_info=True,
            # So that they are listed: we refuse them below, with their names.
            ignore_mismatched_sizes=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder}: its weights cannot be read ({first_line(error)})") from None
    if lacking := sorted(loading["missing_keys"]):
        raise UserError(
            f"{folder}: its weights lack {len(lacking)} tensors, the first is {lacking[0]}"
        )
    if misfits := sorted(str(entry[0]) for entry in loading["mismatched_keys"]):
        raise UserError(f"{folder}: {misfits[0]} does not have the shape that config.json says")
    return model


def fresh_model(config: GPT2Config) -> GPT2LMHeadModel:
    """Return a model with random weights, drawn by transformers from torch's current seed."""
    return take_over(transformers.GPT2LMHeadModel(config))


def take_over(model: transformers.GPT2LMHeadModel) -> GPT2LMHeadModel:
    """Return transformers' model with our forward pass, and weights of its own."""
    taken = GPT2LMHeadModel(model.config)
    taken.load_state_dict(model.state_dict())
    return taken.train(model.training)


def refuse_mismatch(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, where: str) -> None:
    """Refuse a tokenizer that the model was not made for."""
    entries, vocabulary = len(tokenizer), model.config.vocab_size
    if entries > vocabulary:
        raise UserError(
            f"{where}: its tokenizer has {entries} entries, the model only {vocabulary}"
        )
    if model.config.eos_token_id != tokenizer.eos_token_id:
        raise UserError(
            f"{where}: the model's end-of-text token is {model.config.eos_token_id}, "
            f"its tokenizer's is {tokenizer.eos_token_id}: they do not belong together"
        )
