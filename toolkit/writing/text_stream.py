"""Tokens to text one at a time: whole characters only, and nothing of a stop string.

Tokenizers that write spaces between words write none before the first one of what they decode. So
what is new is decoded behind the end of its prompt.
"""

from collections.abc import Sequence

from tokenizers.decoders import DecodeStream
from transformers import PreTrainedTokenizerFast

PROMPT_TOKENS = 8  # enough for a whole character, or a word in pieces
UNFINISHED = "\ufffd"  # what the bytes of half a character are decoded to


class TextStream:
    """The text of new tokens as it grows. `text` never takes back what it once held.

    What could still become a stop string, or the bytes of an unfinished character, waits until the
    next tokens decide or `end` is called. `stopped`: a stop string came; text ends before it.
    `prompt`: the token ids that come before.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        stop: Sequence[str] = (),
        prompt: Sequence[int] = (),
    ):
        self.text, self.stopped = "", False
        self._tokenizer, self._stop, self._waiting = tokenizer, stop, ""
        self._tokens = list(prompt[-PROMPT_TOKENS:])
        if self._decode().endswith(UNFINISHED):
            self._tokens = []
        self._decoder = DecodeStream(ids=self._tokens, skip_special_tokens=True)
        self._decoded = len(self._decode())  # characters that the decoder gave, or the prompt had

    def add(self, token: int) -> None:
        self._tokens.append(token)
        piece = self._decoder.step(self._tokenizer.backend_tokenizer, token) or ""
        self._take(piece)
        self._settle(may_grow=True)

    def end(self) -> None:
        """Give out what waits: no token follows."""
        if not self.stopped:
            self._take(self._decode()[self._decoded :])
            self._settle(may_grow=False)

    def _decode(self) -> str:
        return self._tokenizer.backend_tokenizer.decode(self._tokens, skip_special_tokens=True)

    def _take(self, piece: str) -> None:
        self._decoded += len(piece)
        self._waiting += piece

    def _settle(self, may_grow: bool) -> None:
        places = [place for stop in self._stop if (place := self._waiting.find(stop)) >= 0]
        if places:
            self.stopped, ready = True, min(places)
        else:
            ready = len(self._waiting) - (self._beginning_of_stop() if may_grow else 0)
        self.text += self._waiting[:ready]
        self._waiting = "" if self.stopped else self._waiting[ready:]

    def _beginning_of_stop(self) -> int:
        """Return how many of the last characters could be the beginning of a stop string."""
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        for length in range(min(longest, len(self._waiting)), 0, -1):
            if any(stop.startswith(self._waiting[-length:]) for stop in self._stop):
                return length
        return 0


def text_after(
    prompt: Sequence[int], tokens: Sequence[int], tokenizer: PreTrainedTokenizerFast
) -> str:
    """Return the text of tokens that stand behind those of a prompt."""
    stream = TextStream(tokenizer, prompt=prompt)
    for token in tokens:
        stream.add(int(token))
    stream.end()
    return stream.text
