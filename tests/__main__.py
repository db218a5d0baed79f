"""`python3 -m tests [pytest's arguments]`: set up what the tests need, once, and run them.

Without arguments: all of them, on two processes that share the cores.
"""

import os
import sys

from install_libraries import enter_environment
from toolkit.run.command import command

LISTS = ("requirements.txt", "requirements-serve.txt", "requirements-tests.txt")


@command
def main(argv: list[str] | None = None) -> None:
    enter_environment(install=True, lists=LISTS)
    import pytest

    words = sys.argv[1:] if argv is None else argv
    if not words:  # threads of two processes that wait for each other's cores take twice as long
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 2) // 2)))
        words = ["--numprocesses", "2", "--dist", "worksteal"]
    sys.exit(pytest.main(words))


if __name__ == "__main__":
    main()
