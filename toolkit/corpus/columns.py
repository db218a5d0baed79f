"""A table of rows, whatever it was read from, and which of its columns hold the text."""

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from toolkit.run.command import UserError

NAMES_SHOWN = 20
LONGEST_NAME, MOST_WORDS = 40, 4


class Columns(NamedTuple):
    """Which columns to read: `text` (None: find it), `prompt` and `completion`, or `messages`.

    `every`: where it cannot be found, all that may be text, for what asks for words alone.
    """

    text: str | None = None
    prompt: str | None = None
    completion: str | None = None
    messages: str | None = None
    every: bool = False

    def asked(self) -> dict[str, str]:
        """Return the names that were given, by flag."""
        flags = {
            "--messages_column": self.messages,
            "--text_column": self.text,
            "--prompt_column": self.prompt,
            "--completion_column": self.completion,
        }
        return {flag: name for flag, name in flags.items() if name is not None}


class Table(NamedTuple):
    """What is known of a table before its cells are asked for.

    `texts`: the columns that may be the text; `rows(names)`: cells of these columns, row by row,
    None where there is none; `refused`: columns that cannot be read as text, and what they hold;
    `lists`: columns of lists; `values(name)`: what stands in one, row by row, and where.
    In words: `taken`, how the file was read; `doubt`, why the names may be none; `hint`, where the
    text may be.
    """

    names: list[str]
    texts: list[str]
    rows: Callable[[list[str]], Iterator[tuple[str | None, ...]]]
    taken: str = ""
    doubt: str = ""
    hint: str = ""
    refused: dict[str, str] = {}
    lists: tuple[str, ...] = ()
    values: Callable[[str], Iterator[tuple[str, Any]]] | None = None


def find_columns(table: Table, columns: Columns, where: str) -> list[str]:
    """Return the names of the columns to read. Refuses absent ones and such as hold no text."""
    doubt = f" ({table.doubt})" if table.doubt else ""
    known = list(dict.fromkeys([*table.names, *table.lists]))
    for flag, name in columns.asked().items():
        if name not in known:
            raise UserError(
                f"{where}: {flag} {name}: no such column; there are: {listed(known)}{doubt}"
            )
        if name == columns.messages:
            if name not in table.lists:
                raise UserError(f"{where}: {flag} {name} holds text, not lists of messages")
        elif name in table.refused:
            raise UserError(f"{where}: {flag} {name} holds {table.refused[name]}, not text")
    if columns.asked():
        return list(columns.asked().values())
    if "text" in table.names and "text" not in table.refused:
        return ["text"]
    if table.doubt:
        raise UserError(
            f"{where}: {table.doubt} ({listed(table.names)}); put the names in a first line, or "
            "say with --text_column which of these is the name of the text's column"
        )
    if len(table.texts) == 1:
        return table.texts
    if columns.every and table.texts:
        return table.texts
    hint = f"{table.hint}; " if table.hint else ""
    if table.lists and not hint:
        held = table.lists[0]
        hint = f"if {held} holds conversations give --messages_column {held}; else "
    raise UserError(
        f"{where}: {hint}say with --text_column which column is the text: {listed(table.names)}"
    )


def listed(names: list[str]) -> str:
    shown = [name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..." for name in names]
    more = f" and {len(names) - NAMES_SHOWN:,} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(shown[:NAMES_SHOWN]) + more


def looks_like_names(row: list[str]) -> bool:
    """Tell whether a first row holds columns' names: short, none of them a number or a sentence."""
    given = [name.strip() for name in row if name.strip()]  # a saved index has no name
    return len(set(given)) == len(given) > 0 and all(map(is_name, given))


def is_name(name: str) -> bool:
    words = name.split()
    short = len(name) <= LONGEST_NAME and len(words) <= MOST_WORDS
    return (
        short and bool(re.search(r"[^\W\d]", name)) and not re.search(r"[.!?…。！？](\s|$)", name)
    )
