"""Training in several processes, one a card: what torchrun says, what they tell each other."""

from __future__ import annotations

import os

from toolkit.run.command import UserError
from toolkit.run.lazily import lazily

with lazily():
    import torch


def process_count() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def refuse_several_processes() -> None:
    if process_count() > 1:
        raise UserError(
            "only step 7 runs in several processes: run the others first, then "
            f"torchrun --nproc_per_node {process_count()} train_model.py"
        )


def take_own_card() -> None:
    """Let "cuda" mean the card that belongs to this process."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))


def told_by_first(text: str | None) -> str | None:
    """Return the first process's text in every process, which all wait for."""
    if process_count() == 1:
        return text
    told = [text]
    torch.distributed.broadcast_object_list(told, src=0)
    return told[0]


def any_process(flag: bool, device: torch.device) -> bool:
    """Tell whether the flag is set in one of the processes."""
    if process_count() == 1:
        return flag
    flags = torch.tensor(int(flag), device=device)
    torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
    return bool(flags.item())


def wait_for_all() -> None:
    """Go on when every process has come this far."""
    if process_count() > 1:
        torch.distributed.barrier()


def own_share(count: int) -> range:
    """Return which of `count` things this process does: each is done by one of them."""
    return range(int(os.environ.get("RANK", "0")), count, process_count())


def sum_over_processes(counts: torch.Tensor) -> torch.Tensor:
    """Return the sums of the processes' counts in every process."""
    if process_count() > 1:
        torch.distributed.all_reduce(counts)
    return counts


def own_batches(micro_batch: int, accumulation: int) -> tuple[int, int]:
    """Return a process's micro-batch and accumulation, for the same effective batch of all."""
    processes = process_count()
    if accumulation % processes == 0:
        return micro_batch, accumulation // processes
    if micro_batch % processes == 0:
        return micro_batch // processes, accumulation
    raise UserError(
        f"--per_device_train_batch_size {micro_batch} and --gradient_accumulation_steps "
        f"{accumulation}: one of them must be a multiple of the {processes} processes"
    )
