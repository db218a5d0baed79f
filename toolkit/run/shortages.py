"""What the machine has run out of, told from the errors of libraries in four languages.

Python's own writers raise OSError; those of safetensors, torch and the tokenizers raise errors of
their own, in which nothing but the text tells a full disk from a defect.
"""

import errno
import re
from collections.abc import Iterator

AGAIN = "then run the same command again: what was finished is kept"
DISK = f"free some space, or choose another --run_dir, {AGAIN}"
MEMORY = (
    f"end other programs, or take --per_device_train_batch_size auto or a smaller --model, {AGAIN}"
)
OPEN_FILES = f"raise the limit (ulimit -n 1024), {AGAIN}"
LIMIT = f"raise the limit on file sizes (ulimit -f), or take a smaller --model, {AGAIN}"
UNWRITTEN = "a file could not be written: the disk is full, or a limit on file sizes is reached"

ERRORS = {  # number of an OSError -> what to do
    errno.ENOSPC: DISK,
    errno.EDQUOT: DISK,
    errno.EFBIG: LIMIT,
    errno.EMFILE: OPEN_FILES,
    errno.ENFILE: OPEN_FILES,
    errno.ENOMEM: MEMORY,
    errno.EAGAIN: MEMORY,  # no process or thread could be started
}
TEXTS = {  # what a library's error says -> what ran out, and what to do
    r"No space left on device|Disk quota exceeded": f"the disk is full: {DISK}",
    r"File too large": f"a file grew too large: {LIMIT}",
    r"Too many open files": f"too many files are open: {OPEN_FILES}",
    r"PytorchStreamWriter failed|unexpected pos \d+ vs|basic_ios::clear": f"{UNWRITTEN}; {DISK}",
    r"Cannot allocate memory|can't allocate memory|can't start new thread|std::bad_alloc"
    r"|could not (create|execute) a primitive|failed to map segment|Unable to allocate"
    r"|out of memory": f"memory ran out: {MEMORY}",
}


def shortage_in(error: BaseException) -> str | None:
    """Return what ran out and what to do, in one line, or None where that was not the cause."""
    for cause in causes_of(error):
        if isinstance(cause, OSError) and cause.errno in ERRORS:
            what = f"{cause.filename}: " if cause.filename else ""
            return f"{what}{cause.strerror}; {ERRORS[cause.errno]}"
        if isinstance(cause, MemoryError):
            return f"memory ran out: {MEMORY}"
        for sign, says in TEXTS.items():
            if re.search(sign, str(cause)):
                return says
    return None


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, and those that it was raised from or while handling, latest first."""
    cause, seen = error, set()
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__
