"""Step 2: check that the libraries import, pick device and precision, fix the seed.

Owns what holds for the whole run: --run_dir, --seed, --device, --precision. Later steps read them
from here. Leaves import_modules.json.
"""

from __future__ import annotations

if __name__ == "__main__":  # from the shell: go on where the libraries are
    __import__("install_libraries").enter_environment()

import importlib
import os

from install_libraries import unmet
from toolkit.run.command import UserError, command
from toolkit.run.console import say
from toolkit.run.lazily import lazily
from toolkit.run.options import build, parse_flags
from toolkit.run.run_directory import RunDirectory
from toolkit.run.start import LIBRARIES, RunOptions, library_versions, read_run

with lazily():
    import torch


def import_modules(options: RunOptions, run: RunDirectory) -> None:
    """Import every library, and write down versions, device and precision."""
    with run.step(__file__, options) as step:
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
        versions = library_versions()
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


def describe_device(device: str) -> str:
    if device == "cuda":
        return f"cuda ({torch.cuda.get_device_name()})"
    return f"{device} ({os.cpu_count()} cores)" if device == "cpu" else device


@command
def main(argv: list[str] | None = None) -> None:
    options = build(RunOptions, parse_flags(argv, __doc__, RunOptions))
    import_modules(options, read_run(options))


if __name__ == "__main__":
    main()
