"""Score a model on blocks of tokens: every figure over the whole split, in constant memory."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from tqdm import tqdm
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from toolkit.precision import autocast

Collate = Callable[[list[dict[str, np.ndarray]]], dict[str, torch.Tensor]]
BLOCKS_AT_ONCE = 4
ROWS_AT_ONCE = 1024  # positions whose logits, one per vocabulary entry, exist at the same time


@torch.inference_mode()
def score_blocks(
    model: GPT2LMHeadModel, blocks: Dataset, collate: Collate, precision: str, label: str
) -> dict[str, Any]:
    """Return sums over all predicted tokens of the blocks: `nats`, `correct`, `tokens`.

    Each block is scored alone: its first token is context only, each later one is predicted from
    all before it in the block; tokens whose label is masked are not counted. Losses are taken in
    float32 from the logits and summed in float64.
    """
    nats = torch.zeros((), dtype=torch.float64)
    correct = tokens = 0
    starts = range(0, len(blocks), BLOCKS_AT_ONCE)
    for start in tqdm(starts, desc=label, unit="batch", leave=False):
        batch = collate(list(blocks.select(range(start, min(start + BLOCKS_AT_ONCE, len(blocks))))))
        ids, labels = (batch[name].to(model.device) for name in ("input_ids", "labels"))
        with autocast(model.device.type, precision):
            states = model.transformer(ids[:, :-1], use_cache=False).last_hidden_state
            scored = labels[:, 1:] != -100
            for part, targets in zip(
                states[scored].split(ROWS_AT_ONCE),
                labels[:, 1:][scored].split(ROWS_AT_ONCE),
                strict=True,
            ):
                logits = model.lm_head(part).float()
                losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
                nats += losses.double().sum().cpu()
                correct += int((logits.argmax(-1) == targets).sum())
                tokens += targets.numel()
    return {"nats": nats.item(), "correct": correct, "tokens": tokens}


def count_text(
    blocks: Dataset, tokenizer: PreTrainedTokenizerFast, collate: Collate
) -> dict[str, int]:
    """Return `bytes` and `words` of the text that the predicted tokens spell, end-of-text aside.

    A byte-level BPE writes one character a byte, so the lengths of its entries count bytes exactly.
    Words are what white space separates, within a block.
    """
    end = tokenizer.eos_token_id
    entries = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    lengths = np.array([len(entry or "") for entry in entries])
    lengths[tokenizer.all_special_ids] = 0
    size = words = 0
    for block in blocks:
        labels = collate([block])["labels"][0, 1:].numpy()
        predicted = labels[labels != -100]
        size += int(lengths[predicted].sum())
        for document in np.split(predicted, np.flatnonzero(predicted == end)):
            words += len(tokenizer.decode(document[document != end]).split())
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
