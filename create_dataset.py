"""Step 4: read the corpus, cut it into documents, tokenize them.

Swap the corpus with --corpus, or by editing `documents` below. Leaves create_dataset.json,
documents/.
"""

from __future__ import annotations

if __name__ == "__main__":  # from the shell: go on where the libraries are
    __import__("install_libraries").enter_environment()

import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from load_gpt2 import read_tokenizer
from toolkit.corpus.files import HUB_PREFIX, named_paths
from toolkit.run.command import UserError, command
from toolkit.run.console import count
from toolkit.run.files import remove
from toolkit.run.lazily import lazily
from toolkit.run.options import build, flag, require_ranges
from toolkit.run.run_directory import RunDirectory
from toolkit.run.start import parse

with lazily():
    from datasets import Dataset, DatasetDict
    from transformers import PreTrainedTokenizerFast

    from toolkit.blocks.document_stream import DocumentStream
    from toolkit.corpus.columns import Columns
    from toolkit.corpus.conversations import as_conversation  # noqa: F401 - for who edits `documents`
    from toolkit.corpus.cutting import sample_documents
    from toolkit.corpus.document import Document, as_document, with_separator
    from toolkit.corpus.hub_datasets import newest_revision
    from toolkit.corpus.sources import Reading, find_sources, read_corpus
    from toolkit.corpus.tokenized_documents import open_splits, save_splits, tokenize_documents
    from toolkit.corpus.tokenizer_fit import Sample, advice_on


def documents(options: DatasetOptions) -> dict[str, Iterable[Document | str]]:
    """Return the texts of each split; "train" is enough, step 5's shares are then held out of it.

    To train on texts that no file holds, return them here:

        return {"train": (row["body"] for row in my_database)}

    A `Document` has a name, and may have a completion: then the text is the prompt to it. To learn
    from conversations, return what `as_conversation` makes of the messages of each.
    """
    return read_corpus(options.corpus, options.reading(), "--corpus")


