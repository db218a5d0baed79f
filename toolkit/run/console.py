"""The one place that prints."""

import functools
import re
import sys
from typing import TextIO

from toolkit.run.widths import padded, width

# What commands a terminal: C0 but for tab and line feed, DEL, C1; and halves of characters, which
# names with bytes of another encoding hold, and which cannot be printed. Joiners (U+200C) are text.
UNSHOWN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def say(text: str = "") -> None:
    """Print one line of the pipeline's own output, at once."""
    put(shown(text) + "\n", sys.stdout)


def say_on(text: str) -> None:
    """Print a piece of a line that goes on."""
    put(shown(text), sys.stdout)


def complain(text: str) -> None:
    """Print one line on stderr."""
    put(shown(text) + "\n", sys.stderr)


def put(text: str, stream: TextIO) -> None:
    """Write at once. What the console's encoding lacks is written as \\u6f22."""
    try:
        stream.write(text)
    except UnicodeEncodeError:
        say_once_that_it_lacks(stream.encoding)
        stream.write(text.encode(stream.encoding, "backslashreplace").decode(stream.encoding))
    stream.flush()


@functools.cache
def say_once_that_it_lacks(encoding: str) -> None:
    complain(f"(the console, {encoding}, lacks some characters; PYTHONIOENCODING=utf-8 shows them)")


def shown(text: str) -> str:
    """Return text without what commands a terminal: U+FFFD stands for each such character."""
    return UNSHOWN.sub("\ufffd", text)


def count(number: int, what: str) -> str:
    """Return a number of things: 1 row, 1,200 rows."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def size(number: float) -> str:
    """Return bytes as people say them: 1.2 GB, 45 MB."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if number >= 0.9995 * unit:
            return f"{number / unit:,.1f} {name}" if unit == 1e9 else f"{number / unit:.0f} {name}"
    return f"{number / 1e3:.0f} kB"


def duration(seconds: float) -> str:
    """Return a time as people say it: 1 min 20 s, 5 h 15 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours:,} h {minutes_left} min" if hours else f"{minutes} min {rest} s"


def aligned(table: list[list[str]]) -> list[str]:
    """Return a table's rows as lines, its columns under each other."""
    widths = [max(map(width, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(padded(cell, columns) for cell, columns in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
