"""What text each token stands for: its bytes, characters and words are counted here.

A tokenizer of GPT-2's kind spells: its entries are bytes, and a document's entries end to end are
its text. Others drop and rewrite (white space, case, characters they do not know). Of what they
read step 4 therefore keeps the text, and how many of its characters each token stands for.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np
from tokenizers import Encoding, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from toolkit.model.byte_level_bpe import cut_to_words
from toolkit.run.command import UserError

COMPARED = 200_000  # characters of a split that are held against what their tokens say
MOST_LOST = 0.3  # of them, case and width aside: more, and the tokenizer is not for this text

# Scripts that write no space between words: Thai, Lao, Burmese, Khmer, kana, Han.
UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)


def measure(text: str) -> dict[str, int]:
    """Return a text's UTF-8 bytes, its characters (code points) and its words.

    Words are what white space separates, where a script has spaces: see `words_in`.
    """
    return {
        "bytes": len(text.encode()),
        "characters": len(text),
        "words": words_in(text),
    }


def words_in(text: str) -> int:
    """Count what white space separates; what holds letters of an UNSPACED script is no word."""
    words = text.split()
    if text.isascii() or not UNSPACED.search(text):
        return len(words)
    return sum(not UNSPACED.search(word) for word in words)


def spells(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Tell whether the entries of a text's tokens, end to end, are the text, byte for byte."""
    backend, added = tokenizer.backend_tokenizer, tokenizer.added_tokens_decoder.values()
    plain = type(backend.decoder).__name__ == "ByteLevel" and is_byte_level(tokenizer)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    whole = all(backend.token_to_id(character) is not None for character in alphabet)
    return plain and whole and not any(token.lstrip or token.rstrip for token in added)


def is_byte_level(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Tell whether texts are cut by GPT-2's own pattern or ours, and nothing is changed before."""
    backend = tokenizer.backend_tokenizer
    cut = backend.pre_tokenizer
    if cut is None or backend.normalizer is not None:
        return False
    plain = type(cut).__name__ == "ByteLevel" and not cut.add_prefix_space
    return plain or cut.__getstate__() == cut_to_words().__getstate__()


def lengths_of_entries(tokenizer: PreTrainedTokenizerFast) -> dict[str, np.ndarray]:
    """Return how many bytes and characters each entry of a tokenizer that spells stands for.

    End-of-text stands for none. A character counts where its first byte is.
    """
    following = range(0x80, 0xC0)  # each comes second in the code of some character
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    [(pairs, _)] = cut.pre_tokenize_str("".join(map(chr, following)))
    continuing = set(pairs[1::2])  # how the entries write these bytes
    added = {number: token.content for number, token in tokenizer.added_tokens_decoder.items()}
    lengths = np.zeros((2, len(tokenizer)), np.int64)
    for number, entry in enumerate(tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))):
        if number in added:
            lengths[:, number] = len(added[number].encode()), len(added[number])
        elif entry is not None:
            lengths[:, number] = len(entry), sum(letter not in continuing for letter in entry)
    lengths[:, tokenizer.eos_token_id] = 0
    return dict(zip(("bytes", "characters"), lengths, strict=True))


def characters_of(encoding: Encoding, text: str) -> np.ndarray:
    """Return how many characters of a text each of its tokens stands for: all of them, in order.

    A token begins where the one before it ended: it stands for what was dropped between the two as
    well, and the last one for what was dropped behind it.
    """
    ends = np.array([end for _, end in encoding.offsets], np.int64)
    if len(ends):
        ends[-1] = len(text)
    return np.diff(np.maximum.accumulate(ends), prepend=0)


def share_lost(
    texts: list[str], ids: Iterable[np.ndarray], tokenizer: PreTrainedTokenizerFast, label: str
) -> float:
    """Return which share of the characters does not come back from a tokenizer, white space aside.

    Raises UserError where much is lost, whatever the case of the letters.
    """
    read, told, size = [], [], 0
    for text, tokens in zip(texts, ids, strict=True):
        read.append(text)
        told.append(tokenizer.decode(tokens, skip_special_tokens=True))
        size += len(text)
        if size > COMPARED:
            break
    if (share := missing(read, told, folded)) > MOST_LOST:
        raise UserError(
            f"{label}: the tokenizer loses {share:.0%} of the text (characters that its entries do "
            "not know); give a model that was made for texts of this kind"
        )
    return missing(read, told, str)


def missing(read: list[str], told: list[str], alike: Callable[[str], str]) -> float:
    """Return the share of the characters read that are not among those told."""
    before, after = (Counter(alike("".join("".join(texts).split()))) for texts in (read, told))
    return (before - after).total() / max(1, before.total())


def folded(text: str) -> str:
    return unicodedata.normalize("NFKD", text).casefold()
