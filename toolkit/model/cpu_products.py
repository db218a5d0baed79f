"""Matrix products of bf16 on a CPU with matrix units (AMX), handed over as they are fastest.

oneDNN takes another kernel for each shape and layout, and some take twice as long as others. With
1,024 rows of GPT-2's width, on two cores, in GFLOP/s (benchmarks/README.md):

- A product that is 768 wide: 1,060 to 1,250 at once, 1,750 to 1,930 in halves of 512 rows.
- A weight's gradient, x^T g: 1,520 to 1,710 as it is, 2,570 to 3,030 where x^T is copied first.

The sums are those of one product: no result differs by more than oneDNN's own order of adding.
"""

from functools import cache

import torch
from torch import Tensor

ROWS_AT_ONCE = {512: 256, 768: 512}  # by the width of the result
SMALL = 512  # narrower matrices are as fast at once and as they are
COLUMNS_AT_ONCE = 64  # of a copy that turns a matrix: what stays in the first cache


@cache
def has_matrix_units() -> bool:
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


class Project(torch.autograd.Function):
    """x weight + bias, for rows of x; the weight's gradient comes back in the weight's own type."""

    @staticmethod
    def forward(ctx, x, weight, bias, made):
        """`made`: the weight in the type of x. Shapes: (rows, in), (in, out), (out), (in, out)."""
        ctx.save_for_backward(x, made)
        ctx.dtype = weight.dtype
        return multiply(x, made, bias)

    @staticmethod
    def backward(ctx, gradient):
        x, made = ctx.saved_tensors
        wants_x, wants_weight, wants_bias, _ = ctx.needs_input_grad
        return (
            multiply(gradient, made.T) if wants_x else None,
            weight_gradient(x, gradient).to(ctx.dtype) if wants_weight else None,
            gradient.sum(0) if wants_bias else None,
            None,
        )


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x weight, plus bias: (rows, out), of (rows, in) and (in, out)."""
    inner, width = weight.shape
    out = x.new_empty(len(x), width)
    rows = ROWS_AT_ONCE.get(width, len(x)) if inner >= SMALL else len(x)
    for part, place in zip(x.split(rows), out.split(rows), strict=True):
        if bias is None:
            torch.mm(part, weight, out=place)
        else:
            torch.addmm(bias, part, weight, out=place)
    return out


def weight_gradient(x: Tensor, gradient: Tensor) -> Tensor:
    """Return x^T gradient, (in, out); a small or square one is as fast without a copy."""
    ins, outs = x.shape[1], gradient.shape[1]
    if ins == outs or min(ins, outs) < SMALL:
        return torch.mm(x.T, gradient)
    return torch.mm(turned(x), gradient)


def turned(x: Tensor) -> Tensor:
    """Return x.T in memory of its own, four times as fast as `contiguous` makes it."""
    out = x.new_empty(x.shape[1], len(x))
    step = COLUMNS_AT_ONCE if x.shape[1] < 2048 else COLUMNS_AT_ONCE // 2
    for first in range(0, len(x), step):
        out[:, first : first + step] = x[first : first + step].T
    return out
