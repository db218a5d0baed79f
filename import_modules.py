"""Step 2 of 10: check that the libraries import, pick device and precision, fix the seed.

Owns what holds for the whole run: --run_dir, --seed, --device, --precision. Later steps read them
from here. Leaves import_modules.json.
"""

if __name__ == "__main__":  # from the shell: go on where the libraries are
    __import__("install_libraries").enter_environment()

import importlib.metadata
import os
import platform
from dataclasses import dataclass
from typing import Literal

import torch

from install_libraries import unmet
from toolkit.run.command import UserError, command
from toolkit.run.console import say
from toolkit.run.options import Options, as_command, as_flags, build, flag, parse_flags
from toolkit.run.processes import is_first_process, refuse_several_processes
from toolkit.run.run_directory import RunDirectory

LIBRARIES = ("torch", "transformers", "datasets", "accelerate", "matplotlib")


@dataclass
class RunOptions:
    """run: where, and on what (step 2, import_modules)"""

    run_dir: str = flag("runs/default", "folder of this run", recorded=False)
    seed: int = flag(42, "the one seed: split, weights, batches, samples")
    device: Literal["auto", "cpu", "cuda", "mps"] = flag(
        "auto", "auto takes CUDA, else MPS, else the CPU"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = flag(
        "auto", "auto takes bf16 where the hardware has it; fp16 on older CUDA cards"
    )

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"--seed must lie between 0 and 2**32 - 1, got {self.seed}")
        available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        if not available.get(self.device, True):
            raise ValueError(
                f"--device {self.device}: this machine, or this torch, has none; use auto or cpu"
            )
        if self.precision == "fp16" and self.picked_device != "cuda":
            raise ValueError(
                f"--precision fp16 needs a CUDA card, not {self.picked_device}; use bf16 or fp32"
            )

    @property
    def picked_device(self) -> str:
        if self.device != "auto":
            return self.device
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"

    @property
    def picked_precision(self) -> str:
        if self.precision != "auto":
            return self.precision
        if self.picked_device == "cuda":
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        return "bf16" if self.picked_device == "cpu" and cpu_has_bf16() else "fp32"


def import_modules(options: RunOptions, run: RunDirectory) -> None:
    """Import every library, and write down versions, device and precision."""
    with run.step(__file__, options) as step:
        versions = {"python": platform.python_version()}
        if old := unmet():
            raise UserError(f"{', '.join(old)} is not here; run: python3 install_libraries.py")
        for name in LIBRARIES:
            try:
                importlib.import_module(name)
            except (ImportError, OSError, RuntimeError, AttributeError) as error:
                raise UserError(
                    f"{name} is installed but does not import ({error}); mend it with: "
                    f"python3 -m pip install --force-reinstall {name}"
                ) from None
            versions[name] = importlib.metadata.version(name)
        step.results = {"seed": run.seed}
        step.measured = {
            "versions": versions,
            "device": describe_device(run.device),
            "precision": run.precision,
            "threads": torch.get_num_threads(),
        }
        step.summary = f"{step.measured['device']}, {run.precision}, seed {run.seed}"
    for name, version in versions.items():
        say(f"       {name:<14}{version}")


def read_run(options: RunOptions, several_processes: bool = False) -> RunDirectory:
    """Return the run directory, held for this process, with seed, device and precision picked.

    `several_processes`: whether the step may run in more than one; the first of them holds it.
    """
    if not several_processes:
        refuse_several_processes()
    run = RunDirectory(
        options.run_dir, options.seed, options.picked_device, options.picked_precision
    )
    if is_first_process():
        run.lock()
    return run


def parse(
    argv: list[str] | None,
    options_class: type[Options],
    about: str,
    several_processes: bool = False,
) -> tuple[RunDirectory, Options]:
    """Return what a step needs to run alone: the run directory as step 2 left it, and its options.

    Seed, device and precision are those of step 2's record; flags that say otherwise are refused.
    """
    given = parse_flags(argv, about, RunOptions, options_class)
    options = build(options_class, given)
    asked = build(RunOptions, given)
    run = read_run(asked, several_processes)
    run.finished("import_modules")
    known = run.record("import_modules")["options"]
    for name, value in known.items():
        if name in given and given[name] != value:
            mend = as_command("import_modules.py", ["--run_dir", asked.run_dir, *as_flags(asked)])
            raise UserError(
                f"--{name} is {value} in {run.path}, not {given[name]}; to change it run: {mend}"
            )
    settled = build(RunOptions, known)
    run.seed, run.device, run.precision = (
        settled.seed,
        settled.picked_device,
        settled.picked_precision,
    )
    return run, options


def describe_device(device: str) -> str:
    if device == "cuda":
        return f"cuda ({torch.cuda.get_device_name()})"
    return f"{device} ({os.cpu_count()} cores)" if device == "cpu" else device


def cpu_has_bf16() -> bool:
    """Tell whether the CPU multiplies bf16 in hardware (AVX512-BF16 or AMX)."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@command
def main(argv: list[str] | None = None) -> None:
    options = build(RunOptions, parse_flags(argv, __doc__, RunOptions))
    import_modules(options, read_run(options))


if __name__ == "__main__":
    main()
