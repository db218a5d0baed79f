"""How every step begins from the shell: its flags, and the run directory as step 2 left it."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import dataclass
from typing import Literal

from toolkit.run.command import UserError
from toolkit.run.console import say
from toolkit.run.devices import pick_device, refuse_missing_device
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
        "auto",
        "auto takes bf16 where that is faster (step 2 measures a CPU); fp16 on older CUDA cards",
    )

    def __post_init__(self) -> None:
        if not self.run_dir.strip():
            raise ValueError("--run_dir must name a folder, got an empty text")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"--seed must lie between 0 and 2**32 - 1, got {self.seed}")
        refuse_missing_device(self.device)
        if self.precision == "fp16" and (device := pick_device(self.device)) != "cuda":
            raise ValueError(f"--precision fp16 needs a CUDA card, not {device}; use bf16 or fp32")


def read_run(options: RunOptions, several_processes: bool = False) -> RunDirectory:
    """Return the run directory, held for this process; device and precision as the options say.

    `several_processes`: whether the step may run in more than one; the first of them holds it.
    """
    if not several_processes:
        refuse_several_processes()
    run = RunDirectory(options.run_dir, options.seed, options.device, options.precision)
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
    run.settle(settled.seed, settled.device, settled.precision)
    if is_first_process() and (changed := changed_versions(run)):
        say(f"       {changed} since step 2; a new import_modules.py writes it down")
    return run, options


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that results depend on."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def changed_versions(run: RunDirectory) -> str | None:
    """Return how the libraries differ from those that step 2 found: `torch 2.12.0 -> 2.13.0`."""
    known = run.record("import_modules")["measured"]["versions"]
    changed = {
        name: version for name, version in library_versions().items() if known.get(name) != version
    }
    return ", ".join(f"{name} {known.get(name)} -> {new}" for name, new in changed.items()) or None
