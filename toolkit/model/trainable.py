"""Which weights are trained: all, the last blocks and the head (freezing), or adapters (LoRA)."""

import importlib.util
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from toolkit.model.forward import GPT2LMHeadModel
from toolkit.model.gpt2 import open_model
from toolkit.run.command import UserError

ADAPTER = ("adapter_config.json", "adapter_model.safetensors")


def train_last_blocks(model: GPT2LMHeadModel, blocks: int) -> GPT2LMHeadModel:
    """Freeze all but the last `blocks` blocks, the final norm and the head, in place.

    A head that is the embedding is untied from it: while they are one tensor, the gradient has to
    go back through every block to reach it.
    """
    refuse_more_blocks(blocks, model.config.n_layer)
    model.requires_grad_(False)
    if model.lm_head.weight is model.transformer.wte.weight:
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    model.config.tie_word_embeddings = model.transformer.tied = False
    trained = model.transformer.h[len(model.transformer.h) - blocks :]
    for part in (*trained, model.transformer.ln_f, model.lm_head):
        part.requires_grad_(True)
    return model


def refuse_more_blocks(asked: int, there: int) -> None:
    if asked > there:
        raise UserError(f"--trainable_blocks {asked}: the model has {there} blocks")


def require_peft() -> None:
    if importlib.util.find_spec("peft") is None:
        raise UserError("--lora_rank needs the package peft: pip install 'peft>=0.18'")


def add_adapters(model: GPT2LMHeadModel, rank: int, seed: int) -> torch.nn.Module:
    """Return a `peft.PeftModel`: low-rank adapters beside every matrix of every block are trained.

    The seed alone draws them, so that they are the same in every process and step. Scaled by
    alpha / rank = 2; no dropout of their own (LoRA: Hu et al., arXiv:2106.09685).
    """
    require_peft()
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora import LoraLayer

    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=["c_attn", "c_proj", "c_fc"],
        fan_in_fan_out=True,  # GPT-2 keeps its matrices transposed
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore", FutureWarning)  # for an attribute that has been renamed
        torch.manual_seed(seed)
        adapted = get_peft_model(model, config)
    for layer in adapted.modules():  # autocast casts their weights to what comes in, for less
        if isinstance(layer, LoraLayer):
            layer.cast_input_dtype_enabled = False
    return adapted


def plain_model(model: torch.nn.Module) -> GPT2LMHeadModel:
    """Return the GPT-2 itself, adapters in place where it has any."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def open_checkpoint(folder: Path, base: Callable[[], GPT2LMHeadModel]) -> GPT2LMHeadModel:
    """Return the model of a checkpoint, adapters merged. `base` opens what they belong to."""
    if not (folder / ADAPTER[0]).exists():
        return open_model(folder)
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return PeftModel.from_pretrained(base(), folder).merge_and_unload()


def copy_adapter(checkpoint: Path, folder: Path) -> None:
    for name in ADAPTER:
        shutil.copy(checkpoint / name, folder / name)
