"""The learning rate of every step, as training has it and as a plan says it."""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers.optimization import get_scheduler


def make_schedule(
    optimizer: torch.optim.Optimizer, kind: str, warmup: int, steps: int, kwargs: dict[str, Any]
) -> LRScheduler:
    """Return the library's schedule; one that begins with a rate of 0 from its second rate on.

    So the first step trains, too.
    """
    schedule = get_scheduler(kind, optimizer, warmup, steps, kwargs)
    if isinstance(schedule, LambdaLR) and schedule.lr_lambdas[0](0) == 0:
        longer = get_scheduler(kind, optimizer, warmup, steps + 1, kwargs)
        return LambdaLR(optimizer, [one_step_on(rate) for rate in longer.lr_lambdas])
    return schedule


def one_step_on(rate: Callable[[int], float]) -> Callable[[int], float]:
    return lambda step: rate(step + 1)


def planned_rates(
    peak: float, kind: str, warmup: int, steps: int, kwargs: dict[str, Any]
) -> list[float] | None:
    """Return the rate of each step of a training; None where validation settles it."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    schedule = make_schedule(optimizer, kind, warmup, steps, kwargs)
    if not isinstance(schedule, LambdaLR):
        return None
    return [peak * schedule.lr_lambdas[0](step) for step in range(steps)]
