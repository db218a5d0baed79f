"""Step 4 of 10: read the corpus, cut it into documents, tokenize them. Also the collator.

Swap the corpus with --corpus, or by editing `corpus` below. Leaves create_dataset.json, documents/.
"""

if __name__ == "__main__":
    __import__(
        "install_libraries"
    ).enter_environment()  # from the shell: go on where the libraries are

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from datasets import DatasetDict, load_from_disk
from transformers import PreTrainedTokenizerFast

from import_modules import parse
from load_gpt2 import read_gpt2
from toolkit.command import UserError, command
from toolkit.documents import (
    cut_articles,
    cut_texts,
    looks_like_wikitext,
    save_splits,
    tokenize_documents,
)
from toolkit.hub_datasets import PREFIX, load_hub_dataset, text_column
from toolkit.options import flag
from toolkit.run_directory import RunDirectory
from toolkit.text_files import find_text_files, named_paths, read_text


@dataclass
class DatasetOptions:
    """step 4, create_dataset"""

    corpus: list[str] = flag(
        ["data/keepers_log"], "text files, folders, globs, or one hub:NAME or hub:NAME:CONFIG"
    )
    document_separator: str | None = flag(
        None,
        r"text between two documents, \n for a line end (default: with several files each is a "
        "document; in one file, blank-line paragraphs are grouped)",
    )
    text_column: str | None = flag(
        None, "hub: the column of text (default: text, or the only one of strings)"
    )
    rows: Literal["auto", "document", "line"] = flag(
        "auto", "hub: a row is a document, or a line of WikiText's articles; auto knows WikiText"
    )

    def __post_init__(self) -> None:
        if not self.corpus or not all(self.corpus):
            raise ValueError("--corpus must name at least one file, folder, glob or hub:NAME")
        from_hub = [name for name in self.corpus if name.startswith(PREFIX)]
        if from_hub and len(self.corpus) > 1:
            raise ValueError(f"--corpus takes one Hub dataset alone, got {' '.join(self.corpus)}")
        if not from_hub and (self.text_column or self.rows != "auto"):
            raise ValueError("--text_column and --rows are for hub:NAME corpora")
        if from_hub and self.document_separator:
            raise ValueError("--document_separator is for text files, not for hub:NAME corpora")
        if self.document_separator == "":
            raise ValueError("--document_separator must not be empty")

    def files_read(self) -> list[Path]:
        return [] if self.corpus[0].startswith(PREFIX) else named_paths(self.corpus)


def create_dataset(
    tokenizer: PreTrainedTokenizerFast, options: DatasetOptions, run: RunDirectory
) -> DatasetDict:
    """Return the documents as token ids: one column, `input_ids`, a list a document, each ending in
    end-of-text. One split, `train`, or the corpus's own splits."""
    with (
        run.step(__file__, options, after="load_gpt2") as step,
        tempfile.TemporaryDirectory() as work,
    ):
        documents, accounts = {}, {}
        for name, texts in read_corpus(options).items():
            path = Path(work) / f"{name}.arrow"
            documents[name], accounts[name] = tokenize_documents(texts, tokenizer, path, name)
            if not documents[name].num_rows:
                raise UserError(
                    f"--corpus {' '.join(options.corpus)}: {name} holds no text, only white space"
                )
        save_splits(documents, step.folder("documents"))
        step.results = {"splits": accounts}
        total = {
            key: sum(account[key] for account in accounts.values()) for key in accounts["train"]
        }
        dropped = total["empty_documents_dropped"]
        step.summary = (
            f"{total['documents']:,} documents, {total['tokens']:,} tokens "
            f"from {' '.join(options.corpus)}"
            + (f", splits of its own: {', '.join(documents)}" if len(documents) > 1 else "")
            + (f" ({dropped:,} documents dropped: empty)" if dropped else "")
        )
    return read_documents(run)


def read_documents(run: RunDirectory) -> DatasetDict:
    """Return the tokenized documents of step 4."""
    return load_from_disk(run.finished("create_dataset") / "documents")


def collate(blocks: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    """Return a batch: `input_ids` and `labels`, both int64 of shape (batch, block_size).

    The labels are the inputs, end-of-text included: the model shifts them by one itself.
    """
    tokens = torch.from_numpy(np.stack([block["input_ids"] for block in blocks]).astype(np.int64))
    return {"input_ids": tokens, "labels": tokens.clone()}


def read_corpus(options: DatasetOptions) -> dict[str, Iterable[str]]:
    """Return the texts of the documents, by split."""
    if not options.corpus[0].startswith(PREFIX):
        texts = [
            read_text(path, "--corpus") for path in find_text_files(options.corpus, "--corpus")
        ]
        separator = options.document_separator
        return {"train": cut_texts(texts, separator and separator.replace("\\n", "\n"))}
    dataset = load_hub_dataset(options.corpus[0], "--corpus")
    if "train" not in dataset:
        raise UserError(
            f"--corpus {options.corpus[0]}: has no train split, only {', '.join(dataset)}"
        )
    column = text_column(dataset, options.text_column, "--text_column")
    corpus = {}
    for name in ("train", "validation", "test"):
        if name in dataset:
            rows = dataset[name][column]
            as_lines = options.rows == "line" or (
                options.rows == "auto" and looks_like_wikitext(rows[:20])
            )
            corpus[name] = cut_articles(rows) if as_lines else (row or "" for row in rows)
    return corpus


@command
def main(argv: list[str] | None = None) -> None:
    run, options = parse(argv, DatasetOptions, about=__doc__)
    create_dataset(read_gpt2(run)[1], options, run)


if __name__ == "__main__":
    main()
