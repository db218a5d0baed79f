"""Which document goes into which split, so that no split sees another's."""

from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, DatasetDict

from toolkit.blocks.examples import fit
from toolkit.blocks.holding_out import Selection, cut_tail, hold_out, hold_out_by_hash
from toolkit.blocks.leakage import copies, near_copies, windows_in_train
from toolkit.corpus.tokenized_documents import TokenColumn
from toolkit.run.command import UserError

NAMED_AT_MOST = 20  # copies that the record lists by name


def split_documents(
    documents: DatasetDict, fractions: dict[str, float], seed: int, by_hash: bool = False
) -> tuple[dict[str, Selection], dict[str, Any]]:
    """Return the documents of train, validation and test, and an account of copies.

    `fractions`: the shares of documents to cut from train for `validation` and `test`, where the
    corpus has none of its own; drawn by the seed, or chosen by a hash (see `content_of`). A copy of
    a held-out document is dropped; a short one stays where it was drawn, and is counted.
    Raises UserError where a split would stay empty.
    """
    columns = {name: TokenColumn(split) for name, split in documents.items()}
    shares = [0.0 if name in columns else fractions[name] for name in ("validation", "test")]
    one = len(columns) == 1 and len(columns["train"]) == 1 and not by_hash
    if one and TokenColumn(documents["train"], "learned")[0][0] == 0:  # a text, all of it learned
        return cut_tail(columns["train"][0], *shares), {}
    try:
        if by_hash:
            cut = cut_by_hash(column_of(documents["train"], "content"), shares, seed)
        else:
            cut = hold_out(len(columns["train"]), *shares, seed)
    except ValueError as error:
        raise UserError(
            f"--corpus: {error}; cut it finer with --document_separator, or give more"
        ) from None
    sources, chosen = {}, {}
    for name, numbers in cut.items():
        sources[name] = name if name in columns else "train"
        own = name in columns and name != "train"
        chosen[name] = np.arange(len(columns[name])) if own else numbers

    def hashes(column: str) -> dict[str, np.ndarray]:
        return {name: column_of(documents[sources[name]], column)[chosen[name]] for name in cut}

    account = {}
    for name, copied in copies(hashes("content")).items():
        names = documents[sources[name]].select(chosen[name][copied][:NAMED_AT_MOST])["name"]
        account[name] = {"documents_dropped": int(copied.sum()), "names": list(names)}
        chosen[name] = chosen[name][~copied]
        if not len(chosen[name]):
            others = "test" if name == "validation" else "validation or test"
            raise UserError(
                f"--corpus: every {name} document also stands in {others}, so none is left; give "
                "splits that differ, or one alone: it is cut into three"
            )
    for name, short in copies(hashes("words")).items():
        account[name]["short_copies_kept"] = int(short.sum())
    return {name: Selection(columns[sources[name]], chosen[name]) for name in cut}, account


def cut_by_hash(contents: np.ndarray, shares: list[float], seed: int) -> dict[str, np.ndarray]:
    """Return the numbers of each split's documents: held-out ones in order, train shuffled.

    Raises ValueError where a split would stay empty.
    """
    cut = hold_out_by_hash(contents, *shares)
    for name, share in zip(("train", "validation", "test"), (1.0, *shares), strict=True):
        if share and not len(cut[name]):
            raise ValueError(f"of {len(contents)} documents none falls to {name} by its hash")
    return cut | {"train": np.random.default_rng(seed).permutation(cut["train"])}


def column_of(documents: Dataset, column: str) -> np.ndarray:
    """Return a column of numbers, an entry a document: see `tokenize_documents`."""
    return np.asarray(documents.with_format("numpy")[column])


def source_of(documents: DatasetDict, split: str) -> Dataset:
    """Return the documents that a split's selection numbers: its own, or those it was cut from."""
    return documents[split if split in documents else "train"]


def learned_in(documents: DatasetDict, parts: dict[str, Selection]) -> dict[str, Selection]:
    """Return what is learned of each of a split's documents: see `tokenize`."""
    return {
        name: Selection(TokenColumn(source_of(documents, name), "learned"), part.order)
        for name, part in parts.items()
    }


def texts_of(source: Dataset, part: Selection, longest: int | None) -> Dataset | None:
    """Return the text of each document of a part, where its tokens do not spell it: else None.

    Columns as of `tokenize_documents`: `text`, and `characters`, which say how many of them each
    token stands for. `longest`: of examples of more tokens, what `pad_examples` keeps.
    """
    if "text" not in source.column_names:
        return None
    characters, learned = TokenColumn(source, "characters"), TokenColumn(source, "learned")
    texts, kept = [], []
    for number, tokens in zip(part.order, part, strict=True):
        all_of_it = characters[number]
        if longest is None:
            places = np.arange(len(all_of_it) - len(tokens), len(all_of_it))  # of a tail its own
        else:
            places, _ = fit(learned[number], longest)
        if len(places):
            kept.append(all_of_it[places])
            ends, text = np.cumsum([0, *all_of_it]), source[int(number)]["text"]
            texts.append("".join(text[ends[n] : ends[n + 1]] for n in places))
    return Dataset(pa.table({"text": texts, "characters": pa.array(kept, pa.list_(pa.uint32()))}))


def compare_with_train(
    documents: DatasetDict, parts: dict[str, Selection], window: int
) -> tuple[float | None, dict[str, dict[str, Any]]]:
    """Return the share of the test windows that train has too, and an account by split.

    `window`: its tokens. The share is None without windows. The account counts and names held-out
    documents that are near-copies of training text; a short one is none.
    """
    held_out = {name: part for name, part in parts.items() if name != "train"}
    counts, account = windows_in_train(parts["train"], held_out, window), {}
    for name, part in held_out.items():
        source = source_of(documents, name)
        short = column_of(source, "content") != column_of(source, "words")
        near = part.order[near_copies(*counts[name]) & ~short[part.order]]
        names = source.select(near[:NAMED_AT_MOST])["name"]
        account[name] = {"documents": len(near), "names": list(names)}
    found, windows = (int(count.sum()) for count in counts["test"])
    return found / windows if windows else None, account
