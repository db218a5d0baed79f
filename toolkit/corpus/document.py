"""A document: a text, a prompt with what it is to be answered with, or a conversation."""

from typing import NamedTuple


class Document(NamedTuple):
    """A text with a name to find it by; `completion` is what a prompt is to be answered with.

    A conversation goes on with `more`: what is given and what is learned in turn.
    """

    name: str
    text: str
    completion: str | None = None
    more: tuple[str, ...] | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """What is given and what is learned in turn; of a plain text, which is all learned, it."""
        if self.completion is None:
            return (self.text,)
        return (self.text, self.completion, *(self.more or ()))

    @property
    def learned(self) -> tuple[str, ...]:
        return self.parts if self.completion is None else self.parts[1::2]


def as_document(text: Document | str, number: int) -> Document:
    """Return a plain text as a document, named for its number; a document as it is."""
    return Document(f"text {number:,}", text) if isinstance(text, str) else text


def with_separator(document: Document, separator: str) -> Document:
    """Put a separator between prompt and completion; anything else stays as it is.

    Its last spaces go to the completion: GPT-2's tokens begin with the space before a word.
    """
    if document.more is not None or not (document.completion or "").strip():
        return document
    prompt = document.text + separator
    spaces = prompt[len(prompt.rstrip(" ")) :]
    return document._replace(text=prompt.rstrip(" "), completion=spaces + document.completion)
