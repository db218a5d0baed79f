"""JSON files as tables: a row a line (JSONL), a list of rows, or one object that holds the list.

{"text": "a"}                              column text
{"text": "b", "by": {"name": "Ann"}}       columns text and by.name
{"chat": "g", "messages": [{"content": "a"}, {"content": "b"}]}   column messages.content
"""

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import NoneType
from typing import Any

from toolkit.corpus.columns import Table
from toolkit.corpus.cutting import lines_of
from toolkit.corpus.files import read_chunks, read_text
from toolkit.run.command import UserError
from toolkit.run.console import count

ROWS_LOOKED_AT = 1000  # of a file that is streamed
COLUMNS_KEPT = 1000

Row = dict[str, Any]
Records = Callable[[], Iterator[tuple[str, Any]]]  # what is read, each with its place, in words


class Number(str):
    """A number as it is written: text for whoever asks for it, but no column of strings."""


DECODER = json.JSONDecoder(
    parse_int=Number, parse_float=Number, parse_constant=Number, strict=False
)


def open_json(path: Path, encoding: str, flag: str, streaming: bool) -> Table:
    """Return a JSON file as a table, after looking at all rows (streaming: at the first).

    Raises UserError with the line of what is no JSON, or no object.
    """
    where = f"{flag} {path}"
    head = next(filter(str.strip, lines_of(read_chunks(path, flag, encoding))), "").strip()
    if head.startswith("[") or (head.startswith("{") and decoded(head) is None):
        whole = decode(read_text(path, flag, encoding), where, "")
    else:
        whole = None

    def records() -> Iterator[tuple[str, Any]]:
        if isinstance(whole, list):
            yield from ((f"row {n:,}", row) for n, row in enumerate(whole, start=1))
        elif whole is not None:
            yield "its object", whole
        else:
            for n, line in enumerate(lines_of(read_chunks(path, flag, encoding)), start=1):
                if line.strip():
                    yield f"line {n:,}", decode(line, where, f"line {n:,} ")

    return as_table(records, where, ROWS_LOOKED_AT if streaming else None)


def as_table(records: Records, where: str, most: int | None) -> Table:
    kinds: dict[str, set[type]] = {}  # of the values in each column
    outer: set[str] = set()  # columns that are not within an object
    only: Row = {}  # the row, if there is but one
    number = 0
    for place, record in itertools.islice(records(), most):
        row = as_row(record, where, place)
        outer |= row.keys()
        for name, value in flat(row):
            if name in kinds or len(kinds) < COLUMNS_KEPT:
                kinds.setdefault(name, set()).add(type(value))
        number += 1
        only = row if number == 1 else {}
    if not kinds:
        raise UserError(f"{where}: holds no row")
    inner = {
        f"{field}.{name}": field
        for field, values in flat(only)
        if isinstance(values, list)
        for value in values
        if isinstance(value, dict)
        for name, _ in flat(value)
    }

    def rows(wanted: list[str]) -> Iterator[tuple[str | None, ...]]:
        fields = {inner.get(name) for name in wanted}
        if len(fields) > 1:
            raise UserError(f"{where}: {' and '.join(wanted)} are not columns of the same rows")
        (field,) = fields
        found, names = records(), wanted
        if field is not None:
            inside = dict(flat(only))[field]
            found = ((f"{field}, row {n:,}", row) for n, row in enumerate(inside, start=1))
            names = [name.removeprefix(f"{field}.") for name in wanted]
        nested = not outer.issuperset(names)
        for place, record in found:
            row = as_row(record, where, place)
            row = dict(flat(row)) if nested else row
            yield tuple(as_text(row.get(name), where, place, name) for name in names)

    def values(name: str) -> Iterator[tuple[str, Any]]:
        for place, record in records():
            row = as_row(record, where, place)
            yield place, row[name] if name in row else dict(flat(row)).get(name)

    texts = [n for n, k in kinds.items() if n in outer and str in k and k <= {str, NoneType}]
    fields = list(dict.fromkeys(inner.values()))
    return Table(
        names=[*inner, *(name for name in kinds if name not in fields)],
        texts=[] if inner else texts,
        rows=rows,
        taken="one object" if inner else "" if most else count(number, "row"),
        hint=f"its rows stand in {' and '.join(fields)}" if fields else "",
        refused={name: "a list" for name, kind in kinds.items() if list in kind},
        lists=tuple(name for name, kind in kinds.items() if list in kind),
        values=values,
    )


def flat(row: Row, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield names and values; what stands within objects as `outer.inner`."""
    for key, value in row.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def as_row(record: Any, where: str, place: str) -> Row:
    """Return a record by column; a text alone is column `text`."""
    if type(record) is str:
        return {"text": record}
    if not isinstance(record, dict):
        raise UserError(f"{where}: {place} is {kind_of(record)}, not an object of columns")
    return record


def as_text(value: Any, where: str, place: str, name: str) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | None):
        raise UserError(f"{where}: {place}: {name} holds {kind_of(value)}, not text")
    try:
        if value is not None:
            value.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(value[error.start]):04x}"
        raise UserError(
            f"{where}: {place}: {name} holds half a character ({half} alone); mend or delete it"
        ) from None
    return value


def kind_of(value: Any) -> str:
    return {list: "a list", dict: "an object", NoneType: "null"}.get(type(value), str(value))


def decoded(text: str) -> Any:
    """Return the value that a text is the JSON of, or None if it is not."""
    try:
        return DECODER.decode(text)
    except (ValueError, RecursionError):
        return None


def decode(text: str, where: str, place: str) -> Any:
    try:
        return DECODER.decode(text)
    except json.JSONDecodeError as error:
        at = f"column {error.colno:,}" if place else f"line {error.lineno:,} column {error.colno:,}"
        raise UserError(f"{where}: {place}is not JSON at {at} ({error.msg})") from None
    except RecursionError:
        raise UserError(f"{where}: {place}is nested too deeply to be read") from None
