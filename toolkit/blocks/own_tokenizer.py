"""From scratch: a tokenizer trained on the training text, and every split in its tokens.

Steps 3 and 4 take bytes for tokens. So step 5 can hold out documents first, and train the tokenizer
on what is left: it has seen nothing of what is held out, as little as the model has.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from datasets import DatasetDict
from transformers import PreTrainedTokenizerFast

from toolkit.blocks.holding_out import Selection
from toolkit.blocks.splitting import learned_in, source_of
from toolkit.corpus.document import Document
from toolkit.corpus.token_text import lengths_of_entries
from toolkit.corpus.tokenized_documents import TokenColumn, tokenize_documents
from toolkit.model.byte_level_bpe import train_byte_level_bpe

Parts = dict[str, Selection]
Account = dict[str, dict[str, int]]


def in_own_tokens(
    documents: DatasetDict,
    parts: Parts,
    of_bytes: PreTrainedTokenizerFast,
    entries: int,
    completions: bool,
    work: Path,
) -> tuple[PreTrainedTokenizerFast, DatasetDict, Parts, Account]:
    """Return a tokenizer trained on the training part, and all parts in its tokens.

    `documents` and `parts` hold bytes, by the tokenizer `of_bytes`. Each part comes back as a split
    of the returned documents, in its order. `entries`: the most that the tokenizer may have.
    """
    texts = texts_of_parts(documents, parts, of_bytes, completions)
    train = (piece for document in texts["train"]() for piece in document.parts if piece)
    tokenizer = train_byte_level_bpe(train, entries, of_bytes.model_max_length)
    splits, own, accounts = {}, {}, {}
    for name, read in texts.items():
        path = work / f"{name}-in-own-tokens.arrow"
        splits[name], accounts[name] = tokenize_documents(read(), tokenizer, path, name)
        own[name] = Selection(TokenColumn(splits[name]))
        if len(parts[name]) and parts[name].documents[0][-1] != of_bytes.eos_token_id:
            own[name] = Selection([own[name].documents[0][:-1]])  # a text's beginning has no end
    return tokenizer, DatasetDict(splits), own, accounts


def texts_of_parts(
    documents: DatasetDict, parts: Parts, of_bytes: PreTrainedTokenizerFast, completions: bool
) -> dict[str, Callable[[], Iterator[Document]]]:
    """Return for each part what reads its texts, anew at every call."""
    if isinstance(parts["train"].documents, list):  # one text, cut in three: see `cut_tail`
        name = documents["train"][0]["name"]
        pieces = cut_between_characters(parts, of_bytes)
        return {part: partial(iter, [Document(name, text)]) for part, text in pieces.items()}
    read = partial(texts_of_part, documents, parts, of_bytes, completions)
    return {name: partial(read, name) for name in parts}


def cut_between_characters(parts: Parts, of_bytes: PreTrainedTokenizerFast) -> dict[str, str]:
    """Return the text of each part of one text; a character that was cut goes to the former."""
    begins = lengths_of_entries(of_bytes)["characters"]
    pieces = {name: np.concatenate([*part, np.empty(0, int)]) for name, part in parts.items()}
    whole = of_bytes.decode(np.concatenate([*pieces.values()]), skip_special_tokens=True)
    texts, start = {}, 0
    for name, ids in pieces.items():
        texts[name] = whole[start : start + int(begins[ids.astype(int)].sum())]
        start += len(texts[name])
    return texts


def texts_of_part(
    documents: DatasetDict,
    parts: Parts,
    of_bytes: PreTrainedTokenizerFast,
    completions: bool,
    name: str,
) -> Iterator[Document]:
    source, learned = source_of(documents, name), learned_in(documents, parts)[name]
    for number, ids, stretches in zip(learned.order, parts[name], learned, strict=True):
        cuts = stretches[:-1].astype(int) if completions else []
        texts = [of_bytes.decode(piece, skip_special_tokens=True) for piece in np.split(ids, cuts)]
        title = source[int(number)]["name"]
        if completions:
            yield Document(title, texts[0], texts[1], tuple(texts[2:]) or None)
        else:
            yield Document(title, texts[0])


def account_of(tokenizer: PreTrainedTokenizerFast, made: Account, asked: int) -> dict[str, int]:
    """Return how many entries the trained tokenizer has, and what it makes of the corpus."""
    total = {key: sum(part[key] for part in made.values()) for key in ("tokens", "bytes")}
    return {"entries": len(tokenizer), "asked": asked, **total}


def described(account: dict[str, int]) -> str:
    """Return in words what `account_of` found."""
    entries, asked = account["entries"], account["asked"]
    most = f" of the {asked:,} asked for, the text gives no more" if asked > entries else ""
    return f"{entries:,} entries{most}, {account['bytes'] / account['tokens']:.1f} bytes a token"
