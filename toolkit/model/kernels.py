"""What the forward pass calls for its arithmetic, and the one place that chooses it.

`Kernels` is plain PyTorch, for any device. `CPUKernels` and `PackedKernels` do the same faster on a
processor. To add some for another processor, write a class here and let `choose_kernels` pick it.
"""

import copy
from collections.abc import Callable
from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional
from transformers.activations import ACT2FN
from transformers.pytorch_utils import Conv1D

from toolkit.model.cpu_kernels import causal_attention, drop
from toolkit.model.cpu_products import Project, has_matrix_units
from toolkit.model.library_internals import copy_all, linear_pointwise, reorder_linear_weight
from toolkit.model.precision import DTYPES

Attend = Callable[[int, Tensor, Tensor, Tensor, float, float], Tensor]
ALIGNMENT = 64  # matrix products are up to 1.6 times as fast where the vocabulary is a multiple
ROWS = 64  # for which weights are packed
GELU = ("gelu_new", "gelu_pytorch_tanh")  # two names of one function, here one operation


def choose_kernels(
    device: str, precision: str, use: Literal["training", "scoring", "writing"]
) -> "Kernels":
    """Return kernels for a device ("cpu", "cuda", "mps") and "fp32", "bf16" or "fp16".

    Matrix products are done in `precision`. In training so is what lies between them, which saves
    memory and time. Scoring and writing keep the stream of hidden states in float32, and writing
    the logits too: in bf16's three digits the likeliest are often equal, and of 64 greedy texts of
    a small trained model 27 were those of float32, but 58 with float32 logits.
    """
    products = DTYPES.get(precision, torch.float32)
    stream = products if use == "training" else torch.float32
    head = torch.float32 if use == "writing" else products
    kind = Kernels
    if device == "cpu":
        packs = use == "writing" and packing_works(products) and packing_works(head)
        kind = PackedKernels if packs else CPUKernels
    # A card casts in no time; and compiled code cannot look copies up.
    return kind(products, stream, head, keeps=device == "cpu" or use != "training")


