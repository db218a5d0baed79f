"""Which device and precision "auto" means on this machine. torch is loaded only to find out."""

from __future__ import annotations

from toolkit.run.lazily import lazily

with lazily():
    import torch


def pick_device(asked: str) -> str:
    """Return a torch device type: the one asked for; of "auto" CUDA, else MPS, else the CPU."""
    if asked != "auto":
        return asked
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def pick_precision(asked: str, device: str) -> str:
    """Return "fp32", "bf16" or "fp16": the one asked for; of "auto" bf16 if the device has it."""
    if asked != "auto":
        return asked
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device == "cpu" and cpu_has_bf16() else "fp32"


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
