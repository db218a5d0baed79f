"""Characters as a reader counts them, and how wide they are on a terminal.

width("日本 é")  # 6: two, two, one, one; a mark takes no place of its own
"""

import textwrap
import unicodedata

ZERO_WIDTH = ("Mn", "Me", "Cf")


def characters(text: str) -> list[str]:
    """Return a text's characters, each with its marks and joiners: one may be many code points."""
    import regex  # not at the top: step 1 prints before there are libraries

    return regex.findall(r"\X", text)


def width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return len(text) if text.isascii() else sum(map(width_of, text))


def width_of(letter: str) -> int:
    if unicodedata.category(letter) in ZERO_WIDTH:
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def padded(text: str, columns: int) -> str:
    return text + " " * (columns - width(text))


def shortened(text: str, columns: int) -> str:
    """Return a text that fits, cut between words or, where there is no space, characters."""
    if width(text) <= columns:
        return text
    kept, left = "", columns - 4
    for character in characters(text):
        left -= width(character)
        if left < 0:
            break
        kept += character
    head = kept.rsplit(" ", 1)[0]
    return f"{head if width(head) >= columns // 2 else kept} ..."


def wrapped(text: str, columns: int) -> list[str]:
    """Return a line as lines that fit, cut at white space; a word that is longer, in characters."""
    if text.isascii():
        return textwrap.wrap(text, columns) or [""]
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if width(joined) <= columns:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for character in characters(word):
            if width(lines[-1] + character) > columns:
                lines.append("")
            lines[-1] += character
    return lines
