"""Prompts typed in a terminal, or piped in: a line each, or several that are pasted together."""

import sys
from collections.abc import Callable


def reader() -> Callable[[str], str]:
    """Return what shows a mark, and returns what was typed up to Enter.

    It raises EOFError at Ctrl-D and KeyboardInterrupt at Ctrl-C, as `input` does. In a terminal
    lines can be edited, earlier ones come back with the arrow keys, and what is pasted stays one
    prompt, however many lines it has.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return input
    from prompt_toolkit import PromptSession

    return PromptSession().prompt
