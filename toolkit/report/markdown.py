"""Text of others in pages of Markdown: it reads as it is written and never becomes markup."""

import html
import re

from toolkit.run.characters import wrapped
from toolkit.run.console import shown

WIDTH = 96  # letters of a line of text in a block
MARKUP = re.compile(r"<[A-Za-z/!?]")  # what may begin a tag or a comment
SIGNS = re.compile(r"([\\`*\[\]<>&#~|!]|(?<!\w)_|_(?!\w))")  # within a word _ is no sign


def plain(text: str) -> str:
    """Return text as one line of Markdown that reads as it is written: no markup, no HTML."""
    return SIGNS.sub(r"\\\1", " ".join(shown(text).split())).replace("\\<", "&lt;")


def in_code(text: str) -> str:
    """Return text as code within a line."""
    line = " ".join(shown(text).split())
    if MARKUP.search(line) or "`" in line:
        return f"<code>{html.escape(line, quote=False).replace('`', '&#96;')}</code>"
    return f"`{line}`"


def fenced(text: str, width: int | None = WIDTH) -> list[str]:
    """Return text as a block that Markdown shows as it is, wrapped for reading; None: unwrapped.

    Where it holds what looks like a tag, the block is one of escaped HTML: not every reader of
    Markdown leaves a fence's content alone.
    """
    lines = shown(text).splitlines()
    if width:
        lines = [part for line in lines for part in wrapped(line, width)]
    if MARKUP.search(text):
        return ["<pre>", *(html.escape(line, quote=False) for line in lines), "</pre>"]
    fence = "~~~"
    while fence in text:
        fence += "~"
    return [fence + "text", *lines, fence]
