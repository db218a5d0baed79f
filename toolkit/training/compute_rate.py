"""How much arithmetic training a token takes, and how much of it a machine can do a second."""

import time

import torch

from toolkit.model.forward import GPT2LMHeadModel
from toolkit.model.precision import DTYPES

MATRIX = {"cpu": 2048, "cuda": 8192, "mps": 4096}  # large enough to be bound by arithmetic
REPETITIONS = 5


def training_operations_per_token(
    model: GPT2LMHeadModel, block_size: int, learned: float = 1.0
) -> int:
    """Return the floating-point operations of forward and backward, for one token of a block.

    `learned`: the share of the tokens that the head predicts.

    Two for each weight of a matrix product going forward, two going back through it where something
    before it is trained, two for its own gradient; attention by the usual count, which ignores that
    the future is masked: 4 x width x block size a block going forward, twice that going back (PaLM,
    arXiv:2204.02311, appendix B). A model trained in full: 6 N + 12 x blocks x width x block size.
    """
    total, reached = 0, False
    reached = any(p.requires_grad for p in model.transformer.wte.parameters())
    for block in model.transformer.h:
        trained = any(weight.requires_grad for weight in block.parameters())
        attention = 4 * model.config.n_embd * block_size
        total += attention + 2 * attention * (reached or trained)
        total += sum(operations_of(weight, reached or trained) for weight in block.parameters())
        reached = reached or trained
    return total + round(learned * operations_of(model.lm_head.weight, reached))


def operations_of(weight: torch.Tensor, reached: bool) -> int:
    return weight.numel() * (2 + 2 * reached + 2 * weight.requires_grad) if weight.dim() > 1 else 0


def matrix_product_rate(device: str, precision: str) -> float:
    """Return the floating-point operations a second of this machine's own large matrix product."""
    size = MATRIX[device]
    dtype = DTYPES.get(precision, torch.float32)
    left, right = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))
    fastest = float("inf")
    for _ in range(REPETITIONS + 1):
        begin = time.perf_counter()
        product = left @ right
        product[0, 0].item()  # waits for the card
        fastest = min(fastest, time.perf_counter() - begin)
    return 2 * size**3 / fastest
