"""Cut texts into documents: the unit that must not be split between train and test."""

import itertools
import re
from collections.abc import Iterable, Iterator

import numpy as np

from toolkit.run.command import UserError

GROUP_CHARACTERS = 2000  # blank-line paragraphs are grouped up to about this length
FEWEST_GROUPS = 10  # fewer make one document, of which step 5 holds out the tail
LONGEST_STREAMED = 1 << 27  # characters
TOP_LEVEL_HEADING = re.compile(r"^ = [^=](?:.*[^=])? = ?$")  # WikiText: ` = Title = `


def cut_at(chunks: Iterable[str], separator: str) -> Iterator[str]:
    """Yield what stands between separators in a text that comes in chunks."""
    held = ""
    for chunk in chunks:
        *whole, held = (held + chunk).split(separator)
        yield from (document.strip("\n") for document in whole)
    yield held.strip("\n")


def cut_paragraphs(chunks: Iterable[str]) -> Iterator[str]:
    """Yield blank-line paragraphs joined to groups of about GROUP_CHARACTERS.

    A text with fewer than FEWEST_GROUPS groups is one document.
    """
    groups = group_paragraphs(lines_of(chunks))
    first = list(itertools.islice(groups, FEWEST_GROUPS))
    if len(first) < FEWEST_GROUPS:
        yield "\n\n".join(first)
    else:
        yield from itertools.chain(first, groups)


def group_paragraphs(lines: Iterable[str]) -> Iterator[str]:
    group, length = [], 0
    for paragraph in paragraphs_of(lines):
        if group and length + len(paragraph) > GROUP_CHARACTERS:
            yield "\n\n".join(group)
            group, length = [], 0
        group.append(paragraph)
        length += len(paragraph)
    if group:
        yield "\n\n".join(group)


def paragraphs_of(lines: Iterable[str]) -> Iterator[str]:
    for blank, run in itertools.groupby(lines, key=lambda line: not line.strip()):
        if not blank:
            yield "".join(run).strip("\n")


def lines_of(chunks: Iterable[str]) -> Iterator[str]:
    """Yield the lines, with their ends, of a text that comes in chunks."""
    held = ""
    for chunk in chunks:
        *whole, held = (held + chunk).split("\n")
        yield from (line + "\n" for line in whole)
    if held:
        yield held


def looks_like_wikitext(lines: Iterable[str]) -> bool:
    """Tell whether lines are WikiText's: a ` = Title = ` within the first ones."""
    return any(TOP_LEVEL_HEADING.match(line.rstrip("\n")) for line in itertools.islice(lines, 20))


def cut_articles(lines: Iterable[str]) -> Iterator[str]:
    """Yield articles of WikiText lines: each starts at a top-level heading between blanks."""
    article: list[str] = []
    before_is_blank = True
    lines = iter(lines)
    line = next(lines, None)
    while line is not None:
        after = next(lines, None)
        heading = TOP_LEVEL_HEADING.match(line.rstrip("\n"))
        starts_article = heading and before_is_blank and (after is None or not after.strip())
        if starts_article and any(line.strip() for line in article):
            yield "".join(article)
            article = []
        article.append(line if line.endswith("\n") else line + "\n")
        before_is_blank, line = not line.strip(), after
    if article:
        yield "".join(article)


class Gauge:
    """Refuses a text that goes on and on without a document's end, before it fills the memory."""

    def __init__(self, where: str):
        self.where, self.characters = where, 0

    def counting(self, chunks: Iterable[str]) -> Iterator[str]:
        for chunk in chunks:
            self.characters += len(chunk)
            if self.characters > LONGEST_STREAMED:
                raise UserError(
                    f"{self.where}: a document of more than {LONGEST_STREAMED:,} characters is too "
                    "long for --streaming; cut it with --document_separator"
                )
            yield chunk

    def documents(self, documents: Iterable[str]) -> Iterator[str]:
        for document in documents:
            self.characters = 0
            yield document


def sample_documents(
    documents: Iterable, fraction: float | None, most: int | None, seed: int
) -> Iterator:
    """Yield each document with probability `fraction`, and at most `most` of them."""
    chance = np.random.default_rng(seed)
    kept = documents if fraction is None else (d for d in documents if chance.random() < fraction)
    return itertools.islice(kept, most)
