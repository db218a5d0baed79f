"""GPT-2 models from a folder, checked and fitted to their tokenizer, or from a fresh config."""

import os
import re
from pathlib import Path

import torch
import transformers
from transformers import GenerationConfig, GPT2Config, PreTrainedTokenizerFast

from toolkit.model.config_file import open_config, read_json, silent
from toolkit.model.forward import GPT2LMHeadModel
from toolkit.run.command import UserError, first_line
from toolkit.run.shortages import shortage_in

PICKLES = "pytorch_model*.bin"  # all that most checkpoints of 2019 to 2022 have
WAYS_ON = (
    "where the Hub has a pull request with model.safetensors, give its number N as "
    "--model_revision refs/pr/N; or save the model as safetensors and give that folder"
)


def open_model(folder: Path, where: str | None = None) -> GPT2LMHeadModel:
    """Return the GPT-2 in a folder, in float32; refuse what is not whole or not GPT-2-shaped.

    `where`: what messages call it (a Hub id; the folder itself is then one of the cache).
    """
    where = where or str(folder)
    config = open_config(folder, where)
    model, loading = read_weights(folder, config, where)
    if lacking := sorted(loading["missing_keys"]):
        raise UserError(
            f"{where}: its weights lack {len(lacking)} tensors, the first is {lacking[0]}"
        )
    if misfits := sorted(str(entry[0]) for entry in loading["mismatched_keys"]):
        raise UserError(f"{where}: {misfits[0]} does not have the shape that config.json says")
    blocks = {found[1] for key in loading["unexpected_keys"] if (found := BLOCK.search(str(key)))}
    if more := [number for number in blocks if int(number) >= config.n_layer]:
        raise UserError(
            f"{where}: its weights have {max(map(int, more)) + 1} blocks, config.json says "
            f"n_layer {config.n_layer}"
        )
    if model.lm_head.weight is not model.transformer.wte.weight:
        # A config may say that they are one where the file has two: then there are two.
        model.config.tie_word_embeddings = model.transformer.tied = False
    return model


BLOCK = re.compile(r"\bh\.(\d+)\.")


def read_weights(folder: Path, config: GPT2Config, where: str) -> tuple[GPT2LMHeadModel, dict]:
    """Return the model with its weights, and what the library says of them.

    Safetensors are taken where there are some. Pickles are opened as tensors alone: no code runs.
    """
    safe, pickled = any(folder.glob("*.safetensors")), any(folder.glob(PICKLES))
    if (folder / "adapter_config.json").exists():  # the library would open what that names
        raise UserError(f"{where} holds an adapter beside a model: merge it, or take it out")
    if not safe and not pickled:
        raise UserError(
            f"{where} holds no weights (model.safetensors or pytorch_model.bin); {WAYS_ON}"
        )
    refuse_strange_index(folder, "model.safetensors" if safe else "pytorch_model.bin", where)
    try:
        with silent():
            return GPT2LMHeadModel.from_pretrained(
                folder,
                config=config,
                generation_config=GenerationConfig(),  # fit_model makes one; no file's is read
                dtype="float32",
                use_safetensors=safe,
                output_loading_info=True,
                # So that they are listed: we refuse them, with their names.
                ignore_mismatched_sizes=True,
            )
    except Exception as error:  # of libraries in four languages, which name no narrower one
        if shortage_in(error):
            raise
        if safe:
            raise UserError(f"{where}: its weights cannot be read ({brief(error)})") from None
        raise UserError(
            f"{where}: its pytorch_model.bin is cut short, or holds more than tensors, which could "
            f"run code: it is not opened; {WAYS_ON}"
        ) from None


def refuse_strange_index(folder: Path, name: str, where: str) -> None:
    """Refuse an index, where one is used, that names anything but weights in the folder itself."""
    index, suffix = folder / f"{name}.index.json", Path(name).suffix
    if (folder / name).exists() or not index.exists():
        return
    named, there = read_json(index, where).get("weight_map"), os.listdir(folder)
    files = list(named.values()) if isinstance(named, dict) else []
    if not files or not all(isinstance(f, str) and f.endswith(suffix) for f in files):
        raise UserError(f"{where}: its {index.name} names no *{suffix} files")
    if strange := sorted(set(files) - set(there)):
        raise UserError(f"{where}: its {index.name} names {strange[0]}, which is not in the folder")


def brief(error: Exception) -> str:
    """Return a library's error without the path of a cache, which nobody knows."""
    return re.sub(r"(?<![\w.])/\S+/", "", first_line(error))


def fit_model(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast) -> GPT2LMHeadModel:
    """Give a model the tokenizer's special tokens, and a row for each of its entries, in place.

    What its generation_config.json said is dropped: how to sample is said by step 10's flags.
    Saved, it says no more than where a text ends and how long one can be.
    """
    config, entries = model.config, len(tokenizer)
    add_rows(model, entries - config.vocab_size)
    special = {
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": first_of(tokenizer.bos_token_id, tokenizer.eos_token_id),
        "pad_token_id": tokenizer.pad_token_id,
    }
    for name, number in special.items():
        setattr(config, name, number)
    config.n_ctx = config.n_positions  # an older name, which llama.cpp's conversion asks for
    model.generation_config = GenerationConfig(
        **special,
        max_length=config.n_positions,
        # Rows that belong to no entry are no tokens; other programs are told so too.
        suppress_tokens=list(range(entries, config.vocab_size)) or None,
    )
    return model


def first_of(*numbers: int | None) -> int | None:
    return next((number for number in numbers if number is not None), None)


@torch.no_grad()
def add_rows(model: GPT2LMHeadModel, count: int) -> None:
    """Give a model room for so many more entries: each new row is the mean of those there."""
    if count < 1:
        return
    head, embedding = model.lm_head, model.transformer.wte
    tied = head.weight is embedding.weight
    embedding.weight = with_rows(embedding.weight, count)
    head.weight = embedding.weight if tied else with_rows(head.weight, count)
    rows = len(embedding.weight)
    embedding.num_embeddings = head.out_features = model.config.vocab_size = rows


def with_rows(weight: torch.nn.Parameter, count: int) -> torch.nn.Parameter:
    more = weight.mean(0, keepdim=True).expand(count, -1)
    return torch.nn.Parameter(torch.cat([weight, more]), weight.requires_grad)


def fresh_model(config: GPT2Config) -> GPT2LMHeadModel:
    """Return a model with random weights, drawn by transformers from torch's current seed."""
    return take_over(transformers.GPT2LMHeadModel(config))


def take_over(model: transformers.GPT2LMHeadModel) -> GPT2LMHeadModel:
    """Return transformers' model with our forward pass, and weights of its own."""
    taken = GPT2LMHeadModel(model.config)
    taken.load_state_dict(model.state_dict())
    return taken.train(model.training)
