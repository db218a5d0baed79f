"""A corpus read as step 4 reads it, for tests: its texts, and what is said of it."""

from toolkit.corpus.columns import Columns
from toolkit.corpus.sources import Reading, read_corpus


def read_documents(*names, separator=None, rows="auto", encoding="utf-8", **columns):
    """Return the train documents of a corpus, as texts, and the notes."""
    notes, speaker = [], columns.pop("speaker", None)
    reading = Reading(
        Columns(**columns), rows, separator, encoding, note=notes.append, speaker=speaker
    )
    documents = read_corpus([str(name) for name in names], reading, "--corpus")["train"]
    return [
        document.text if document.more is None else talk(document) for document in documents
    ], notes


def talk(document):
    """Return a conversation as it is learned."""
    answers = [text and text + "<|endoftext|>" for text in document.learned]
    return "".join(map("".join, zip(document.parts[::2], answers, strict=True)))


def read_examples(*names, **columns):
    """Return prompts and completions."""
    reading = Reading(Columns(**columns))
    documents = read_corpus([str(name) for name in names], reading, "--corpus")["train"]
    return [(document.text, document.completion) for document in documents]
