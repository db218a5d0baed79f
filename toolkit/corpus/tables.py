"""Rows of text from tables: CSV, JSON, Parquet and Arrow files, saved datasets, and the Hub."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as parquet

from toolkit.corpus.columns import Columns, Table, find_columns
from toolkit.corpus.conversations import conversations_in
from toolkit.corpus.cutting import Note
from toolkit.corpus.delimited import open_delimited
from toolkit.corpus.files import COMPRESSED, DAMAGED, MARK, name_of, suffix_of
from toolkit.corpus.json_rows import open_json
from toolkit.run.command import UserError, first_line
from toolkit.run.console import count

ROWS_AT_ONCE = 256
UNREADABLE = (  # what the libraries raise on files that are not what they say
    *DAMAGED,
    *(ValueError, TypeError, KeyError, IndexError, AttributeError, OSError, RuntimeError),
    *(StopIteration, pa.ArrowException, datasets.exceptions.DatasetsError),
)
TEXT_TYPES = (pa.string(), pa.large_string(), pa.string_view(), pa.null())

Rows = Iterator[tuple[Any, ...]]  # the fields of a Document, but for its name


def read_rows(
    path: Path,
    columns: Columns,
    encoding: str,
    flag: str,
    streaming: bool,
    note: Note,
) -> Rows:
    """Yield (text,), (prompt, completion) or a conversation's parts for each row of a table file.

    Few rows are in memory. Only the columns that are asked for are read. `note` is told how the
    file was taken.
    """
    suffix, where = suffix_of(path), f"{flag} {path}"
    try:
        if suffix in (".csv", ".tsv"):
            table = open_delimited(path, encoding, flag, streaming)
        elif suffix in (".json", ".jsonl"):
            table = open_json(path, encoding, flag, streaming)
        elif path.suffix.lower() in COMPRESSED:
            raise UserError(f"{where}: {suffix} files are compressed inside; unpack it first")
        else:
            table = open_parquet(path) if suffix == ".parquet" else open_arrow(path)
        yield from found_rows(table, columns, where, lambda text: note(f"{name_of(path)}: {text}"))
    except UNREADABLE as error:
        raise UserError(
            f"{where}: cannot be read as {suffix} ({first_line(deepest(error))})"
        ) from None


def open_parquet(path: Path) -> Table:
    file = parquet.ParquetFile(path)
    rows = partial(file.iter_batches, ROWS_AT_ONCE)
    return typed_table(
        file.schema_arrow, lambda names: rows(columns=names), count(file.metadata.num_rows, "row")
    )


def open_arrow(path: Path) -> Table:
    source = pa.memory_map(str(path))
    try:
        reader = pa.ipc.open_file(source)
        batches = map(reader.get_batch, range(reader.num_record_batches))
    except pa.ArrowInvalid:  # the other of the format's two kinds
        reader = pa.ipc.open_stream(source)
        batches = iter(reader)
    return typed_table(reader.schema, lambda names: (batch.select(names) for batch in batches))


def dataset_rows(
    dataset: datasets.Dataset | datasets.IterableDataset,
    columns: Columns,
    where: str,
    note: Note = lambda text: None,
) -> Rows:
    """Yield what `read_rows` does, for each row of a dataset, here or on the Hub."""
    try:
        if isinstance(dataset, datasets.Dataset):
            schema = dataset.data.schema
        else:
            schema = next(dataset.with_format("arrow").iter(1)).schema

        def batches(names: list[str]) -> Iterable[pa.Table]:
            return dataset.select_columns(names).with_format("arrow").iter(ROWS_AT_ONCE)

        known = isinstance(dataset, datasets.Dataset)
        table = typed_table(schema, batches, count(len(dataset), "row") if known else "")
        yield from found_rows(table, columns, where, note)
    except UNREADABLE as error:
        raise UserError(
            f"{where}: broke off ({first_line(deepest(error))}); run it again"
        ) from None


def found_rows(table: Table, columns: Columns, where: str, note: Note) -> Rows:
    """Yield the cells of the columns to read, tidied; of messages, a conversation's parts."""
    names = find_columns(table, columns, where)
    note(taken(table, names))
    if columns.messages is None:
        yield from map(tidy, table.rows(names))
    else:
        yield from conversations_in(table.values(columns.messages), where, note)


def typed_table(
    schema: pa.Schema,
    batches: Callable[[list[str]], Iterable[pa.RecordBatch | pa.Table]],
    taken: str = "",
) -> Table:
    """Return a table whose columns have types. `batches(names)`: its rows, with these columns."""

    def rows(names: list[str]) -> Rows:
        for batch in batches(names):
            yield from zip(*(batch[name].to_pylist() for name in names), strict=True)

    def values(name: str) -> Iterator[tuple[str, Any]]:
        cells = (cell for batch in batches([name]) for cell in batch[name].to_pylist())
        return ((f"row {number:,}", cell) for number, cell in enumerate(cells, start=1))

    def inner(kind: pa.DataType) -> pa.DataType:
        return kind.value_type if pa.types.is_dictionary(kind) else kind

    refused = {f.name: str(f.type) for f in schema if inner(f.type) not in TEXT_TYPES}
    texts = [f.name for f in schema if f.name not in refused and not pa.types.is_null(f.type)]
    lists = tuple(f.name for f in schema if pa.types.is_nested(f.type))
    return Table(schema.names, texts, rows, taken, refused=refused, lists=lists, values=values)


def taken(table: Table, names: list[str]) -> str:
    """Return how a table was read, in words: 200 rows, separator ';', column text."""
    columns = f"column{'s' if len(names) > 1 else ''} {' and '.join(names)}"
    return f"{table.taken}, {columns}" if table.taken else columns


def tidy(row: tuple[str | None, ...]) -> tuple[str, ...]:
    """Return cells with line ends as in text files, and nothing where there is none."""
    return tuple(map(tidied, row))


def tidied(cell: str | None) -> str:
    if cell is None:
        return ""
    if "\r" in cell:
        cell = cell.replace("\r\n", "\n").replace("\r", "\n")
    return cell.replace(MARK, "") if MARK in cell else cell


def deepest(error: BaseException) -> BaseException:
    """Return the error that the library wrapped in words of its own."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return error
