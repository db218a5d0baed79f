"""How much text the predicted tokens of each piece stand for: bytes, characters, words."""

from collections.abc import Callable

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from toolkit.corpus.token_text import lengths_of_entries, measure, words_in
from toolkit.scoring.windows import Collate, Pieces, block_size_of

# Token ids, and the place of the first one in the split -> their text and its lengths.
Reader = Callable[[np.ndarray, int], tuple[str, dict[str, int]]]


def count_text(
    blocks: Dataset,
    tokenizer: PreTrainedTokenizerFast,
    collate: Collate,
    pieces: Pieces,
    stride: int,
    texts: Dataset | None = None,
) -> dict[str, np.ndarray]:
    """Return `bytes`, `characters`, `words` of the text that each piece's predicted tokens stand
    for.

    `texts`: the split's documents, where their tokens do not spell them: see `texts_of`.
    End-of-text is no text. Words are what white space separates; where blocks are scored alone, a
    word that runs on into the next block counts in both.
    """
    read = spelled(tokenizer) if texts is None else kept(texts, pieces)
    counts = {name: np.zeros(len(pieces.starts)) for name in measure("")}
    size, inside = block_size_of(blocks), False  # inside: the text so far ends amid a word
    alone = stride == size
    cuts = np.searchsorted(pieces.blocks, np.arange(len(blocks) + 1))
    for number, block in enumerate(blocks):
        labels = collate([block])["labels"][0].numpy()
        if alone or number == 0:
            labels[0], inside = -100, False
        for piece in range(cuts[number], cuts[number + 1]):
            begin = pieces.starts[piece] - number * size
            stop = (
                pieces.starts[piece + 1] - number * size if piece + 1 < cuts[number + 1] else size
            )
            places = np.flatnonzero(labels[begin:stop] != -100) + begin
            for run in stretches(places):
                text, lengths = read(labels[run], number * size + int(run[0]))
                joined = inside and text and not text[0].isspace() and words_in(text.split()[0])
                for name, length in lengths.items():
                    counts[name][piece] += length
                counts["words"][piece] -= bool(joined)
                inside = not text[-1].isspace() if text else inside
                inside = inside and labels[run[-1]] != tokenizer.eos_token_id
    return counts


def stretches(places: np.ndarray) -> list[np.ndarray]:
    """Return places as runs without a gap: of a conversation, an answer is one."""
    return np.split(places, np.flatnonzero(np.diff(places) > 1) + 1) if len(places) else []


def spelled(tokenizer: PreTrainedTokenizerFast) -> Reader:
    """Return what decodes tokens. Amid a character cut in two bytes are counted by the entries."""
    entries, end = lengths_of_entries(tokenizer), tokenizer.eos_token_id

    def read(ids: np.ndarray, place: int) -> tuple[str, dict[str, int]]:
        text = tokenizer.decode(ids[ids != end])
        exact = {name: int(lengths[ids].sum()) for name, lengths in entries.items()}
        return text, measure(text) | exact

    return read


def kept(texts: Dataset, pieces: Pieces) -> Reader:
    """Return what looks tokens up in the text of their document."""
    number, ends, text = -1, np.zeros(1, int), ""

    def read(ids: np.ndarray, place: int) -> tuple[str, dict[str, int]]:
        nonlocal number, ends, text
        own = pieces.documents[pieces.of(place)]
        if own != number:
            row, number = texts[int(own)], own
            ends, text = np.cumsum([0, *row["characters"]]), row["text"]
        first = place - pieces.starts[np.searchsorted(pieces.documents, own)]
        part = text[ends[first] : ends[first + len(ids)]]
        return part, measure(part)

    return read
