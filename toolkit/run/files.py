"""Files and folders: written whole or not at all, removed, measured, hashed."""

import hashlib
import os
import shutil
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent.parent
END_BYTES = 1 << 12


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never half."""
    beside = path.with_name(f".{path.name}.unfinished")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in files_in(path))


def sha256_of(paths: list[Path]) -> str:
    """Return one sha256 over the names and contents of files and folders."""
    digest = hashlib.sha256()
    for path in paths:
        for file in files_in(path):
            digest.update(str(file.relative_to(path.parent)).removeprefix(path.name).encode())
            with file.open("rb") as handle:
                while block := handle.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


def sha256_of_ends(paths: list[Path]) -> str:
    """Return one sha256 over the names and sizes of files, and the first and last END_BYTES."""
    digest = hashlib.sha256()
    for path in paths:
        for file in files_in(path):
            with file.open("rb") as handle:
                size = handle.seek(0, os.SEEK_END)
                name = str(file.relative_to(path.parent)).removeprefix(path.name)
                digest.update(f"{name} {size} ".encode())
                for place in (0, max(0, size - END_BYTES)):
                    handle.seek(place)
                    digest.update(handle.read(END_BYTES))
    return digest.hexdigest()


def signature_of(paths: list[Path]) -> str:
    """Return one sha256 over the names, sizes and times of files: equal where none was touched.

    Opens no file: of a large corpus it tells in no time that nothing has to be hashed anew.
    """
    digest = hashlib.sha256()
    for path in paths:
        for file in files_in(path):
            name, stat = str(file.relative_to(path.parent)).removeprefix(path.name), file.stat()
            digest.update(f"{name} {stat.st_size} {stat.st_mtime_ns} ".encode())
    return digest.hexdigest()


def files_in(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