@dataclass
class DatasetOptions:
    """step 4, create_dataset"""

    corpus: list[str] = flag(
        ["data/keepers_log"],
        "files (txt md jsonl json csv tsv parquet arrow, also .gz .zst .xz), folders, globs, "
        "a saved dataset, or hub:NAME[:CONFIG]",
    )
    text_column: str | None = flag(
        None, "tables: the column of text (default: text, or the only one of strings)"
    )
    prompt_column: str | None = flag(None, "tables: learn to answer this column ...")
    completion_column: str | None = flag(None, "... with this one; only it is trained on")
    messages_column: str | None = flag(
        None,
        "tables: conversations, lists of messages with role and content (or from and value); the "
        "assistant's are learned",
    )
    speaker: str | None = flag(
        None, "texts are chats, lines of Name: text; what this one says is learned"
    )
    completion_separator: str = flag(r"\nTL;DR: ", "what the model sees between the two")
    rows: Literal["auto", "document", "line"] = flag(
        "auto", "a row is a document, or a line of WikiText's articles; auto knows WikiText"
    )
    document_separator: str | None = flag(
        None,
        r"text files: what stands between documents, \n for a line end (default: with several "
        "files each is a document; in one file, blank-line paragraphs are grouped)",
    )
    encoding: str = flag("utf-8", "of text, CSV and JSON files; a byte-order mark is dropped")
    normalize: Literal["none", "nfc"] = flag(
        "none", "nfc: compose letters and marks that stand apart (NFD), as most texts have them"
    )
    sample_fraction: float | None = flag(
        None, "keep this share of the documents, drawn by the seed, before tokenizing"
    )
    max_documents: int | None = flag(None, "keep at most this many documents a split", above=0)
    num_proc: int | None = flag(
        None,
        "CPU cores to tokenize with, so that others stay free (default: all); what comes out is "
        "the same",
        recorded=False,
        above=0,
    )
    streaming: bool = flag(
        False,
        "for what does not fit on the disk: read and tokenize while training, keep only held-out "
        "documents; needs --max_steps",
    )

    def __post_init__(self) -> None:
        self.notes: list[str] = []  # what the readers say, no option
        require_ranges(self)
        if not self.corpus or not all(self.corpus):
            raise ValueError("--corpus must name at least one file, folder, glob or hub:NAME")
        if len(self.corpus) > 1 and any(name.startswith(HUB_PREFIX) for name in self.corpus):
            raise ValueError(f"--corpus takes one Hub dataset alone, got {' '.join(self.corpus)}")
        if (self.prompt_column is None) != (self.completion_column is None):
            raise ValueError("--prompt_column and --completion_column go together: give both")
        if self.prompt_column and self.text_column:
            raise ValueError("--text_column cannot go with --prompt_column")
        self.refuse_two_forms()
        if self.document_separator == "":
            raise ValueError("--document_separator must not be empty")
        if self.document_separator and self.is_on_hub():
            raise ValueError("--document_separator is for text files, not for hub:NAME corpora")
        if self.sample_fraction is not None and not 0 < self.sample_fraction <= 1:
            raise ValueError(
                f"--sample_fraction must lie above 0 and up to 1, got {self.sample_fraction}"
            )
        for name in ("sample_fraction", "max_documents"):
            if self.streaming and getattr(self, name) is not None:
                raise ValueError(f"--{name} does not go with --streaming: --max_steps bounds that")
        try:
            "a".encode(self.encoding)
        except (LookupError, ValueError):  # zip and the like are codecs, and no text
            raise ValueError(
                f"--encoding {self.encoding}: Python knows no such encoding of text"
            ) from None

        if self.is_on_hub() and not self.corpus[0].split(":")[1].strip("/ "):
            raise ValueError(f"--corpus {self.corpus[0]}: must be hub:NAME or hub:NAME:CONFIG")

    def refuse_two_forms(self) -> None:
        """Refuse flags that say two things of what a row or a text is."""
        forms = {
            "--messages_column": self.messages_column,
            "--prompt_column": self.prompt_column,
            "--speaker": self.speaker,
        }
        given = [flag for flag, value in forms.items() if value is not None]
        if len(given) > 1:
            raise ValueError(f"{given[0]} cannot go with {given[1]}: give one")
        if self.messages_column and self.text_column:
            raise ValueError("--text_column cannot go with --messages_column")
        if self.speaker is not None and not self.speaker.strip(" :"):
            raise ValueError("--speaker must be a name")

    def is_on_hub(self) -> bool:
        return self.corpus[0].startswith(HUB_PREFIX)

    def files_read(self) -> list[Path]:
        return [] if self.is_on_hub() else named_paths(self.corpus)

    def reads_whole_files(self) -> bool:
        return not self.streaming

    def separator(self) -> str:
        return self.completion_separator.replace("\\n", "\n")

    def reading(self) -> Reading:
        separator = self.document_separator and self.document_separator.replace("\\n", "\n")
        columns = Columns(
            self.text_column, self.prompt_column, self.completion_column, self.messages_column
        )
        return Reading(
            columns,
            self.rows,
            separator,
            self.encoding,
            self.streaming,
            note=self.notes.append,
            speaker=self.speaker and self.speaker.strip(" :"),
        )

    def conversations(self) -> bool:
        return self.messages_column is not None or self.speaker is not None


def create_dataset(
    tokenizer: PreTrainedTokenizerFast, options: DatasetOptions, run: RunDirectory
) -> DatasetDict | DocumentStream:
    """Return the documents as token ids, each ending in end-of-text: see `tokenize_documents`.

    One split, `train`, or the corpus's own splits. With --streaming, what reads them on the fly.
    """
    with run.step(__file__, options, after="load_gpt2") as step:
        if options.streaming:
            revision = (
                newest_revision(options.corpus[0], "--corpus") if options.is_on_hub() else None
            )
            accounts = stream_documents(options, lambda: tokenizer, revision).check()
            step.results["revision"] = revision
            remove(run.path / "documents")  # of an earlier run without --streaming
        else:
            sample = Sample()
            tokenized, accounts = tokenize_corpus(
                tokenizer, options, run.seed, step.scratch(), sample
            )
            save_splits(tokenized, step.folder("documents"))
            fit, loaded = bytes_a_token_of(accounts), run.results("load_gpt2")
            if not loaded.get("tokenizer_to_train"):  # else it is bytes, up to step 5
                options.notes += advice_on(sample, fit, tokenizer, loaded["n_positions"])
        learned_alone = options.prompt_column is not None or options.conversations()
        step.results |= {"splits": accounts, "completions": learned_alone}
        step.results["conversations"] = options.conversations()
        step.measured["num_proc"] = options.num_proc
        step.results["notes"] = step.notes = options.notes
        step.summary = summarize(accounts, options)
    return read_documents(run)


