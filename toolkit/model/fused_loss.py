"""Head and cross entropy in one, a few rows at a time: the logits of a batch never exist at once.

The logits of 8 x 1,024 tokens over GPT-2's vocabulary are 1.6 GB in float32, and stock training
holds several copies of them. Here the gradient of each chunk is taken while its logits are at hand,
so that only a chunk of them lives. (The idea is that of Liger Kernel, arXiv:2410.10989.)
"""

import torch

ROWS_ON_CPU, ROWS_ON_CARD = 512, 4096  # of logits at once: what keeps the products busy
IN_CACHE = 8 * 2**20  # bytes of shares in float32, which a CPU passes over five times


def rows_at_once(device: str) -> int:
    return ROWS_ON_CPU if device == "cpu" else ROWS_ON_CARD


def shares_at_once(device: str, vocabulary: int) -> int:
    """Return the rows of which shares exist at the same time."""
    return max(1, IN_CACHE // (4 * vocabulary)) if device == "cpu" else ROWS_ON_CARD


def chunk_bytes(device: str, vocabulary: int, item: int) -> int:
    """Return what logits (of `item` bytes), a copy of some and their shares take."""
    shares = 2 * 4 * shares_at_once(device, vocabulary)
    return vocabulary * (rows_at_once(device) * item + shares)


def next_token_loss(
    states: torch.Tensor,
    weight: torch.Tensor,
    padded: torch.Tensor,
    targets: torch.Tensor,
    count: torch.Tensor | int,
) -> torch.Tensor:
    """Return the summed cross entropy of `targets` over `count`: a float32 scalar, in nats.

    `states`: (rows, width), the last hidden states; those behind the targets' do not count.
    `weight`: (vocabulary, width), what the gradient goes to; `padded`: the same values in the
    states' type, with rows of zeros below. `targets`: (targets,), token ids. `count`: how many
    tokens the whole step predicts, so that micro-batches add up to its mean.
    """
    return FusedLoss.apply(states, weight, padded, targets, count)


class FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, states, weight, padded, targets, count):
        device, vocabulary = states.device.type, len(weight)
        rows, at_once = rows_at_once(device), shares_at_once(device, vocabulary)
        grad_states = torch.empty_like(states)
        grad_padded = torch.zeros_like(padded) if ctx.needs_input_grad[1] else None
        logits = states.new_empty(min(rows, len(states)), len(padded))
        loss = torch.zeros((), device=states.device)
        for start in range(0, len(states), rows):
            part, target = states[start : start + rows], targets[start : start + rows, None]
            products = torch.mm(part, padded.T, out=logits[: len(part)])
            products[len(target) :] = 0
            scores = products[: len(target)]
            scores[:, vocabulary:] = -torch.inf
            for some, wanted in zip(scores.split(at_once), target.split(at_once), strict=True):
                loss += to_gradients(some, wanted)
            torch.mm(products, padded, out=grad_states[start : start + rows])
            if grad_padded is not None:
                grad_padded.addmm_(products.T, part)
        ctx.save_for_backward(grad_states, grad_padded)
        ctx.like, ctx.count = weight, count
        return loss / count

    @staticmethod
    def backward(ctx, grad_loss):
        grad_states, grad_padded = ctx.saved_tensors
        scale, grad_weight = grad_loss / ctx.count, None
        if grad_padded is not None:  # in float32 a CPU multiplies faster than in bf16
            grad_weight = grad_padded[: len(ctx.like)].to(ctx.like.dtype).mul_(scale)
        return grad_states.mul_(scale), grad_weight, None, None, None


def to_gradients(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the summed loss of logits, (rows, vocabulary), and put its gradients in their place.

    `target`: (rows, 1). Shares are float32: in fp16 that of a token beyond 17 nats is 0, its loss
    infinite.
    """
    shares = scores.softmax(1, dtype=torch.promote_types(scores.dtype, torch.float32))
    share = shares.gather(1, target)
    nats = nats_of(share, scores, target).sum()
    scores.copy_(shares.scatter_(1, target, share - 1))
    return nats


def nats_of(share: torch.Tensor, scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return -ln of the targets' shares, (rows, 1); beyond 87 nats, where float32 ends, too."""
    nats = -share.log()
    if (far := share == 0).any():
        exact = scores.float().logsumexp(1, keepdim=True) - scores.gather(1, target).float()
        nats = torch.where(far, exact, nats)
    return nats.float()


def token_losses(
    states: torch.Tensor, padded: torch.Tensor, vocabulary: int, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each target's loss, float32 nats, and whether it was the first choice: (rows,) both.

    As `next_token_loss`, one by one and without gradients; the rows are few enough at once.
    """
    logits = torch.mm(states, padded.T)[: len(targets), :vocabulary].float()
    losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    return losses, logits.argmax(-1) == targets
