"""Ways to damage a file, and what must be equal whatever happened."""

import hashlib
import json
import os
import shutil
from pathlib import Path

from toolkit.run.files import files_in
from toolkit.run.steps import STEPS


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[len(content) // 2] ^= 1
    keeping_times(path, bytes(content))


def cut_in_half(path: Path) -> None:
    keeping_times(path, path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    keeping_times(path, b"")


def delete(path: Path) -> None:
    path.unlink()


DAMAGES = (flip_a_bit, cut_in_half, empty, delete)


def keeping_times(path: Path, content: bytes) -> None:
    """Write content with the times that the file had: as a disk that goes bad does it."""
    stat = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def copy_of(folder: Path, to: Path) -> Path:
    """Return a fresh copy of a folder, its times kept."""
    shutil.rmtree(to, ignore_errors=True)
    return Path(shutil.copytree(folder, to, symlinks=True))


def essence(run: Path) -> dict[str, str]:
    """Return what is to be equal: what each step was asked for and found, and every artifact.

    What differs between identical runs (`measured`: seconds, plots with speeds) is left out.
    """
    found = {}
    for path in sorted(run.glob("*.json")):
        if path.stem in STEPS:
            record = json.loads(path.read_text())
            del record["measured"], record["source"]  # what the code is, does not matter
            found[path.stem] = json.dumps(record, sort_keys=True)
            for name in record["results"].get("artifacts", {}):
                found |= contents(run / name)
    return found


def contents(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file."""
    files = files_in(folder) if folder.exists() else []
    return {f"{folder.name} {file.name}": sha256(file) for file in files}


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
