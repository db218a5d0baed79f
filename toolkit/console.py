"""The one place that prints."""

import sys


def say(text: str = "") -> None:
    """Print one line of the pipeline's own output, at once."""
    print(text, flush=True)


def complain(text: str) -> None:
    """Print one line on stderr."""
    print(text, file=sys.stderr, flush=True)
