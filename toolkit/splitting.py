"""Which document goes into which split, so that no split sees another's."""

from typing import Any

import numpy as np
from datasets import DatasetDict

from toolkit.command import UserError
from toolkit.leakage import copies
from toolkit.packing import Selection, cut_tail, hold_out
from toolkit.tokenized_documents import TokenColumn

NAMED_AT_MOST = 20  # copies that the record lists by name


def split_documents(
    documents: DatasetDict, fractions: dict[str, float], seed: int
) -> tuple[dict[str, Selection], dict[str, Any]]:
    """Return the documents of train, validation and test, and an account of dropped copies.

    `fractions`: the shares of documents to cut from train for `validation` and `test`, where the
    corpus has none of its own. Raises UserError where a split would stay empty.
    """
    columns = {name: TokenColumn(split) for name, split in documents.items()}
    shares = [0.0 if name in columns else fractions[name] for name in ("validation", "test")]
    if len(columns) == 1 and len(columns["train"]) == 1:
        return cut_tail(columns["train"][0], *shares), {}
    try:
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
    contents = {
        name: np.asarray(documents[sources[name]].with_format("numpy")["content"])[chosen[name]]
        for name in cut
    }
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
