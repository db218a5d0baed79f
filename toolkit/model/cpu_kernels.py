"""Attention and dropout, in ways that a CPU does faster than PyTorch's own.

Attention: in bf16 PyTorch's flash attention takes three times as long for short blocks, and with
dropout it falls back to a way that keeps every weight of every block. Dropout: PyTorch draws its
random numbers one by one.
"""

import numpy as np
import torch

from toolkit.model.library_internals import softmax_backward

QUERIES_AT_ONCE = 256
WEIGHTS_AT_ONCE = 4 * 2**20  # attention weights that exist at the same time


def draw_seed() -> int:
    """Return a seed from torch's generator, so that its state determines every mask."""
    return int(torch.randint(2**62, ()))


class Masks:
    """Dropout masks, in the order in which they are asked for: the same seed, the same masks."""

    def __init__(self, seed: int, rate: float):
        self.generator = np.random.Generator(np.random.SFC64(seed))
        self.least = round(rate * 65536) - 32768
        self.scale = 65536 / (65536 - round(rate * 65536))

    def next(self, like: torch.Tensor) -> torch.Tensor:
        """Return 0 or 1/(1 - rate) for every element; `rate` is rounded to 1/65,536."""
        words = self.generator.integers(0, 2**64, size=-(-like.numel() // 4), dtype=np.uint64)
        bits = torch.from_numpy(words.view(np.int16)[: like.numel()]).view(like.shape)
        return (bits >= self.least).to(like.dtype).mul_(self.scale)


class DropoutFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, rate):
        ctx.seed, ctx.rate = draw_seed(), rate
        return values * Masks(ctx.seed, rate).next(values)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * Masks(ctx.seed, ctx.rate).next(gradient), None


def drop(values: torch.Tensor, rate: float) -> torch.Tensor:
    """Return `torch.nn.functional.dropout`; masks are drawn again going back, never kept."""
    return DropoutFunction.apply(values, rate)


def tiles(queries: torch.Tensor) -> list[tuple[slice, slice, slice]]:
    """Return (heads, queries, keys) slices that cover causal attention over (heads, time, depth).

    The keys of a tile end with its last query: what comes later is masked and not computed.
    """
    heads, time, _ = queries.shape
    step = max(1, WEIGHTS_AT_ONCE // (min(time, QUERIES_AT_ONCE) * time))
    return [
        (slice(head, head + step), slice(first, last), slice(0, last))
        for head in range(0, heads, step)
        for first in range(0, time, QUERIES_AT_ONCE)
        for last in [min(first + QUERIES_AT_ONCE, time)]
    ]


def is_short(queries: torch.Tensor) -> bool:
    return queries.shape[1] <= QUERIES_AT_ONCE


def times(scale: float, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return scale left right, of (heads, rows, inner) and (heads, inner, columns), in one pass."""
    out = left.new_empty(len(left), left.shape[1], right.shape[2])
    return torch.baddbmm(out, left, right, beta=0, alpha=scale, out=out)


def attention_weights(queries: torch.Tensor, keys: torch.Tensor, scale: float) -> torch.Tensor:
    """Return softmax(queries keys^T scale), the last query being at the place of the last key."""
    asked, known = queries.shape[1], keys.shape[1]
    later = torch.full((asked, known), -torch.inf, dtype=queries.dtype).triu_(known - asked + 1)
    return torch.baddbmm(later, queries, keys.transpose(1, 2), alpha=scale).softmax(-1)


class CausalAttention(torch.autograd.Function):
    """Exact attention, tile by tile. Of short blocks the weights are kept for going back, a fifth
    more of what a block keeps; of long ones they are computed again.
    """

    @staticmethod
    def forward(ctx, queries, keys, values, scale, rate):
        ctx.scale, ctx.rate, ctx.seed = scale, rate, draw_seed() if rate else 0
        masks, out, kept = Masks(ctx.seed, rate) if rate else None, torch.empty_like(queries), []
        for head, query, key in tiles(queries):
            weights = attention_weights(queries[head, query], keys[head, key], scale)
            if is_short(queries):
                kept.append(weights)
            if rate:
                weights = weights * masks.next(weights)
            torch.bmm(weights, values[head, key], out=out[head, query])
        ctx.save_for_backward(queries, keys, values, *kept)
        return out

    @staticmethod
    def backward(ctx, gradient):
        queries, keys, values, *kept = ctx.saved_tensors
        masks = Masks(ctx.seed, ctx.rate) if ctx.rate else None
        make = torch.empty_like if kept else torch.zeros_like  # long blocks: several tiles add up
        grad_queries, grad_keys, grad_values = map(make, (queries, keys, values))
        for number, (head, query, key) in enumerate(tiles(queries)):
            part, asked, known = gradient[head, query], queries[head, query], keys[head, key]
            weights = kept[number] if kept else attention_weights(asked, known, ctx.scale)
            grad_weights = torch.bmm(part, values[head, key].transpose(1, 2))
            used = weights
            if ctx.rate:
                mask = masks.next(weights)
                used, grad_weights = weights * mask, grad_weights.mul_(mask)
            grad_scores = softmax_backward(grad_weights, weights, -1, weights.dtype)
            grad_queries[head, query] = times(ctx.scale, grad_scores, known)
            add = torch.Tensor.copy_ if kept else torch.Tensor.add_
            add(grad_values[head, key], torch.bmm(used.transpose(1, 2), part))
            add(grad_keys[head, key], times(ctx.scale, grad_scores.transpose(1, 2), asked))
        return grad_queries, grad_keys, grad_values, None, None


def causal_attention(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float, rate: float
) -> torch.Tensor:
    """Return attention's output for whole blocks; all four are (batch, time, heads, depth).

    `scale`: of the products. `rate`: of dropout, on the attention weights.
    """
    batch, time, heads, depth = queries.shape
    folded = (
        part.transpose(1, 2).reshape(batch * heads, time, depth) for part in (queries, keys, values)
    )
    out = CausalAttention.apply(*folded, scale, rate)
    return out.view(batch, heads, time, depth).transpose(1, 2)
