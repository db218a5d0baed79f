"""Score a model on blocks of tokens: every figure over the whole split, in constant memory."""

from typing import Any

import numpy as np
import torch
from datasets import Dataset
from tqdm import tqdm

from toolkit.model.forward import GPT2LMHeadModel
from toolkit.model.fused_loss import token_losses
from toolkit.model.kernels import Kernels, choose_kernels
from toolkit.model.precision import autocast
from toolkit.run.processes import own_share, process_count, sum_over_processes
from toolkit.scoring.windows import Collate, Pieces, block_size_of, window_batches

# Tokens in a forward pass, and those of them whose logits, one per vocabulary entry, exist at once:
# small enough for a processor's caches, large enough to keep a card busy.
AT_ONCE = {"cpu": (4096, 512)}
AT_ONCE_ON_A_CARD = (32768, 4096)


def tokens_at_once(device: str) -> int:
    return AT_ONCE.get(device, AT_ONCE_ON_A_CARD)[0]


def score_blocks(
    model: GPT2LMHeadModel, blocks: Dataset, collate: Collate, precision: str, label: str
) -> dict[str, Any]:
    """Return sums over all predicted tokens of the blocks: `nats`, `correct`, `tokens`.

    Each block is scored alone: its first token is context only, each later one is predicted from
    all before it in the block; tokens whose label is masked are not counted. Of several processes
    each scores a share, and all get the sums: block by block in one order, as one process has them.
    """
    size, own = block_size_of(blocks), own_share(len(blocks))
    sums = np.zeros((3, len(blocks)))
    if own:
        starts = np.arange(len(own)) * size
        pieces = Pieces(starts, starts // size, starts // size)
        some = blocks if len(own) == len(blocks) else blocks.select(own)
        found = score_pieces(model, some, collate, pieces, size, precision, label)
        sums[:, own] = [found["nats"], *(found[name] for name in COUNTS)]
    if process_count() > 1:
        sums = sum_over_processes(torch.from_numpy(sums).to(model.device)).cpu().numpy()
    nats, *counts = sums.sum(1)
    return {"nats": float(nats), **dict(zip(COUNTS, map(int, counts), strict=True))}


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
    together = tokens_at_once(model.device.type)
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
