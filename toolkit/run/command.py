"""What every command promises: exit code 0, 2 (user can mend it), 130 (Ctrl-C), 1 (our defect)."""

import errno
import functools
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from toolkit.run.console import complain
from toolkit.run.shortages import shortage_in

# The operating system's refusals that a user can mend: no permission, a read-only disk, something
# else under a name than should be there.
MENDABLE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENAMETOOLONG,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.ENOTEMPTY,
    errno.ELOOP,
    errno.EIO,
    errno.ESTALE,
}
LONGEST_LINE = 2_000  # characters of a complaint: a value in it may be a whole file


class UserError(Exception):
    """A mistake the user can mend. The message is one line: what is wrong and what to do."""


class Interrupted(Exception):
    """Ctrl-C was answered by saving. The message says what was saved and how to go on."""


def first_line(error: BaseException) -> str:
    """Return the first line of a library's error, for use in a line of ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def command(main: Callable[..., None]) -> Callable[..., None]:
    """Turn the errors a user can mend into one line on stderr and exit code 2."""

    @functools.wraps(main)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            main(*args, **kwargs)
        except UserError as error:
            refuse(str(error))
        except Interrupted as stop:
            complain(str(stop))
            sys.exit(130)
        except KeyboardInterrupt:
            complain("stopped by Ctrl-C; finished steps are kept")
            sys.exit(130)
        except (
            BrokenPipeError
        ):  # the reader of our output (head, less) has left: no fault of anyone
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(141)
        except Exception as error:
            if lacking := shortage_in(error):
                refuse(lacking)
            if not isinstance(error, OSError) or error.errno not in MENDABLE:
                raise
            refuse(f"{error.filename or 'writing'}: {error.strerror}")

    return run


def refuse(message: str) -> NoReturn:
    """End with one line on stderr and exit code 2."""
    line = " ".join(message.split())
    if len(line) > LONGEST_LINE:
        line = f"{line[: LONGEST_LINE // 2]} ... {line[-LONGEST_LINE // 2 :]}"
    complain(f"error: {line}")
    sys.exit(2)
