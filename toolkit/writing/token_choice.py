"""Pick the next token from logits: the likeliest, or one drawn from a cut distribution.

The cuts and their order are those of transformers' logits processors: repetition penalty,
temperature, top-k, top-p, min-p.
"""

import torch

from toolkit.writing.sampling import Sampling


def choose(
    logits: torch.Tensor, sampling: Sampling, seen: list[list[int]], draws: list[float]
) -> torch.Tensor:
    """Return a token id for each row of `logits` (rows, vocabulary), float32.

    `seen`: each row's prompt and new tokens; only a repetition penalty asks for them. `draws`: a
    number in [0, 1) a row, which decides.
    """
    if sampling.repetition_penalty != 1:
        logits = penalize(logits, seen, sampling.repetition_penalty)
    if sampling.temperature == 0:
        return logits.argmax(-1)
    weights, tokens = weigh(logits, sampling)
    if weights.device.type == "mps":  # it has no float64
        weights, tokens = weights.cpu(), tokens.cpu()
    totals = weights.cumsum(-1, dtype=torch.float64)
    point = torch.tensor(draws, dtype=torch.float64, device=totals.device)[:, None] * totals[:, -1:]
    found = torch.searchsorted(totals, point, right=True)
    return tokens.expand_as(weights).gather(-1, found)[:, 0]


def weigh(logits: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    """Return unnormalised probabilities, 0 for what is cut, and the token ids they belong to."""
    scaled = logits / sampling.temperature
    if sampling.top_k:
        scaled, tokens = scaled.topk(min(sampling.top_k, scaled.shape[-1]))
    elif sampling.top_p < 1:
        scaled, tokens = scaled.sort(descending=True, stable=True)
    else:
        tokens = torch.arange(scaled.shape[-1], device=logits.device)
    weights = scaled.softmax(-1)
    if sampling.top_p < 1:  # sorted by now: cut what begins where the share is reached
        cut = weights.cumsum(-1) - weights >= sampling.top_p
        cut[:, 0] = False  # a tiny share is none in float32, and one token must remain
        weights = weights.masked_fill(cut, 0)
    if sampling.min_p:
        likeliest = weights.amax(-1, keepdim=True)
        weights = weights.masked_fill(weights < sampling.min_p * likeliest, 0)
    return weights, tokens


def penalize(logits: torch.Tensor, seen: list[list[int]], penalty: float) -> torch.Tensor:
    """Make the tokens that a row has seen less likely (for a penalty above 1)."""
    logits = logits.clone()
    for row, tokens in zip(logits, seen, strict=True):
        tokens = torch.tensor(sorted(set(tokens)), device=logits.device)
        scores = row[tokens]
        row[tokens] = torch.where(scores < 0, scores * penalty, scores / penalty)
    return logits
