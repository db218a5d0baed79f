"""The model that forward and backward run through: a twin of the one that is trained.

The trained model stays in float32: it takes the optimizer's steps and is what is saved. In bf16 or
fp16 its twin holds the same weights in that precision, cast once a step and not at every use, and
hands each gradient over as soon as it is there (mixed precision with master weights: Micikevicius
et al., arXiv:1710.03740). In float32 the two share their weights.
"""

import copy
from collections.abc import Callable

import torch

from toolkit.cpu_kernels import use_cpu_kernels
from toolkit.fused_loss import aligned, next_token_loss
from toolkit.precision import DTYPES
from toolkit.trainable import plain_model


class TrainingTwin:
    """Computes the training loss of `model` in `precision`; its gradients land in `model`."""

    def __init__(self, model: torch.nn.Module, precision: str, compiled: bool = False):
        model = plain_model(model)
        weights = list(model.parameters())
        shared = precision == "fp32"
        known = {id(weight): weight for weight in weights} if shared else {}
        self.twin = copy.deepcopy(model, known).train()
        self.pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
        if not shared:
            self.twin.to(DTYPES[precision])
        self.padded = aligned(self.twin.lm_head.weight.detach())
        if not shared:
            self._share_the_padded_head()
            self.pairs = list(zip(self.twin.parameters(), weights, strict=True))
            for own, master in self.pairs:
                if master.requires_grad:
                    own.register_post_accumulate_grad_hook(hand_over_to(master))
        if weights[0].device.type == "cpu":
            use_cpu_kernels(self.twin)
        self.body = torch.compile(self.twin.transformer) if compiled else self.twin.transformer

    def loss(
        self, input_ids: torch.Tensor, labels: torch.Tensor, count: torch.Tensor | int
    ) -> torch.Tensor:
        """Return the summed cross entropy of the labels over `count`; masked ones (-100) aside.

        `input_ids`, `labels`: (blocks, block_size); the labels are not shifted yet.
        """
        states = self.body(input_ids, use_cache=False).last_hidden_state[:, :-1]
        targets = labels[:, 1:]
        scored = targets != -100
        head = self.twin.lm_head.weight
        return next_token_loss(states[scored], head, self.padded, targets[scored], count)

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the weights after an optimizer's step."""
        if self.pairs:
            torch._foreach_copy_(*map(list, zip(*self.pairs, strict=True)))
        else:
            self.padded[: self.twin.config.vocab_size] = self.twin.lm_head.weight

    def _share_the_padded_head(self) -> None:
        """Let the head, and the embedding where tied to it, be rows of the padded weight."""
        tied = self.twin.lm_head.weight is self.twin.transformer.wte.weight
        rows = torch.nn.Parameter(
            self.padded[: self.twin.config.vocab_size], self.twin.lm_head.weight.requires_grad
        )
        self.twin.lm_head.weight = rows
        if tied:
            self.twin.transformer.wte.weight = rows


def hand_over_to(master: torch.Tensor) -> Callable[[torch.Tensor], None]:
    """Return a hook that adds a gradient to the float32 weight's, and lets it go."""
    gradient = torch.empty_like(master)  # kept: the optimizer's zero_grad drops it at every step

    def hook(own: torch.Tensor) -> None:
        if master.grad is None:
            master.grad = gradient.copy_(own.grad)
        else:
            master.grad += own.grad
        own.grad = None

    return hook
