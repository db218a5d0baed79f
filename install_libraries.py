"""Step 1: put the libraries where every other step will find them.

Makes .venv beside this file and installs requirements.txt into it, once. In an environment that is
already active (venv, conda, Colab) it installs only what is missing there, and leaves a torch that
is new enough alone. Standard library only. Leaves nothing in the run directory.
"""

import importlib.metadata
import os
import re
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from toolkit.run.command import UserError, command
from toolkit.run.console import say
from toolkit.run.options import build, flag, parse_flags
from toolkit.run.steps import label

PROJECT = Path(__file__).resolve().parent
ENVIRONMENT = PROJECT / ".venv"
LABEL = label("install_libraries")
HUGE_PAGES = "glibc.malloc.hugetlb=1"
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"


@dataclass
class InstallOptions:
    """step 1, install_libraries"""

    cpu: bool = flag(False, "take torch from PyTorch's CPU wheels: a smaller download")

    def __post_init__(self) -> None:
        if sys.version_info < (3, 10):  # noqa: UP036 - said here, since nothing has checked it yet
            raise ValueError(f"Python 3.10 or newer is needed, this is {sys.version.split()[0]}")


def install_libraries(
    options: InstallOptions, lists: tuple[str, ...] = ("requirements.txt",)
) -> None:
    """Install what the lists ask for and this interpreter lacks, into its own environment."""
    missing = unmet(lists)
    if not missing:
        return
    say(
        f"{LABEL} installing {len(missing)} libraries into {sys.prefix} "
        "(once; torch alone can be 1 GB)"
    )
    tested = ["-c", str(PROJECT / "constraints.txt")] if Path(sys.prefix) == ENVIRONMENT else []
    torch = next((line for line in missing if line.startswith("torch")), None)
    if torch is None:  # named with its version, so that pip lets it be
        missing.append(f"torch=={importlib.metadata.version('torch')}")
    elif options.cpu:
        pip("install", torch, *tested, "--index-url", CPU_WHEELS)
    if pip("install", *missing, *tested, may_fail=True) != 0:
        say(f"{LABEL} the tested versions cannot be had; trying the newest that the ranges allow")
        pip("install", *missing)
    if still := unmet(lists):
        raise UserError(f"pip finished, yet {', '.join(still)} cannot be found in {sys.prefix}")


def unmet(lists: tuple[str, ...] = ("requirements.txt",)) -> list[str]:
    """Return the requirement lines that this interpreter's environment does not satisfy."""
    lines = [line for name in lists for line in (PROJECT / name).read_text().splitlines()]
    return [line for line in lines if line and not line.startswith("#") and not satisfied(line)]


def satisfied(requirement: str) -> bool:
    """Tell whether `name>=lowest,<highest` is installed. Reads metadata only: imports nothing."""
    name, bounds = re.match(r"([\w-]+)(.*)", requirement).groups()
    try:
        version = release(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return False
    lowest = re.search(r">=([\d.]+)", bounds)
    beyond = re.search(r"<([\d.]+)", bounds)
    return (not lowest or version >= release(lowest[1])) and (
        not beyond or version < release(beyond[1])
    )


def release(version: str) -> tuple[int, ...]:
    """`2.13.0+cpu` -> (2, 13, 0)"""
    return tuple(int(part) for part in re.match(r"\d+(\.\d+)*", version)[0].split("."))


@command
def enter_environment(
    install: bool = False, lists: tuple[str, ...] = ("requirements.txt",)
) -> None:
    """Go on where the libraries are: return if that is here, else restart this command in .venv.

    With `install`, make and fill the environment first; without, say how to.
    """
    os.environ.setdefault(
        "TQDM_DELAY", "2"
    )  # progress bars, ours and the libraries': on what takes longer
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", "15")  # in a log file: now and then a line
    if ask_for_huge_pages():
        start_again(Path(sys.executable))
    if not unmet(lists):
        return
    if in_environment():
        if not install:
            raise UserError(f"{sys.prefix} lacks libraries; run: python3 install_libraries.py")
        return install_libraries(InstallOptions(), lists)
    python = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not works(python):
        if not install:
            raise UserError(
                "the libraries are not installed yet; run: python3 install_libraries.py"
            )
        make_environment()
    start_again(python)


def start_again(python: Path) -> NoReturn:
    """Go on with this command in another process: of an interpreter, or with what os.environ is."""
    again = [str(python), *sys.orig_argv[1:]]
    if os.name == "nt":  # execv does not wait there
        sys.exit(subprocess.run(again).returncode)
    os.execv(python, again)


def ask_for_huge_pages() -> bool:
    """Ask for memory in pages of 2 MB; return whether a new process is needed to read that.

    With pages of 4 KB a CPU trains GPT-2 7% slower (AMX, two cores), and begins 3 s later. It is
    glibc's affair, on Linux; elsewhere nothing happens.
    """
    asked = os.environ.get("GLIBC_TUNABLES", "")
    begun_by_name = sys.argv[0] in sys.orig_argv  # a notebook's %run shares its process
    if sys.platform != "linux" or not begun_by_name or HUGE_PAGES.partition("=")[0] in asked:
        return False
    os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, (asked, HUGE_PAGES)))
    return True


def in_environment() -> bool:
    """Tell whether an environment is active: venv, conda or Colab."""
    conda = os.environ.get("CONDA_PREFIX")
    return (
        sys.prefix != sys.base_prefix
        or (conda is not None and Path(conda) == Path(sys.prefix))
        or "COLAB_RELEASE_TAG" in os.environ
    )


def works(python: Path) -> bool:
    """Tell whether an environment's interpreter runs and has pip: an interrupted one does not."""
    check = [str(python), "-c", "import pip"]
    return python.exists() and subprocess.run(check, capture_output=True).returncode == 0


def make_environment() -> None:
    say(f"{LABEL} making {ENVIRONMENT} with Python {sys.version.split()[0]}")
    try:
        venv.create(ENVIRONMENT, clear=True, with_pip=True)
    except (subprocess.CalledProcessError, OSError) as error:
        raise UserError(
            f"Python cannot make {ENVIRONMENT} ({error}): install its venv module (Debian, Ubuntu: "
            "apt install python3-venv) or activate an environment of your own, then run this again"
        ) from None


def pip(*words: str, may_fail: bool = False) -> int:
    """Run pip here, with its own progress bars, and return its exit code."""
    code = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    ).returncode
    if code != 0 and not may_fail:
        raise UserError("pip could not install the libraries: see its last lines above")
    return code


@command
def main(argv: list[str] | None = None) -> None:
    options = build(InstallOptions, parse_flags(argv, __doc__, InstallOptions))
    if not in_environment():
        enter_environment(install=True)  # comes back only where everything is here already
    install_libraries(options)
    say(
        f"{LABEL} "
        + ", ".join(
            f"{n} {importlib.metadata.version(n)}" for n in ("torch", "transformers", "datasets")
        )
    )


if __name__ == "__main__":
    main()