def read_documents(run: RunDirectory) -> DatasetDict | DocumentStream:
    """Return the tokenized documents of step 4, or with --streaming what reads them."""
    run.finished("create_dataset")
    record = run.record("create_dataset")
    num_proc = record["measured"]["num_proc"]
    options = build(DatasetOptions, {**record["options"], "num_proc": num_proc})
    if options.streaming:
        if run.changed_input("create_dataset", options):
            mend = run.command_for("create_dataset", "create_dataset")
            raise UserError(f"{run.path}: the stream's input files changed; run: {mend}")
        return stream_documents(options, lambda: read_tokenizer(run), record["results"]["revision"])
    return open_splits(run.artifact("create_dataset", "documents"))


def is_on_conversations(run: RunDirectory) -> bool:
    """Tell whether a run learns from conversations; records of earlier versions do not say."""
    return run.results("create_dataset").get("conversations", False)


def tokenize_corpus(
    tokenizer: PreTrainedTokenizerFast,
    options: DatasetOptions,
    seed: int,
    work: Path,
    sample: Sample,
) -> tuple[dict[str, Dataset], dict[str, dict[str, int]]]:
    """Return each split's documents as token ids, in files in `work`, and an account of each.

    `sample` is given the first of them.
    """
    tokenized, accounts = {}, {}
    for name, texts in documents(options).items():
        texts = (as_document(text, number) for number, text in enumerate(texts, start=1))
        texts = sample_documents(texts, options.sample_fraction, options.max_documents, seed)
        texts = sample.of(prepared(document, options) for document in texts)
        path = work / f"{name}.arrow"
        tokenized[name], accounts[name] = tokenize_documents(
            texts, tokenizer, path, name, options.num_proc
        )
        if (lost := accounts[name]["share_lost"] or 0) >= 0.0005:
            options.notes.append(
                f"{name}: the tokenizer does not give back {lost:.1%} of the characters: it "
                "changes them (case, width, accents) or does not know them"
            )
        if not tokenized[name].num_rows:
            raise UserError(
                f"--corpus {' '.join(options.corpus)}: {name} holds no text, only white space"
            )
    return tokenized, accounts


def prepared(document: Document, options: DatasetOptions) -> Document:
    """Return a document as it is tokenized: composed, if asked for, and with its separator."""
    if options.normalize == "nfc":
        text, *rest = (unicodedata.normalize("NFC", part) for part in document.parts)
        completion, *more = rest or [None]
        more = None if document.more is None else tuple(more)
        document = document._replace(text=text, completion=completion, more=more)
    return with_separator(document, options.separator())


def stream_documents(
    options: DatasetOptions,
    open_tokenizer: Callable[[], PreTrainedTokenizerFast],
    revision: str | None,
) -> DocumentStream:
    """Return what reads the corpus on the fly; nothing is opened yet."""
    reading = options.reading()._replace(revision=revision)
    return DocumentStream(
        find=lambda: find_sources(options.corpus, reading, "--corpus"),
        open_tokenizer=open_tokenizer,
        prepare=lambda document: prepared(document, options),
        completions=options.prompt_column is not None or options.conversations(),
        num_proc=options.num_proc,
    )


def summarize(accounts: dict[str, dict[str, Any]], options: DatasetOptions) -> str:
    total = {
        key: sum(account[key] or 0 for account in accounts.values()) for key in accounts["train"]
    }
    corpus = " ".join(options.corpus)
    own = f", splits of its own: {', '.join(accounts)}" if len(accounts) > 1 else ""
    if options.streaming:
        return (
            f"a stream of {total['sources']:,} files or shards from {corpus}{own}; the first "
            f"documents of {total['sources_checked']:,} can be read, the rest is not known yet"
        )
    dropped = total["empty_documents_dropped"]
    note = f" ({count(dropped, 'document')} dropped: empty)" if dropped else ""
    documents = count(total["documents"], "document")
    fit = f"{count(total['tokens'], 'token')} of {bytes_a_token_of(accounts):.1f} bytes"
    return f"{documents}, {fit} from {corpus}{own}{note}"


def bytes_a_token_of(accounts: dict[str, dict[str, Any]]) -> float:
    """Return how many bytes of the text a token holds, the ends of documents aside."""
    total = {
        key: sum(account[key] for account in accounts.values())
        for key in ("bytes", "tokens", "documents")
    }
    return total["bytes"] / max(1, total["tokens"] - total["documents"])


@command
def main(argv: list[str] | None = None) -> None:
    run, options = parse(argv, DatasetOptions, about=__doc__)
    create_dataset(read_tokenizer(run), options, run)


if __name__ == "__main__":
    main()
