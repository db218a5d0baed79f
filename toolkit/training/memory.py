"""How much memory this process has needed at most, and keeping what it has."""

import contextlib
import ctypes
import sys
from collections.abc import Callable, Iterator

import psutil
import torch

from toolkit.run.command import UserError


def peak_memory_bytes() -> int:
    """Return the peak of the card's memory on CUDA, else of resident memory, since the start."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def keep_freed_memory() -> None:
    """Let glibc reuse freed memory instead of handing it back (Linux; elsewhere nothing happens).

    By default every large tensor is fresh memory from the kernel, which fills it with zeros page by
    page: a third of the time of training GPT-2 on a CPU, three quarters with long blocks.
    """
    if mallopt := of_glibc("mallopt"):
        trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD, M_MMAP_MAX of malloc.h
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)


def give_back_freed_memory() -> None:
    """Hand freed memory back after all, between two kinds of work, whose pieces differ in size.

    Kept, what validation has freed would lie beside what training takes, and both would count.
    """
    if malloc_trim := of_glibc("malloc_trim"):
        malloc_trim(0)


def of_glibc(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


@contextlib.contextmanager
def out_of_memory_refused(blocks: int) -> Iterator[None]:
    """Say in one line what to do where memory ends. `blocks`: of a micro-batch."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one; a processor's has no class
        failed = isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
        if not failed:
            raise
        raise UserError(
            f"out of memory with micro-batches of {blocks}: other programs may have taken it since "
            "step 6 looked; the same command goes on from the last checkpoint, or give step 6 "
            "--per_device_train_batch_size auto, a shorter --block_size, --trainable_blocks or "
            "--lora_rank"
        ) from None
