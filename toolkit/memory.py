"""How much memory this process has needed at most."""

import sys

import psutil
import torch


def peak_memory_bytes() -> int:
    """Return the peak of the card's memory on CUDA, else of resident memory, since the start."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
