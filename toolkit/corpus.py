"""A corpus, from wherever it is, as documents by split; nothing is read before it is asked for."""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import datasets

from toolkit.command import UserError
from toolkit.corpus_files import TABLES, find_files, matching, read_pieces, suffix_of
from toolkit.corpus_tables import Columns, dataset_rows, read_rows
from toolkit.documents import cut_articles, cut_at, cut_paragraphs, lines_of, looks_like_wikitext
from toolkit.hub_datasets import PREFIX, load_hub_dataset

SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "dev": "validation"}
SPLITS |= {"test": "test"}


class Document(NamedTuple):
    """A text with a name to find it by; `completion` is what a prompt is to be answered with."""

    name: str
    text: str
    completion: str | None = None


class Reading(NamedTuple):
    """How to read a corpus. `rows`: "auto", "document" or "line"."""

    columns: Columns
    rows: str
    separator: str | None
    encoding: str


PLAIN = Reading(Columns(), "auto", None, "utf-8")


def read_corpus(names: list[str], reading: Reading, flag: str) -> dict[str, Iterable[Document]]:
    """Return the documents of `train`, and of the corpus's own `validation` and `test`."""
    saved = saved_dataset(names, flag)
    if saved is None:
        files = find_files(names, flag)
        return {
            "train": itertools.chain.from_iterable(
                file_documents(f, files, reading, flag) for f in files
            )
        }
    if "train" not in saved:
        raise UserError(f"{flag} {names[0]}: has no train split, only {', '.join(saved)}")
    splits = {}
    for name, dataset in saved.items():
        if name in SPLITS:
            where = f"{flag} {names[0]}"
            rows = dataset_rows(dataset, reading.columns, where)
            splits[SPLITS[name]] = row_documents(rows, name, reading.rows)
    return splits


def saved_dataset(names: list[str], flag: str) -> dict[str, datasets.Dataset] | None:
    """Return the splits of a Hub dataset or of a saved dataset, or None for plain files."""
    if names[0].startswith(PREFIX):
        return load_hub_dataset(names[0], flag)
    folders = matching(names[0])
    markers = ("dataset_dict.json", "dataset_info.json")
    if len(names) > 1 or len(folders) != 1 or not any((folders[0] / m).exists() for m in markers):
        return None
    try:
        loaded = datasets.load_from_disk(folders[0])
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{flag} {names[0]}: is no whole saved dataset ({error})") from None
    return loaded if isinstance(loaded, dict) else {"train": loaded}


def file_documents(
    path: Path, files: list[Path], reading: Reading, flag: str
) -> Iterator[Document]:
    """Yield the documents of one of the corpus's files."""
    if suffix_of(path) in TABLES:
        rows = read_rows(path, reading.columns, reading.encoding, flag)
        return row_documents(rows, path.name, reading.rows)
    if reading.columns.prompt:
        raise UserError(f"{flag} {path}: plain text has no columns for prompt and completion")
    pieces = read_pieces(path, flag, reading.encoding)
    first = next(pieces, "")
    pieces = itertools.chain([first], pieces)
    if reading.separator:
        texts: Iterable[str] = cut_at(pieces, reading.separator)
    elif reading.rows == "line" or (
        reading.rows == "auto" and looks_like_wikitext(first.split("\n", 20))
    ):
        texts = cut_articles(lines_of(pieces))
    elif len(files) > 1:
        return iter([Document(path.name, "".join(pieces).strip("\n"))])
    else:
        texts = cut_paragraphs(pieces)
    return (Document(f"{path.name}:{number}", text) for number, text in enumerate(texts, start=1))


def row_documents(rows: Iterable[tuple[Any, ...]], name: str, kind: str) -> Iterator[Document]:
    """Yield a document a row, or, where rows are lines, an article from several."""
    rows = iter(rows)
    first = list(itertools.islice(rows, 20))
    rows = itertools.chain(first, rows)
    lines = kind == "line" or (
        kind == "auto" and looks_like_wikitext(row[0] or "" for row in first)
    )
    if lines and first and len(first[0]) == 1:
        rows = ((article,) for article in cut_articles(row[0] or "" for row in rows))
    for number, row in enumerate(rows, start=1):
        yield Document(f"{name}:{number}", *(cell or "" for cell in row))
