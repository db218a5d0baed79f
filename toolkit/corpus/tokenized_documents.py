"""Documents as token ids in an Arrow file: written in batches, read without copying.

Every document ends with the end-of-text token, which is trained on like any other.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import Dataset, DatasetDict
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from toolkit.corpus.contents import hashes_of
from toolkit.corpus.document import Document
from toolkit.corpus.token_text import measure, share_lost, spells
from toolkit.corpus.tokenizing import tokenize

CHARACTERS_AT_ONCE = 1 << 21  # tokenized in one call


def tokenize_documents(
    documents: Iterable[Document],
    tokenizer: PreTrainedTokenizerFast,
    path: Path,
    label: str,
    cores: int | None = None,
) -> tuple[Dataset, dict[str, int]]:
    """Write documents as token ids to an Arrow file and return it as a Dataset, with an account.

    Columns: `name`; `content` and `words`, see `hashes_of`; `input_ids`, a list a
    document, uint16 where the vocabulary fits; `learned`, a list a document: see `tokenize`. Of a
    tokenizer that does not spell (`spells`) also `text`, and `characters`, a list a document: how
    many of these each token stands for. `cores`: how many to tokenize with; None takes all. The
    account's `share_lost` is that of the first documents' characters: see `share_lost`.
    """
    account = dict.fromkeys(("documents", "tokens", *measure(""), "empty_documents_dropped"), 0)
    account["share_lost"] = None  # not known yet
    schema = schema_for(tokenizer)
    progress = tqdm(desc=f"tokenizing {label}", unit=" characters", unit_scale=True)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches_of(documents):
            kept = list(filter(has_text, batch))
            columns = columns_of(kept, tokenizer, cores)
            writer.write_batch(pa.record_batch([columns[name] for name in schema.names], schema))
            if account["share_lost"] is None and kept:
                account["share_lost"] = lost_by(kept, columns, tokenizer, label)
            account["documents"] += len(kept)
            account["tokens"] += len(columns["input_ids"].values)
            for document in kept:
                for name, total in measure(text_of(document)).items():
                    account[name] += total
            account["empty_documents_dropped"] += len(batch) - len(kept)
            progress.update(sum(length_of(document) for document in batch))
    progress.close()
    return Dataset.from_file(str(path)), account


def schema_for(tokenizer: PreTrainedTokenizerFast) -> pa.Schema:
    columns = {"name": pa.string(), "content": pa.uint64(), "words": pa.uint64()}
    columns["input_ids"] = pa.list_(pa.from_numpy_dtype(token_type(tokenizer)))
    columns["learned"] = pa.list_(pa.uint32())
    if not spells(tokenizer):
        columns |= {"text": pa.string(), "characters": pa.list_(pa.uint32())}
    return pa.schema(columns)


def columns_of(
    documents: list[Document], tokenizer: PreTrainedTokenizerFast, cores: int | None
) -> dict[str, pa.Array]:
    """Return the columns of some documents: see `tokenize_documents`."""
    ids, learned, characters = tokenize(documents, tokenizer, cores)
    hashes = np.array([hashes_of(document) for document in documents], np.uint64)
    contents, words = map(pa.array, hashes.reshape(-1, 2).T.copy())
    columns = {
        "name": pa.array([document.name for document in documents], pa.string()),
        "content": contents,
        "words": words,
        "input_ids": as_lists(ids, token_type(tokenizer)),
        "learned": as_lists(learned, np.dtype(np.uint32)),
    }
    if not spells(tokenizer):
        columns["text"] = pa.array(map(text_of, documents), pa.string())
        columns["characters"] = as_lists(characters, np.dtype(np.uint32))
    return columns


def lost_by(
    documents: list[Document],
    columns: dict[str, pa.Array],
    tokenizer: PreTrainedTokenizerFast,
    label: str,
) -> float:
    """Return which share of the documents' characters their tokens do not give back."""
    if spells(tokenizer):
        return 0.0
    ids = (row.values.to_numpy() for row in columns["input_ids"])
    return share_lost(list(map(text_of, documents)), ids, tokenizer, label)


def as_lists(arrays: list[np.ndarray], kind: np.dtype) -> pa.ListArray:
    flat = np.concatenate(arrays) if arrays else np.empty(0)
    offsets = np.cumsum([0, *map(len, arrays)], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat.astype(kind)))


def text_of(document: Document) -> str:
    return "".join(document.parts)


def token_type(tokenizer: PreTrainedTokenizerFast) -> np.dtype:
    """Return the type that token ids are stored in: uint16 where the vocabulary fits."""
    return np.dtype(np.uint16 if len(tokenizer) <= 2**16 else np.uint32)


def has_text(document: Document) -> bool:
    """Tell whether there is anything to learn."""
    return any(part.strip() for part in document.learned)


def length_of(document: Document) -> int:
    return sum(map(len, document.parts))


def batches_of(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Yield documents in batches of about CHARACTERS_AT_ONCE."""
    batch, size = [], 0
    for document in documents:
        batch.append(document)
        size += length_of(document) + 100  # what a row costs beside its text
        if size >= CHARACTERS_AT_ONCE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


class TokenColumn:
    """The token ids of each document of a Dataset, by number: views of its file, nothing copied."""

    def __init__(self, documents: Dataset, column: str = "input_ids"):
        chunks = documents.with_format("arrow")[:][column].chunks if len(documents) else []
        self._values = [chunk.values.to_numpy() for chunk in chunks]
        self._offsets = [chunk.offsets.to_numpy() for chunk in chunks]
        self._first = np.cumsum([0, *(len(chunk) for chunk in chunks)])

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getitem__(self, number: int) -> np.ndarray:
        chunk = int(np.searchsorted(self._first, number, side="right")) - 1
        row = number - self._first[chunk]
        start, stop = self._offsets[chunk][row : row + 2]
        return self._values[chunk][start:stop]

    def lengths(self) -> np.ndarray:
        parts = [np.diff(offsets) for offsets in self._offsets]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)


def save_splits(splits: dict[str, Dataset], folder: Path) -> None:
    """Save each split as `<split>.arrow`. One that lies in a file of its own is moved, not copied:

    copying would touch, and so hold in memory, every page.
    """
    for name, split in splits.items():
        path = folder / f"{name}.arrow"
        if split.cache_files:
            Path(split.cache_files[0]["filename"]).replace(path)
        else:
            table = split.with_format("arrow")[:]
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as file:
                file.write_table(table)


def open_splits(folder: Path) -> DatasetDict:
    """Return the splits that `save_splits` left in a folder, memory-mapped."""
    files = sorted(folder.glob("*.arrow"))
    return DatasetDict({file.stem: Dataset.from_file(str(file)) for file in files})
