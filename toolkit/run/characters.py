"""Characters as a reader counts them, and texts that are cut between them, never within one."""

import textwrap

import regex

from toolkit.run.widths import width


def characters(text: str) -> list[str]:
    """Return a text's characters, each with its marks and joiners: one may be many code points."""
    return regex.findall(r"\X", text)


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
