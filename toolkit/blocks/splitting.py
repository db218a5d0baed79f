"""Which document goes into which split, so that no split sees another's."""

from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict

from toolkit.blocks.holding_out import Selection, cut_tail, hold_out, hold_out_by_hash
from toolkit.blocks.leakage import copies
from toolkit.corpus.tokenized_documents import TokenColumn
from toolkit.run.command import UserError

NAMED_AT_MOST = 20  # copies that the record lists by name


def split_documents(
    documents: DatasetDict, fractions: dict[str, float], seed: int, by_hash: bool = False
) -> tuple[dict[str, Selection], dict[str, Any]]:
    """Return the documents of train, validation and test, and an account of dropped copies.

    `fractions`: the shares of documents to cut from train for `validation` and `test`, where the
    corpus has none of its own; drawn by the seed, or chosen by a hash of each document's words.
    Raises UserError where a split would stay empty.
    """
    columns = {name: TokenColumn(split) for name, split in documents.items()}
    shares = [0.0 if name in columns else fractions[name] for name in ("validation", "test")]
    if len(columns) == 1 and len(columns["train"]) == 1 and not by_hash:
        return cut_tail(columns["train"][0], *shares), {}
    try:
        if by_hash:
            cut = cut_by_hash(contents_of(documents["train"]), shares, seed)
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
    contents = {name: contents_of(documents[sources[name]])[chosen[name]] for name in cut}
    account = {}
    for name, copied in copies(contents).items():
        if not copied.any():
            continue
        names = documents[sources[name]].select(chosen[name][copied][:NAMED_AT_MOST])["name"]
        account[name] = {"documents_dropped": int(copied.sum()), "names": list(names)}
        chosen[name] = chosen[name][~copied]
        if not len(chosen[name]):
            raise UserError(f"--corpus: every {name} document is a copy of a held-out one")
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


def contents_of(documents: Dataset) -> np.ndarray:
    """Return the hash of each document's words: uint64."""
    return np.asarray(documents.with_format("numpy")["content"])


def prompt_lengths(documents: DatasetDict, parts: dict[str, Selection]) -> dict[str, np.ndarray]:
    """Return how many tokens of each of a split's documents are prompt."""
    lengths = {}
    for name, part in parts.items():
        source = documents[name if name in documents else "train"].with_format("numpy")
        lengths[name] = np.asarray(source["prompt_tokens"])[part.order]
    return lengths
