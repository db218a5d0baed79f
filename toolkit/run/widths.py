"""How wide a text is on a terminal, in columns.

width("日本 é")  # 6: two, two, one, one; a mark takes no place of its own
"""

import unicodedata

ZERO_WIDTH = ("Mn", "Me", "Cf")


def width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return len(text) if text.isascii() else sum(map(width_of, text))


def width_of(letter: str) -> int:
    if unicodedata.category(letter) in ZERO_WIDTH:
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def padded(text: str, columns: int) -> str:
    return text + " " * (columns - width(text))
