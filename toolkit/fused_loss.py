"""Head and cross entropy in one, a few rows at a time: the logits of a batch never exist at once.

The logits of 8 x 1,024 tokens over GPT-2's vocabulary are 1.6 GB in float32, and stock training
holds several copies of them. Here the gradient of each chunk is taken while its logits are at hand,
so that only a chunk of them lives. (The idea is that of Liger Kernel, arXiv:2410.10989.)
"""

import torch

ROWS_ON_CPU, ROWS_ON_CARD = 256, 4096  # what stays in the caches; what keeps a card busy
ALIGNMENT = 64  # matrix products are up to 1.6 times as fast where the vocabulary is a multiple


def aligned(weight: torch.Tensor) -> torch.Tensor:
    """Return a head's weight (vocabulary, width) with rows of zeros up to a multiple of 64."""
    vocabulary, width = weight.shape
    padded = weight.new_zeros(-(-vocabulary // ALIGNMENT) * ALIGNMENT, width)
    padded[:vocabulary] = weight
    return padded


def rows_at_once(device: str) -> int:
    return ROWS_ON_CPU if device == "cpu" else ROWS_ON_CARD


def next_token_loss(
    states: torch.Tensor,
    weight: torch.Tensor,
    padded: torch.Tensor,
    targets: torch.Tensor,
    count: torch.Tensor | int,
) -> torch.Tensor:
    """Return the summed cross entropy of `targets` over `count`: a float32 scalar, in nats.

    `states`: (rows, width), the last hidden states. `weight`: (vocabulary, width), what the
    gradient goes to; `padded`: the same values as of `aligned`. `targets`: (rows,), token ids.
    `count`: how many tokens the whole step predicts, so that micro-batches add up to its mean.
    """
    return FusedLoss.apply(states, weight, padded, targets, count)


class FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, states, weight, padded, targets, count):
        vocabulary = len(weight)
        rows = rows_at_once(states.device.type)
        grad_states = torch.empty_like(states)
        grad_padded = torch.zeros_like(padded) if ctx.needs_input_grad[1] else None
        logits = states.new_empty(min(rows, len(states)), len(padded))
        loss = torch.zeros((), device=states.device)
        for start in range(0, len(states), rows):
            part, target = states[start : start + rows], targets[start : start + rows, None]
            scores = torch.mm(part, padded.T, out=logits[: len(part)])
            scores[:, vocabulary:] = -torch.inf
            gradient = scores.softmax(-1)
            chosen = gradient.gather(1, target)
            loss -= chosen.float().log().sum()
            gradient.scatter_(1, target, chosen - 1)
            torch.mm(gradient, padded, out=grad_states[start : start + rows])
            if grad_padded is not None:
                grad_padded.addmm_(gradient.T, part)
        ctx.save_for_backward(grad_states, grad_padded)
        ctx.vocabulary, ctx.count = vocabulary, count
        return loss / count

    @staticmethod
    def backward(ctx, grad_loss):
        grad_states, grad_padded = ctx.saved_tensors
        scale = grad_loss / ctx.count
        grad_weight = None if grad_padded is None else grad_padded.mul_(scale)[: ctx.vocabulary]
        return grad_states.mul_(scale), grad_weight, None, None, None
