"""What makes a checkpoint whole: a manifest of its files, written last.

Size and sha256 of every file, as `sha256sum` prints it. While a checkpoint is being written a file
says so, by which what a killed run left is told from what another program made.
"""

import json
from pathlib import Path

from toolkit.run.files import remove, sha256_of, write_atomically
from toolkit.run.processes import process_count

MANIFEST, UNFINISHED = "manifest.json", "unfinished"
PROCESS = "process"  # begins the names of what each process keeps


def begin_checkpoint(folder: Path) -> None:
    """Note that a checkpoint is being written; what its folder held before is gone."""
    remove(folder)
    folder.mkdir(parents=True)
    (folder / UNFINISHED).touch()


def end_checkpoint(folder: Path) -> None:
    files = sorted(file for file in folder.iterdir() if file.name != UNFINISHED)
    known = {f.name: {"bytes": f.stat().st_size, "sha256": sha256_of([f])} for f in files}
    write_atomically(folder / MANIFEST, json.dumps({"files": known}, indent=1).encode())
    (folder / UNFINISHED).unlink()


def is_unfinished(checkpoint: Path) -> bool:
    return (checkpoint / UNFINISHED).exists() and not (checkpoint / MANIFEST).exists()


def what_is_broken(checkpoint: Path) -> str | None:
    """Return what is wrong with a checkpoint, or None where every byte is as it was written."""
    if not checkpoint.is_dir():
        return "no such checkpoint folder"
    if is_unfinished(checkpoint):
        return "it was being written when its run was ended"
    manifest = checkpoint / MANIFEST
    if not manifest.exists():
        return f"it has no {MANIFEST}: another program or an older version made it"
    try:
        files = json.loads(manifest.read_bytes())["files"]
        for name, known in files.items():
            if problem := what_is_wrong_with(checkpoint / name, known["bytes"], known["sha256"]):
                return problem
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"{MANIFEST} is damaged"
    except OSError as error:
        return f"{error.filename} cannot be read ({error.strerror})"
    processes = sum(name.startswith(PROCESS) for name in files)
    if processes != process_count():
        return f"it was made by {processes} processes, not {process_count()}"
    return None


def what_is_wrong_with(file: Path, size: int, sha256: str) -> str | None:
    if not file.is_file():
        return f"{file.name} is missing"
    same = file.stat().st_size == size and sha256_of([file]) == sha256
    return None if same else f"{file.name} is damaged"
