"""Which device and precision "auto" means on this machine. torch is loaded only to find out."""

from __future__ import annotations

import time
from functools import cache

from toolkit.run.lazily import lazily

with lazily():
    import torch


# How much faster a processor must multiply bf16 for its three digits. AMX is 7 times as fast as
# float32, a Zen 5 4 times; what only has AVX512-BF16 may be no faster at all (Intel's: 0.5 to 1.1).
GAIN = 1.5
ROUNDS, ROWS, WIDTH, WIDER = 5, 512, 768, 2304


def pick_device(asked: str) -> str:
    """Return a torch device type: the one asked for; of "auto" CUDA, else MPS, else the CPU."""
    if asked != "auto":
        return asked
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def pick_precision(asked: str, device: str) -> str:
    """Return "fp32", "bf16" or "fp16": the one asked for; of "auto" bf16 if the device gains by it.

    A CUDA card without bf16 gets fp16.
    """
    if asked != "auto":
        return asked
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device == "cpu" and cpu_gains_by_bf16() else "fp32"


def refuse_missing_device(device: str) -> None:
    """Raise ValueError for a device that is asked for and not there."""
    there = {"cuda": lambda: torch.cuda, "mps": lambda: torch.backends.mps}
    if device in there and not there[device]().is_available():
        raise ValueError(
            f"--device {device}: this machine, or this torch, has none; use auto or cpu"
        )


def cpu_has_bf16() -> bool:
    """Tell whether the CPU multiplies bf16 in hardware (AVX512-BF16 or AMX)."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@cache
def cpu_gains_by_bf16() -> bool:
    """Tell whether bf16 products are worth it on this CPU: measured where it has them, in 0.1 s."""
    if not cpu_has_bf16():
        return False
    pairs = {
        dtype: (torch.ones(ROWS, WIDTH, dtype=dtype), torch.ones(WIDTH, WIDER, dtype=dtype))
        for dtype in (torch.float32, torch.bfloat16)
    }
    fastest = dict.fromkeys(pairs, float("inf"))
    for _ in range(ROUNDS):  # in turns, so that other work slows both
        for dtype, (left, right) in pairs.items():
            begin = time.perf_counter()
            left @ right
            fastest[dtype] = min(fastest[dtype], time.perf_counter() - begin)
    return fastest[torch.float32] >= GAIN * fastest[torch.bfloat16]
