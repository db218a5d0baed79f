"""Score a model on blocks of tokens: every figure over the whole split, in constant memory."""

import math
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from tqdm import tqdm
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from toolkit.precision import autocast

BLOCKS_AT_ONCE = 4
ROWS_AT_ONCE = 1024  # positions whose logits, one per vocabulary entry, exist at the same time


@torch.inference_mode()
def score_blocks(
    model: GPT2LMHeadModel, blocks: Dataset, precision: str, label: str
) -> dict[str, Any]:
    """Return sums over all predicted tokens of the blocks: `nats`, `correct`, `tokens`.

    Each block is scored alone: its first token is context only, each later one is predicted from
    all before it in the block. Losses are taken in float32 from the logits and summed in float64.
    """
    nats = torch.zeros((), dtype=torch.float64)
    correct = tokens = 0
    starts = range(0, len(blocks), BLOCKS_AT_ONCE)
    for start in tqdm(starts, desc=f"evaluating {label}", unit="batch"):
        rows = np.stack(blocks[start : start + BLOCKS_AT_ONCE]["input_ids"]).astype(np.int64)
        ids = torch.from_numpy(rows).to(model.device)
        with autocast(model.device.type, precision):
            states = model.transformer(ids[:, :-1], use_cache=False).last_hidden_state.flatten(0, 1)
            for states_part, targets in zip(
                states.split(ROWS_AT_ONCE), ids[:, 1:].flatten().split(ROWS_AT_ONCE), strict=True
            ):
                logits = model.lm_head(states_part).float()
                losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
                nats += losses.double().sum().cpu()
                correct += int((logits.argmax(-1) == targets).sum())
                tokens += targets.numel()
    return {"nats": nats.item(), "correct": correct, "tokens": tokens}


def count_text(blocks: Dataset, tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    """Return `bytes` and `words` of the text that the predicted tokens spell, end-of-text aside.

    A byte-level BPE writes one character a byte, so the lengths of its entries count bytes exactly.
    Words are what white space separates, within a block.
    """
    special = set(tokenizer.all_special_tokens)
    entries = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    lengths = np.array([0 if entry in special else len(entry or "") for entry in entries])
    size = words = 0
    for block in blocks:
        predicted = block["input_ids"][1:]
        size += int(lengths[predicted].sum())
        words += len(
            tokenizer.decode(predicted, skip_special_tokens=False)
            .replace("<|endoftext|>", " ")
            .split()
        )
    return {"bytes": size, "words": words}


def as_metrics(sums: dict[str, Any], text: dict[str, int]) -> dict[str, float]:
    """Return the metrics of DESIGN's terms from sums over a split.

    `loss`: mean nats per predicted token. `perplexity`: exp(loss). `bits_per_byte`: total nats /
    ln 2 / bytes. `word_perplexity`: exp(total nats / words). `token_accuracy`: share of predicted
    tokens that are the model's first choice.
    """
    loss = sums["nats"] / sums["tokens"]
    return {
        "loss": loss,
        "perplexity": exp(loss),
        "bits_per_byte": sums["nats"] / math.log(2) / text["bytes"] if text["bytes"] else math.nan,
        "word_perplexity": exp(sums["nats"] / text["words"]) if text["words"] else math.nan,
        "token_accuracy": sums["correct"] / sums["tokens"],
        "tokens": sums["tokens"],
        **text,
    }


def exp(nats: float) -> float:
    return math.exp(nats) if nats < 700 else math.inf
