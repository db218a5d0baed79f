"""Rows of text from tables: JSON, CSV, Parquet and Arrow files, saved datasets, and the Hub."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import datasets
import pyarrow as pa

from toolkit.corpus.files import COMPRESSED, DAMAGED, TABLES, is_utf8, suffix_of
from toolkit.run.command import UserError, first_line

ROWS_AT_ONCE = 256
UNREADABLE = (  # what the library, pandas and Arrow raise on files that are not what they say
    *DAMAGED,
    *(ValueError, TypeError, KeyError, IndexError, AttributeError, OSError, RuntimeError),
    *(StopIteration, pa.ArrowException, datasets.exceptions.DatasetsError),
)


class Columns(NamedTuple):
    """Which columns to read: `text` (None: find it), or `prompt` and `completion`."""

    text: str | None = None
    prompt: str | None = None
    completion: str | None = None


def read_rows(
    path: Path, columns: Columns, encoding: str, flag: str
) -> Iterator[tuple[str | None, ...]]:
    """Yield (text,) or (prompt, completion) for each row of a table file, a few rows in memory."""
    builder = TABLES[suffix_of(path)]
    settings = {}
    if builder != "parquet" and builder != "arrow":
        settings["encoding"] = "utf-8-sig" if is_utf8(encoding) else encoding
    if suffix_of(path) == ".tsv":
        settings["sep"] = "\t"
    if builder in ("parquet", "arrow") and path.suffix.lower() in COMPRESSED:
        raise UserError(f"{flag} {path}: {builder} files are compressed inside; unpack it first")
    try:
        rows = datasets.load_dataset(
            builder, data_files=str(path.resolve()), split="train", streaming=True, **settings
        )
        yield from pick_columns(
            rows.with_format("arrow").iter(ROWS_AT_ONCE), columns, f"{flag} {path}"
        )
    except UserError:
        raise
    except UnicodeDecodeError as error:
        raise UserError(
            f"{flag} {path}: byte 0x{error.object[error.start]:02x} at offset {error.start:,} "
            f"is not {encoding}; name the file's encoding, for example: --encoding latin-1"
        ) from None
    except UNREADABLE as error:
        raise UserError(
            f"{flag} {path}: cannot be read as {suffix_of(path)} ({first_line(deepest(error))})"
        ) from None


def dataset_rows(
    dataset: datasets.Dataset | datasets.IterableDataset, columns: Columns, where: str
) -> Iterator[tuple[str | None, ...]]:
    """Yield (text,) or (prompt, completion) for each row of a dataset, here or on the Hub."""
    try:
        yield from pick_columns(dataset.with_format("arrow").iter(ROWS_AT_ONCE), columns, where)
    except UserError:
        raise
    except UNREADABLE as error:
        raise UserError(
            f"{where}: broke off ({first_line(deepest(error))}); run it again"
        ) from None


def pick_columns(batches: Iterable[pa.Table], columns: Columns, where: str) -> Iterator[tuple]:
    for batch in batches:
        names = find_columns(batch.schema, columns, where)
        yield from zip(*(batch[name].to_pylist() for name in names), strict=True)


def find_columns(schema: pa.Schema, columns: Columns, where: str) -> list[str]:
    """Return the names of the columns to read. Refuses absent ones and such as hold no text."""
    strings = [
        f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)
    ]
    asked = [columns.prompt, columns.completion] if columns.prompt else [columns.text]
    flags = ["--prompt_column", "--completion_column"] if columns.prompt else ["--text_column"]
    for flag, name in zip(flags, asked, strict=True):
        if name is not None and name not in schema.names:
            raise UserError(
                f"{where}: {flag} {name}: no such column; there are: {', '.join(schema.names)}"
            )
        if (
            name is not None
            and name not in strings
            and not pa.types.is_null(schema.field(name).type)
        ):
            raise UserError(f"{where}: {flag} {name} holds {schema.field(name).type}, not text")
    if asked != [None]:
        return asked
    if "text" in strings:
        return ["text"]
    if len(strings) == 1:
        return strings
    raise UserError(
        f"{where}: say with --text_column which column is the text: {', '.join(schema.names)}"
    )


def deepest(error: BaseException) -> BaseException:
    """Return the error that the library wrapped in words of its own."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return error
