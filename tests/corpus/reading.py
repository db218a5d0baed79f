"""A corpus read as step 4 reads it, for tests: its texts, and what is said of it."""

from toolkit.corpus.columns import Columns
from toolkit.corpus.sources import Reading, read_corpus


def read_documents(*names, separator=None, rows="auto", encoding="utf-8", **columns):
    """Return the train documents of a corpus, as texts, and the notes."""
    notes = []
    reading = Reading(Columns(**columns), rows, separator, encoding, note=notes.append)
    documents = read_corpus([str(name) for name in names], reading, "--corpus")["train"]
    return [document.text for document in documents], notes


def read_examples(*names, **columns):
    """Return prompts and completions."""
    reading = Reading(Columns(**columns))
    documents = read_corpus([str(name) for name in names], reading, "--corpus")["train"]
    return [(document.text, document.completion) for document in documents]
