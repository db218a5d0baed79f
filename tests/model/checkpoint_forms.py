"""Small GPT-2s in the forms in which people find them: folders of 2 blocks, 64 wide.

`write_form` writes the usual form; what is asked for differs from it.
"""

import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import GPT2Config, PreTrainedTokenizerFast

from tests.model.tokenizer_forms import byte_level

NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
SHAPE = {"n_layer": 2, "n_head": 2, "n_embd": 64, "n_positions": 64}
WEIGHTS = "model.safetensors"


def write_form(
    folder: Path,
    tokenizer: Tokenizer | None = None,
    end: str | None = "<|endoftext|>",
    rows: int = 0,
    **config: object,
) -> Path:
    """Write a GPT-2 whose words are peaked, so that greedy texts differ where anything does.

    `rows`: how many more rows than the tokenizer has entries the embedding has.
    """
    tokenizer = tokenizer or byte_level()
    special = {} if end is None else {"eos_token": end, "bos_token": end}
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    vocabulary = tokenizer.get_vocab_size() + rows
    ends = {"bos_token_id": wrapped.eos_token_id, "eos_token_id": wrapped.eos_token_id}
    torch.manual_seed(3)
    made = GPT2Config(**SHAPE | NO_DROPOUT | ends | {"vocab_size": vocabulary} | config)
    model = transformers.GPT2LMHeadModel(made)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    model.save_pretrained(folder)
    wrapped.save_pretrained(folder)
    return folder


def edit_json(path: Path, remove: tuple[str, ...] = (), **changes: object) -> None:
    held = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    held = {key: value for key, value in held.items() if key not in remove} | changes
    path.write_text(json.dumps(held, ensure_ascii=False), encoding="utf-8")


def edit_weights(folder: Path, **changes: torch.Tensor) -> None:
    held = load_file(folder / WEIGHTS)
    save_file(held | changes, folder / WEIGHTS, {"format": "pt"})


def as_pickle(folder: Path) -> None:
    """The weights as `pytorch_model.bin`, as they were saved until 2022."""
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
