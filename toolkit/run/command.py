"""What every command promises: exit code 0, 2 (user can mend it), 130 (Ctrl-C), 1 (our defect)."""

import errno
import functools
import os
import sys
from collections.abc import Callable
from typing import Any

from toolkit.run.console import complain

# The operating system's refusals that a user can mend: full or read-only disk, no permission.
MENDABLE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENAMETOOLONG,
    errno.EFBIG,
}


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
            complain(f"error: {' '.join(str(error).split())}")
            sys.exit(2)
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
        except OSError as error:
            if error.errno not in MENDABLE:
                raise
            complain(f"error: {error.filename or 'writing'}: {error.strerror}")
            sys.exit(2)

    return run
