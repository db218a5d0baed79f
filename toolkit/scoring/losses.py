"""Score a model on blocks of tokens: every figure over the whole split, in constant memory."""

from typing import Any

import numpy as np
import torch
from datasets import Dataset
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from toolkit.model.forward import GPT2LMHeadModel
from toolkit.model.fused_loss import token_losses
from toolkit.model.kernels import Kernels, choose_kernels
from toolkit.model.precision import autocast
from toolkit.scoring.windows import Collate, Pieces, block_size_of, window_batches

# Tokens in a forward pass, and those of them whose logits, one per vocabulary entry, exist at once:
# small enough for a processor's caches, large enough to keep a card busy.
AT_ONCE = {"cpu": (4096, 512)}
AT_ONCE_ON_A_CARD = (32768, 4096)


def score_blocks(
    model: GPT2LMHeadModel, blocks: Dataset, collate: Collate, precision: str, label: str
) -> dict[str, Any]:
    """Return sums over all predicted tokens of the blocks: `nats`, `correct`, `tokens`.

    Each block is scored alone: its first token is context only, each later one is predicted from
    all before it in the block; tokens whose label is masked are not counted.
    """
    size = block_size_of(blocks)
    starts = np.arange(len(blocks)) * size
    rows = Pieces(starts, starts // size, starts // size)
    sums = score_pieces(model, blocks, collate, rows, size, precision, label)
    return {"nats": float(sums["nats"].sum()), **{k: int(sums[k].sum()) for k in COUNTS}}


COUNTS = ("correct", "tokens")


def score_pieces(
    model: GPT2LMHeadModel,
    blocks: Dataset,
    collate: Collate,
    pieces: Pieces,
    stride: int,
    precision: str,
    label: str,
) -> dict[str, np.ndarray]:
    """Return sums over the predicted tokens of each piece: `nats`, `correct`, `tokens`.

    float64 arrays with an entry a piece. See `window_starts` for which window predicts which token.
    """
    sums = {name: np.zeros(len(pieces.starts)) for name in ("nats", *COUNTS)}
    size = block_size_of(blocks)
    together, _ = AT_ONCE.get(model.device.type, AT_ONCE_ON_A_CARD)
    batches = window_batches(blocks, collate, stride, max(1, together // size))
    kernels = choose_kernels(model.device.type, precision, "scoring")
    windows = -(-(len(blocks) - 1) * size // stride) + 1
    adapters = autocast(model.device.type, precision)  # their products are not of our kernels
    with adapters, tqdm(desc=label, total=windows, unit="block", leave=False) as progress:
        for starts, batch in batches:
            rows, places = np.nonzero(batch["labels"][:, 1:].numpy() != -100)
            of_token = pieces.of(starts[rows] + places + 1)
            first = of_token.min(initial=len(pieces.starts))
            nats, correct = score_batch(model, batch, kernels)
            for name, values in (("nats", nats), ("correct", correct), ("tokens", None)):
                parts = np.bincount(of_token - first, values)
                sums[name][first : first + len(parts)] += parts
            progress.update(len(starts))
    return sums


@torch.inference_mode()
def score_batch(
    model: GPT2LMHeadModel, batch: dict[str, torch.Tensor], kernels: Kernels
) -> tuple[np.ndarray, np.ndarray]:
    """Return for each token with a label, in reading order: its nats, and 1.0 if it was guessed.

    Losses are taken in float32 from the logits; those of the whole batch never exist at once.
    """
    ids, labels = (batch[name].to(model.device) for name in ("input_ids", "labels"))
    states, targets = model.predicting(ids[:, :-1], labels[:, 1:], kernels)
    head = kernels.padded(model.lm_head.weight)
    _, rows = AT_ONCE.get(model.device.type, AT_ONCE_ON_A_CARD)
    found = [
        token_losses(part, head, model.config.vocab_size, wanted)
        for part, wanted in zip(states.split(rows), targets.split(rows), strict=True)
    ]
    return tuple(torch.cat(column).double().cpu().numpy() for column in zip(*found, strict=True))


def count_text(
    blocks: Dataset,
    tokenizer: PreTrainedTokenizerFast,
    collate: Collate,
    pieces: Pieces,
    stride: int,
) -> dict[str, np.ndarray]:
    """Return `bytes` and `words` of the text that each piece's predicted tokens spell.

    End-of-text is no text. A byte-level BPE writes one character a byte, so the lengths of its
    entries count bytes exactly. Words are what white space separates; where blocks are scored
    alone, a word that runs on into the next block counts in both.
    """
    entries = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    lengths = np.array([len(entry or "") for entry in entries])
    lengths[tokenizer.all_special_ids] = 0
    counts = {name: np.zeros(len(pieces.starts)) for name in ("bytes", "words")}
    size, inside = block_size_of(blocks), False  # inside: the text so far ends amid a word
    alone = stride == size
    cuts = np.searchsorted(pieces.blocks, np.arange(len(blocks) + 1))
    for number, block in enumerate(blocks):
        labels = collate([block])["labels"][0].numpy()
        if alone or number == 0:
            labels[0], inside = -100, False
        for piece in range(cuts[number], cuts[number + 1]):
            begin = pieces.starts[piece] - number * size
            stop = (
                pieces.starts[piece + 1] - number * size if piece + 1 < cuts[number + 1] else size
            )
            predicted = labels[begin:stop]
            predicted = predicted[predicted != -100]
            text = tokenizer.decode(predicted[predicted != tokenizer.eos_token_id])
            joined = inside and text and not text[0].isspace()
            counts["bytes"][piece] = lengths[predicted].sum()
            counts["words"][piece] = len(text.split()) - bool(joined)
            inside = not text[-1].isspace() if text else inside
            inside = inside and not (predicted == tokenizer.eos_token_id).any()
    return counts
