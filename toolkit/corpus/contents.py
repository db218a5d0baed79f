"""What makes two documents copies of each other: their words, unless they are short.

hashes_of(document)  # (content, words): two 64-bit hashes, which differ for short documents only
"""

from __future__ import annotations

import hashlib

from toolkit.run.lazily import lazily

with lazily():
    from toolkit.corpus.document import Document

# A document of fewer bytes is short: "ok" and "see you" are language, and no copies of each other.
# 13 tokens, the window that overlaps are counted by, hold 59 bytes of English prose. In bytes, so
# that neither tokenizer nor spaces between words matter: 20 characters of Chinese, 33 of Russian.
SHORT_BYTES = 60


def content_of(document: Document) -> int:
    """Return a hash that copies share: they stay on one side of a split."""
    return hashes_of(document)[0]


def hashes_of(document: Document) -> tuple[int, int]:
    """Return the hash of a document's content, and that of its words.

    Words are all that a document says, with white space and case folded. The content
    of a short document is its name and its words, so that it is a copy of no other; of any other
    document it is the words.
    """
    words = " ".join(" ".join(document.parts).split()).casefold().encode()
    if len(words) < SHORT_BYTES:
        return hash_of(document.name.encode() + b"\n" + words), hash_of(words)
    return hash_of(words), hash_of(words)


def hash_of(text: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
