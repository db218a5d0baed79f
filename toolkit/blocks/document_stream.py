"""A corpus read on the fly, again and again, for what does not fit on the disk.

Nothing but the held-out documents is kept. Which these are is decided by a hash of each one's words
(`hold_out_by_hash`), so that no order of reading, no seed and no growth of the corpus moves a
document from one side to the other, and all copies of one are on the same side. Of a short one the
hash is of its name, too (`content_of`): only a new name, another file's or row's, moves it.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from toolkit.blocks.holding_out import Selection, hold_out_by_hash
from toolkit.blocks.leakage import copies
from toolkit.blocks.splitting import NAMED_AT_MOST, column_of
from toolkit.corpus.contents import content_of
from toolkit.corpus.document import Document
from toolkit.corpus.sources import Source
from toolkit.corpus.tokenized_documents import (
    TokenColumn,
    batches_of,
    has_text,
    length_of,
    tokenize_documents,
)
from toolkit.run.command import UserError

HELD_OUT_CHARACTERS = 1 << 22  # a held-out split is full with these: about a million tokens
FILES_CHECKED, DOCUMENTS_CHECKED = 100, 20


@dataclass
class DocumentStream:
    """A corpus and its tokenizer, neither opened before it is needed.

    `find`: see `find_sources`; `prepare`: what is done to a document before it is tokenized.
    """

    find: Callable[[], dict[str, list[Source]]]
    open_tokenizer: Callable[[], PreTrainedTokenizerFast]
    prepare: Callable[[Document], Document]
    completions: bool
    num_proc: int | None = None

    @cached_property
    def sources(self) -> dict[str, list[Source]]:
        return self.find()

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        return self.open_tokenizer()

    def read(self, source: Source) -> Iterator[Document]:
        return map(self.prepare, source.read())

    def read_split(self, split: str) -> Iterator[Document]:
        return itertools.chain.from_iterable(map(self.read, self.sources[split]))

    def check(self) -> dict[str, dict[str, Any]]:
        """Read the first documents of files spread over each split, and return an account.

        Raises UserError where one cannot be read, or where none of the documents holds text.
        """
        accounts = {}
        for split, sources in self.sources.items():
            spread = sources[:: math.ceil(len(sources) / FILES_CHECKED)]
            first = [list(itertools.islice(self.read(s), DOCUMENTS_CHECKED)) for s in spread]
            if not any(has_text(document) for documents in first for document in documents):
                raise UserError(
                    f"--corpus {sources[0].name}: the beginning of {split} holds no text, only "
                    "white space"
                )
            accounts[split] = {
                "documents": None,  # unknown before all is read
                "tokens": None,
                "sources": len(sources),
                "sources_checked": len(spread),
            }
        return accounts


def keep_held_out(
    stream: DocumentStream, fractions: dict[str, float], work: Path
) -> tuple[DatasetDict, dict[str, Selection], dict[str, Any], dict[str, Any]]:
    """Return validation and test as tokenized documents, and as selections; and two accounts.

    The accounts: what was read for it, and of copies in validation as of `split_documents`.
    """
    held_out, account, copied = collect_held_out(stream, fractions)
    documents, parts = DatasetDict(), {}
    for name, texts in held_out.items():
        path = work / f"{name}-documents.arrow"
        documents[name], tokenized = tokenize_documents(
            texts, stream.tokenizer, path, name, stream.num_proc
        )
        account[name] = tokenized
        parts[name] = Selection(TokenColumn(documents[name]))
    words = {name: column_of(split, "words") for name, split in documents.items()}
    short = copies({"train": np.empty(0, np.uint64), **words})["validation"]
    copied["validation"]["short_copies_kept"] = int(short.sum())
    return documents, parts, account, copied


def named_contents(documents: DatasetDict) -> Dataset:
    """Return name and `content` of every document of every split."""
    splits = list(documents.values())
    names = [name for split in splits for name in split["name"]]
    contents = np.concatenate([column_of(split, "content") for split in splits])
    return Dataset.from_dict({"name": names, "content": contents})


def collect_held_out(
    stream: DocumentStream, fractions: dict[str, float]
) -> tuple[dict[str, list[Document]], dict[str, Any], dict[str, Any]]:
    """Return the documents of validation and test, in the order of the corpus, and two accounts.

    Of a split that holds more than HELD_OUT_CHARACTERS these are the first: the rest is not trained
    on either. `fractions`: as for `split_documents`. Raises UserError where a split stays empty.
    """
    shares = {n: 0.0 if n in stream.sources else fractions[n] for n in ("validation", "test")}
    held_out = {name: Held() for name in shares}
    for name in set(shares) & set(stream.sources):
        for document in stream.read_split(name):
            if held_out[name].add(document, content_of(document)):
                break
    cut = {name: held for name, held in held_out.items() if name not in stream.sources}
    read, all_read = fill_from_train(stream, cut, shares) if cut else (0, False)
    contents = {name: np.array(held.contents, np.uint64) for name, held in held_out.items()}
    which = copies({"train": np.empty(0, np.uint64), **contents})["validation"]
    names = held_out["validation"].drop(which)
    copied = {"validation": {"documents_dropped": len(names), "names": names[:NAMED_AT_MOST]}}
    for name, held in held_out.items():
        if not any(map(has_text, held.documents)):
            raise UserError(
                f"--corpus: none of the {read:,} documents read falls to {name} by its hash; raise "
                f"--{name}_fraction, cut finer with --document_separator, or give more"
            )
    account = {"documents_read": read, "all_were_read": all_read, "shares": shares}
    return {name: held.documents for name, held in held_out.items()}, account, copied


class Held:
    """The documents of one held-out split, and the hashes of their words."""

    def __init__(self) -> None:
        self.documents: list[Document] = []
        self.contents: list[int] = []
        self.characters = 0

    def add(self, document: Document, content: int) -> bool:
        """Add a document unless the split is full, and tell whether it is full now."""
        if self.characters < HELD_OUT_CHARACTERS:
            self.documents.append(document)
            self.contents.append(content)
            self.characters += length_of(document)
        return self.characters >= HELD_OUT_CHARACTERS

    def drop(self, which: np.ndarray) -> list[str]:
        """Leave out the documents that `which` marks, and return their names."""
        dropped = [self.documents[number].name for number in np.flatnonzero(which)]
        self.documents = [self.documents[number] for number in np.flatnonzero(~which)]
        return dropped


def fill_from_train(
    stream: DocumentStream, held_out: dict[str, Held], shares: dict[str, float]
) -> tuple[int, bool]:
    """Fill splits with train's documents; return how many were read, and whether these are all."""
    read, full = 0, set()
    progress = tqdm(desc="looking for held-out documents", unit=" characters", unit_scale=True)
    for batch in batches_of(stream.read_split("train")):
        contents = [content_of(document) for document in batch]
        hashes = np.array(contents, np.uint64)
        sides = hold_out_by_hash(hashes, shares["validation"], shares["test"])
        for name, held in held_out.items():
            for number in sides[name]:
                if held.add(batch[number], contents[number]):
                    full.add(name)
        read += len(batch)
        progress.update(sum(map(length_of, batch)))
        if full == set(held_out):
            progress.close()
            return read, False
    progress.close()
    return read, True
