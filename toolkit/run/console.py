"""The one place that prints."""

import sys


def say(text: str = "") -> None:
    """Print one line of the pipeline's own output, at once."""
    print(text, flush=True)


def complain(text: str) -> None:
    """Print one line on stderr."""
    print(text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Return a time as people say it: 1 min 20 s, 5 h 15 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours:,} h {minutes_left} min" if hours else f"{minutes} min {rest} s"
