"""Texts to token ids, on all cores: also one long text, which is cut where that changes nothing.

The end-of-text token stands where a document ends, or a conversation's answer, and nowhere else.
Where its name (GPT-2's is <|endoftext|>) stands within a text, a prompt or a request, these
characters are text.
"""

import itertools
import json
import math
import os
import re
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

import numpy as np
from tokenizers import Encoding, Tokenizer
from transformers import PreTrainedTokenizerFast

from toolkit.corpus.document import Document
from toolkit.corpus.token_text import characters_of, is_byte_level, spells
from toolkit.run.command import UserError

PIECE_CHARACTERS = 1 << 14  # a longer text is cut, so that the tokenizer works on it with all cores
THREADS_OF_ITS_OWN = "TOKENIZERS_PARALLELISM"
BEFORE_SPACE = re.compile(r"(?<=\S)(?=\s)")


def tokenize(
    documents: list[Document], tokenizer: PreTrainedTokenizerFast, cores: int | None = None
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Return each document's token ids, and where what is learned of them begins and ends, in turn.

    What is learned ends with end-of-text, and so does the document. An empty stretch at the
    beginning ends what stays where a conversation loses its oldest turns. And, of a tokenizer that
    does not spell (`spells`), how many characters each token stands for: of all parts end to end.
    Otherwise this list is empty.
    """
    spans = [[spans_of(part, tokenizer) for part in document.parts] for document in documents]
    flat = [span for parts in spans for part in parts for span in part]
    places = not spells(tokenizer)
    encoded = iter(zip(encode_spans(flat, tokenizer, cores, places), flat, strict=True))
    ids, learned, characters = [], [], []
    for document, parts in zip(documents, spans, strict=True):
        tokens, stands_for, stops, plain = [], [], [0], document.completion is None
        for number, part in enumerate(parts):
            found = list(itertools.islice(encoded, len(part)))
            tokens += [without_end_amid(encoding, tokenizer) for encoding, _ in found]
            stands_for += [characters_of(*one) for one in found] if places else []
            if plain or (number % 2 and any(part)):  # it is learned
                tokens.append(np.array([tokenizer.eos_token_id], np.uint32))
                said = sum(len(span) for part in parts[: number + 1] for span in part)
                no_token = said - sum(int(stands.sum()) for stands in stands_for)
                stands_for.append(np.array([no_token], np.int64))
            stops.append(sum(map(len, tokens)))
        ids.append(np.concatenate(tokens))
        learned.append(np.array(stops if plain else stops[1:], np.uint32))
        characters.append(np.concatenate(stands_for))
    return ids, learned, characters if places else []


def without_end_amid(encoding: Encoding, tokenizer: PreTrainedTokenizerFast) -> np.ndarray:
    """Return token ids. The end's name, which a few tokenizers have an entry for, is text."""
    ids, end, unknown = (
        np.array(encoding.ids, np.uint32),
        tokenizer.eos_token_id,
        tokenizer.unk_token_id,
    )
    if (wrong := ids == end).any():
        if unknown in (None, end):
            raise UserError(
                "the tokenizer writes what it does not know as end-of-text, which would end "
                "documents where none ends; give a model with another tokenizer"
            )
        ids[wrong] = unknown
    return ids


def encode_spans(
    spans: list[str], tokenizer: PreTrainedTokenizerFast, cores: int | None, places: bool
) -> list[Encoding]:
    """Tokenize with the library's own threads, on all cores; or with as many threads of ours.

    `places`: also say where in its span each token stands.
    """
    whole = encoder(spans, tokenizer)
    encode = partial(
        whole.encode_batch if places else whole.encode_batch_fast, add_special_tokens=False
    )
    if cores is None:
        return encode(spans)
    share = max(1, math.ceil(len(spans) / cores))
    shares = [spans[start : start + share] for start in range(0, len(spans), share)]
    before = os.environ.get(THREADS_OF_ITS_OWN)
    os.environ[THREADS_OF_ITS_OWN] = "false"  # the library looks at every call
    try:
        with ThreadPoolExecutor(cores) as threads:
            return [encoding for part in threads.map(encode, shares) for encoding in part]
    finally:
        if before is None:
            del os.environ[THREADS_OF_ITS_OWN]
        else:
            os.environ[THREADS_OF_ITS_OWN] = before


def encode_text(text: str, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Return a text's token ids, without end-of-text. A long one lets other threads run."""
    whole = encoder([text], tokenizer)
    if len(text) <= PIECE_CHARACTERS:  # a batch has its price, and waits for other batches
        return whole.encode(text, add_special_tokens=False).ids
    return whole.encode_batch_fast([text], add_special_tokens=False)[0].ids


def encoder(texts: list[str], tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    """Return what encodes texts, in which the name of the end-of-text token is text."""
    if not any(tokenizer.eos_token in text for text in texts):
        return tokenizer.backend_tokenizer
    return without_end_of_text(tokenizer)


@cache
def without_end_of_text(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["added_tokens"] = [
        token for token in state["added_tokens"] if token["id"] != tokenizer.eos_token_id
    ]
    return Tokenizer.from_str(json.dumps(state))


def spans_of(text: str, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """Return a text in spans that tokenize to the same ids as the whole.

    GPT-2's pre-tokenizer never matches from a visible character on into white space, so a cut there
    changes nothing. Other tokenizers get the text whole.
    """
    if len(text) <= PIECE_CHARACTERS or not is_byte_level(tokenizer):
        return [text]
    spans, start = [], 0
    while cut := BEFORE_SPACE.search(text, start + PIECE_CHARACTERS):
        spans.append(text[start : cut.start()])
        start = cut.start()
    return [*spans, text[start:]]
