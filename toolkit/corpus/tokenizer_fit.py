"""How well a tokenizer fits a text: bytes a token, and how many one of its own would hold."""

import unicodedata
from collections.abc import Iterable, Iterator

from transformers import PreTrainedTokenizerFast

from toolkit.corpus.document import Document
from toolkit.corpus.tokenizing import encode_text
from toolkit.model.byte_level_bpe import train_byte_level_bpe

ENOUGH = 3.0  # bytes a token, as in English with any GPT-2 tokenizer: then nothing is said
WORTH = 1.5  # how many times as much a tokenizer of the text's own holds, to be advised
ENTRIES = 4096  # of that, where the tokenizer has as many: what --from_scratch trains
SAMPLE, FEWEST = 300_000, 10_000  # characters: of less text nothing can be told
APART = 0.03  # the share of tokens that composed letters spare, to be said


class Sample:
    """The first characters of documents that pass by."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.size = 0

    def of(self, documents: Iterable[Document]) -> Iterator[Document]:
        for document in documents:
            if self.size < SAMPLE:
                text = "".join(document.parts)
                self.texts.append(text[: SAMPLE - self.size])
                self.size += len(text)
            yield document


def bytes_a_token(text: str, tokenizer: PreTrainedTokenizerFast) -> float:
    return len(text.encode()) / max(1, len(encode_text(text, tokenizer)))


def advice_on(
    sample: Sample, fit: float, tokenizer: PreTrainedTokenizerFast, positions: int
) -> list[str]:
    """Return what to tell the user of the tokenizer. `fit`: its bytes a token on the whole text."""
    text, notes = "".join(sample.texts), []
    if len(text) < FEWEST:
        return []
    composed = unicodedata.normalize("NFC", text)
    if composed != text:
        spared = 1 - len(encode_text(composed, tokenizer)) / len(encode_text(text, tokenizer))
        if spared > APART:
            notes.append(
                f"marks stand apart from their letters (NFD); with --normalize nfc the text has "
                f"{spared:.0%} fewer tokens"
            )
    if fit >= ENOUGH or (times := of_its_own(text, tokenizer)) < WORTH:
        return notes
    characters = positions * fit * len(text) / len(text.encode())
    return [
        *notes,
        f"{fit:.1f} bytes a token (English: about 4): {positions:,} tokens are {characters:,.0f} "
        f"characters; a tokenizer trained on this text would hold {times:.1f} times as much: "
        "--from_scratch, or take a model for its language: docs/languages.md",
    ]


def of_its_own(text: str, tokenizer: PreTrainedTokenizerFast) -> float:
    """Return how many times as much text a token would hold, on a part that was not trained on."""
    cut = len(text) * 4 // 5
    entries = min(ENTRIES, len(tokenizer))
    own = train_byte_level_bpe([text[:cut]], entries, tokenizer.model_max_length)
    return bytes_a_token(text[cut:], own) / bytes_a_token(text[cut:], tokenizer)
