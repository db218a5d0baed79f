"""Rows of several lengths, end to end in one row: a batch without its padding.

Attention alone takes from other tokens, and so is done row by row again. All else in a block treats
each token on its own, and need not know to which row it belongs.
"""

import torch
from torch import Tensor

from toolkit.model.kernels import Attend, Kernels

# Numbers of tokens are rounded up, and some padding goes along: for each new shape oneDNN compiles
# its products anew, which takes milliseconds for each of a block's.
TOKENS, PLACES = 64, 16


class RaggedRows:
    """What must be computed of a batch to predict some targets, in the order in which it is.

    A token is needed up to its row's last target. `positions`: where each of the tokens stands in
    its row, (tokens,); `wanted`: the numbers of those that predict the `targets`, in front, and of
    a few more.
    """

    def __init__(self, targets: Tensor):
        """`targets`: (batch, time), what each token predicts; -100 is nothing, but not all are."""
        places = torch.arange(targets.shape[1], device=targets.device)
        scored = targets != -100
        lengths = ((places + 1) * scored).amax(1, keepdim=True)
        longest, tokens, count = torch.stack(
            [lengths.max(), lengths.sum(), scored.sum()]
        ).tolist()  # a card is waited for once
        time = min(rounded(longest, PLACES), targets.shape[1])
        self.shape = len(targets), time
        needed = first_true((places < lengths)[:, :time].flatten(), rounded(tokens, TOKENS))
        self.wanted = first_true(scored[:, :time].flatten()[needed], rounded(count, TOKENS))
        self.needed, self.positions = needed, needed % time
        self.targets = self.take(targets)[self.wanted[:count]]

    def take(self, batch: Tensor) -> Tensor:
        """Return what belongs to the tokens, (tokens, ...), of a batch of (batch, time, ...)."""
        return batch[:, : self.shape[1]].flatten(0, 1)[self.needed]

    def attend_with(self, kernels: Kernels) -> Attend:
        """Return these kernels' attention for tokens in one row: (tokens, heads, depth) each."""

        def attend(
            number: int, queries: Tensor, keys: Tensor, values: Tensor, scale: float, rate: float
        ) -> Tensor:
            rows = map(self.as_rows, (queries, keys, values))
            mixed = kernels.attend(number, *rows, scale, rate)
            return mixed.flatten(0, 1).index_select(0, self.needed)

        return attend

    def as_rows(self, x: Tensor) -> Tensor:
        """Return (batch, time, ...) with zeros for padding, for tokens of (tokens, ...)."""
        batch, time = self.shape
        flat = x.new_zeros(batch * time, *x.shape[1:]).index_copy(0, self.needed, x)
        return flat.view(batch, time, *x.shape[1:])


def rounded(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def first_true(flags: Tensor, count: int) -> Tensor:
    """Return the numbers of the true flags, in order, then those of others, up to `count`."""
    return flags.int().argsort(stable=True, descending=True)[:count]
