"""Texts to token ids, on all cores: also one long text, which is cut where that changes nothing.

The end-of-text token stands where a document ends, and nowhere else. Where its name (GPT-2's is
<|endoftext|>) stands within a text, a prompt or a request, these characters are text.
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

from toolkit.corpus.sources import Document

PIECE_CHARACTERS = 1 << 14  # a longer text is cut, so that the tokenizer works on it with all cores
THREADS_OF_ITS_OWN = "TOKENIZERS_PARALLELISM"
BEFORE_SPACE = re.compile(r"(?<=\S)(?=\s)")


def tokenize(
    documents: list[Document], tokenizer: PreTrainedTokenizerFast, cores: int | None = None
) -> tuple[list[np.ndarray], list[int]]:
    """Return each document's token ids, end-of-text last, and how many of them are its prompt's."""
    end = tokenizer.eos_token_id
    prompts = [spans_of(document.text, tokenizer) for document in documents]
    completions = [spans_of(document.completion or "", tokenizer) for document in documents]
    spans = [
        span for parts in zip(prompts, completions, strict=True) for part in parts for span in part
    ]
    encodings = encode_spans(spans, tokenizer, cores)
    encoded = iter([np.array(encoding.ids, dtype=np.uint32) for encoding in encodings])
    ids, prompt_tokens = [], []
    for prompt, completion, document in zip(prompts, completions, documents, strict=True):
        before = list(itertools.islice(encoded, len(prompt)))
        after = list(itertools.islice(encoded, len(completion)))
        ids.append(np.concatenate([*before, *after, np.array([end], np.uint32)]))
        prompt_tokens.append(0 if document.completion is None else sum(map(len, before)))
    return ids, prompt_tokens


def encode_spans(
    spans: list[str], tokenizer: PreTrainedTokenizerFast, cores: int | None
) -> list[Encoding]:
    """Tokenize with the library's own threads, on all cores; or with as many threads of ours."""
    encode = partial(encoder(spans, tokenizer).encode_batch_fast, add_special_tokens=False)
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
    """Return a text's token ids, without end-of-text."""
    return encoder([text], tokenizer).encode(text, add_special_tokens=False).ids


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


def is_byte_level(tokenizer: PreTrainedTokenizerFast) -> bool:
    backend = tokenizer.backend_tokenizer
    plain = type(backend.pre_tokenizer).__name__ == "ByteLevel" and backend.normalizer is None
    return plain and not backend.pre_tokenizer.add_prefix_space