class Kernels:
    """Plain PyTorch.

    `products`: the type of the matrix products; `stream`: of the hidden states from block to block;
    `head`: of the logits. `keeps`: weights are cast once, until `refresh`, and not at every use.
    """

    def __init__(
        self,
        products: torch.dtype = torch.float32,
        stream: torch.dtype = torch.float32,
        head: torch.dtype = torch.float32,
        keeps: bool = False,
    ):
        self.products, self.stream, self.head, self.keeps = products, stream, head, keeps
        self.copies: dict = {}  # what is kept, by weight and rows

    def with_attention(self, attend: Attend) -> "Kernels":
        """Return the same kernels (and copies of weights) with another way to attend."""
        other = copy.copy(self)
        other.attend = attend
        return other

    def embed(self, ids: Tensor, weight: Tensor, shared: bool = False) -> Tensor:
        """Return rows of a weight. `shared`: the head's gradient will go to it as well."""
        return functional.embedding(ids, weight)

    def norm(self, x: Tensor, norm: torch.nn.LayerNorm, dtype: torch.dtype) -> Tensor:
        weight, bias = norm.weight.to(x.dtype), norm.bias.to(x.dtype)
        return torch.layer_norm(x, norm.normalized_shape, weight, bias, norm.eps).to(dtype)

    def project(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return x weight + bias, (..., out), for x (..., in) and a weight (in, out)."""
        rows = x.reshape(-1, x.shape[-1])
        product = torch.addmm(bias.to(x.dtype), rows, self.cast(weight, x.dtype))
        return product.view(*x.shape[:-1], -1)

    def widen(self, x: Tensor, projection: torch.nn.Module, name: str) -> Tensor:
        """Return GPT2Config's `activation_function`, by name, of what a projection makes of x."""
        x = projection(x, self)
        return functional.gelu(x, approximate="tanh") if name in GELU else activation(name)(x)

    def drop(self, x: Tensor, rate: float) -> Tensor:
        return functional.dropout(x, rate) if rate else x

    def attend(
        self, number: int, queries: Tensor, keys: Tensor, values: Tensor, scale: float, rate: float
    ) -> Tensor:
        """Return causal attention's (batch, time, heads, depth) from three of that shape.

        `number`: of the block. `rate`: of dropout, on the attention weights.
        """
        parts = (part.transpose(1, 2) for part in (queries, keys, values))
        return functional.scaled_dot_product_attention(
            *parts, dropout_p=rate, is_causal=True, scale=scale
        ).transpose(1, 2)

    def logits(self, states: Tensor, weight: Tensor) -> Tensor:
        """Return (..., vocabulary) for states (..., width) and a head's weight."""
        return functional.linear(states, self.cast(weight, states.dtype))

    def cast(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """Return a matrix in another type; gradients come back in its own."""
        if weight.dtype == dtype or not self.keeps:
            return weight.to(dtype)
        made = self.copy_of(weight, dtype, len(weight))
        trained = weight.requires_grad and torch.is_grad_enabled()
        return Cast.apply(weight, made) if trained else made

    def padded(self, weight: Tensor) -> Tensor:
        """Return a head's weight in its type, with rows of zeros up to a multiple of `ALIGNMENT`.

        Gradients do not come back through it: the fused loss brings the weight's own.
        """
        return self.copy_of(weight, self.head, -(-len(weight) // ALIGNMENT) * ALIGNMENT)

    def copy_of(self, weight: Tensor, dtype: torch.dtype, rows: int) -> Tensor:
        if weight.dtype == dtype and len(weight) == rows:
            return weight.detach()
        kept = self.copies.get((weight, rows))
        if kept is not None:
            return kept
        made = torch.zeros(rows, *weight.shape[1:], dtype=dtype, device=weight.device)
        made[: len(weight)] = weight.detach()
        if self.keeps:
            self.copies[weight, rows] = made
        return made

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the weights after an optimizer's step."""
        if self.copies:
            weights = [weight for weight, _ in self.copies]
            made = [copy[: len(weight)] for (weight, _), copy in self.copies.items()]
            copy_all(made, weights)


class Cast(torch.autograd.Function):
    """A weight's copy in another type, as if it had been cast at this use."""

    @staticmethod
    def forward(ctx, weight, made):
        ctx.dtype = weight.dtype
        return made.view_as(made)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.to(ctx.dtype), None


class CPUKernels(Kernels):
    """Attention in tiles that stay in the caches, and random numbers drawn 64 bits at a time.

    In float32 and without dropout PyTorch's own attention is faster, the bundled model's training
    1.07 times; with dropout tiles train it 1.14 times as fast.
    """

    def embed(self, ids, weight, shared=False):
        # Where the head brings a whole gradient, add a few rows to it, not a second whole one.
        return functional.embedding(ids, weight, sparse=shared)

    def project(self, x, weight, bias):
        if x.dtype != torch.bfloat16 or not has_matrix_units() or not torch.is_grad_enabled():
            return super().project(x, weight, bias)
        rows = x.reshape(-1, x.shape[-1])
        made = self.copy_of(weight, x.dtype, len(weight))
        return Project.apply(rows, weight, bias.to(x.dtype), made).view(*x.shape[:-1], -1)

    def attend(self, number, queries, keys, values, scale, rate):
        if queries.dtype == torch.float32 and not rate:
            return super().attend(number, queries, keys, values, scale, rate)
        return causal_attention(queries, keys, values, scale, rate)

    def drop(self, x, rate):
        return drop(x, rate) if rate else x


NOTHING = ("none", [], "")  # what oneDNN does to a product before it writes it down


class PackedKernels(Kernels):
    """For few rows at a time: oneDNN's products of weights that are laid out for it once.

    PyTorch's own in float32 (MKL) take twice as long on an AMD processor; and oneDNN's sums do not
    depend on the number of rows, so that a text does not depend on what else is in its batch.
    """

    def project(self, x, weight, bias, then=NOTHING):
        if weight not in self.copies:
            self.copies[weight] = packed(weight.T, x.dtype), bias.detach().to(x.dtype)
        return self.multiply(x, *self.copies[weight], then)

    def widen(self, x, projection, name):
        if name not in GELU or not isinstance(projection, Conv1D):  # an adapter adds to it before
            return super().widen(x, projection, name)
        return self.project(x, projection.weight, projection.bias, ("gelu", [], "tanh"))

    def logits(self, states, weight):
        if weight not in self.copies:
            self.copies[weight] = packed(weight, states.dtype), None
        return self.multiply(states, *self.copies[weight])

    def multiply(self, x, weight, bias, then=NOTHING):
        if x.numel() > x.shape[-1]:
            return linear_pointwise(x, weight, bias, *then)
        two = x.expand(2, *x.shape[1:])  # for one row the sums are in another order
        return linear_pointwise(two, weight, bias, *then)[:1]


def packed(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a weight of (out, in) laid out for oneDNN."""
    laid_out = weight.detach().to(dtype).contiguous()
    return reorder_linear_weight(laid_out, ROWS)


@cache
def activation(name: str) -> torch.nn.Module:
    return ACT2FN[name]


@cache
def packing_works(dtype: torch.dtype) -> bool:
    """Tell whether oneDNN's operators are there and give what `linear` gives.

    They are those that torch.compile uses, and private: another release may have them otherwise.
    """
    rows = torch.arange(32.0).view(2, 16).to(dtype)
    try:
        found = PackedKernels().multiply(rows, packed(torch.eye(16), dtype), None)
        return torch.equal(found, rows)
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return False


PLAIN = Kernels()
