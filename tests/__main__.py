"""`python3 -m tests [pytest's arguments]`: set up what the tests need, once, and run them."""

import sys

from install_libraries import enter_environment
from toolkit.command import command


@command
def main(argv: list[str] | None = None) -> None:
    enter_environment(install=True, lists=("requirements.txt", "requirements-tests.txt"))
    import pytest

    sys.exit(pytest.main(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    main()
