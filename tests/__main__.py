"""`python3 -m tests [pytest's arguments]`: set up what the tests need, once, and run them.

Without arguments: all of them, on two processes.
"""

import sys

from install_libraries import enter_environment
from toolkit.command import command


@command
def main(argv: list[str] | None = None) -> None:
    enter_environment(install=True, lists=("requirements.txt", "requirements-tests.txt"))
    import pytest

    words = sys.argv[1:] if argv is None else argv
    sys.exit(pytest.main(words or ["--numprocesses", "2", "--dist", "loadfile"]))


if __name__ == "__main__":
    main()
