"""Files and folders: written whole or not at all, removed, measured, hashed."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

PROJECT = Path(__file__).resolve().parent.parent.parent
END_BYTES = 1 << 12


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never half."""
    beside = path.with_name(f".{path.name}.unfinished")
    remove(beside)  # whatever it is: a link there would lead elsewhere
    try:
        with beside.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        remove(beside)
        raise


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        with contextlib.suppress(FileNotFoundError):  # somebody else is removing it
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
            digest.update(name_in(file, path))
            with open_file(file) as handle:
                while block := handle.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


def sha256_of_ends(paths: list[Path]) -> str:
    """Return one sha256 over the names and sizes of files, and the first and last END_BYTES."""
    digest = hashlib.sha256()
    for path in paths:
        for file in files_in(path):
            with open_file(file) as handle:
                size = handle.seek(0, os.SEEK_END)
                digest.update(name_in(file, path) + f" {size} ".encode())
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
            stat = file.stat()
            digest.update(name_in(file, path) + f" {stat.st_size} {stat.st_mtime_ns} ".encode())
    return digest.hexdigest()


def at_home(name: str) -> Path:
    """Return a path, `~` in it standing for a home that there is."""
    try:
        return Path(name).expanduser()
    except RuntimeError:  # nobody of that name
        return Path(name)


def files_in(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def name_in(file: Path, path: Path) -> bytes:
    """Return a file's name within `path`, as bytes: a name need not be text."""
    return os.fsencode(str(file.relative_to(path.parent)).removeprefix(path.name))


def json_of(text: str | bytes) -> Any:
    """Return what JSON says. Raises JSONDecodeError for what is nested too deeply as well."""
    try:
        return json.loads(text)
    except RecursionError:
        raise json.JSONDecodeError("nested too deeply", "", 0) from None


def open_file(path: Path) -> BinaryIO:
    """Open a file to read. Raises OSError for what has no end or waits: a device, a pipe."""
    if not path.is_file():
        path.stat()  # says it where there is nothing
        raise OSError(errno.EINVAL, "it is no file", str(path))
    return path.open("rb")


def strangers_in(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield what below a folder is no file or folder of its own, and what it is.

    That is a link that leads out of it, a device, a pipe.
    """
    home, todo = folder.resolve(), [folder]
    while todo:
        with contextlib.suppress(FileNotFoundError), os.scandir(todo.pop()) as entries:
            for entry in entries:
                path = Path(entry.path)
                if entry.is_symlink():
                    if leads_out(path, home):
                        yield path, f"a link to {os.readlink(path)}"
                elif entry.is_dir():
                    todo.append(path)
                elif not entry.is_file():
                    yield path, "neither a file nor a folder"


def leads_out(link: Path, home: Path) -> bool:
    """Tell whether a link leads out of a folder, or nowhere."""
    try:
        return not link.resolve().is_relative_to(home)
    except (OSError, RuntimeError):  # it leads to itself
        return True
