"""Cut texts into documents: the unit that must not be split between train and test."""

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import numpy as np

from toolkit.run.command import UserError

# Blank-line paragraphs are grouped up to about this length. In bytes: of Chinese 2,000 characters
# would be a long document, and a short text none of several.
GROUP_BYTES = 2000
WIDE_GAP = "\n\n\n"  # two blank lines or more
FEWEST_GROUPS = 10  # fewer make one document, of which step 5 holds out the tail
MANY_LINES = 20  # without a blank one may be texts of their own
# How the first line of a collection begins, and each further part -> what it is a collection of.
COLLECTIONS = {re.compile(r'\[Event "'): "games", re.compile(r"X: ?\d"): "tunes"}
LONGEST_STREAMED = 1 << 27  # characters
TOP_LEVEL_HEADING = re.compile(r"^ = [^=](?:.*[^=])? = ?$")  # WikiText: ` = Title = `

Note: TypeAlias = Callable[[str], None]  # is told what the user should know of how a text was read


def cut_at(chunks: Iterable[str], separator: str) -> Iterator[str]:
    """Yield what stands between separators in a text that comes in chunks."""
    held = ""
    for chunk in chunks:
        *whole, held = (held + chunk).split(separator)
        yield from (document.strip("\n") for document in whole)
    if held.strip():  # else the text ends with a separator
        yield held.strip("\n")


def cut_paragraphs(chunks: Iterable[str], note: Note) -> Iterator[str]:
    """Yield blank-line paragraphs, joined to groups of about GROUP_BYTES.

    A text with fewer than FEWEST_GROUPS groups is one document. Between the documents of a text
    stands nothing but line ends. `note` is told what was done, and what to give for something else.
    """
    counts: Counter[str] = Counter()
    groups = group_paragraphs(lines_of(chunks), counts)
    first = list(itertools.islice(groups, FEWEST_GROUPS))
    if len(first) < FEWEST_GROUPS:
        yield "".join(first).strip("\n")
        done = "one document, of which the end is held out"
    else:
        yield from (group.strip("\n") for group in itertools.chain(first, groups))
        done = f"grouped to {counts['groups']:,} documents of about {GROUP_BYTES:,} bytes"
    note(account_of(counts, done))


def account_of(counts: Counter[str], done: str) -> str:
    """Return how a text was taken, and what to give where each part is a text of its own."""
    paragraphs, lines = counts["paragraphs"], counts["lines"]
    hint = "if each is a text of its own: --document_separator"
    if lines >= MANY_LINES * max(1, paragraphs):
        blank = "without a blank one" if paragraphs == 1 else "with few blank ones"
        return rf"{lines:,} lines {blank}, {done}; {hint} '\n'"
    if paragraphs > 1:
        single = " of one line" if paragraphs == lines else ""
        return rf"{paragraphs:,} paragraphs{single}, {done}; {hint} '\n\n'"
    return f"one paragraph, {done}"


def group_paragraphs(lines: Iterable[str], counts: Counter[str]) -> Iterator[str]:
    """Yield groups that joined give the text, and count paragraphs, their lines, and groups.

    A group ends where several blank lines stand, if it has such a place: there a song or a chapter
    ends. Else it ends with its last paragraph.
    """
    group: list[str] = []
    sizes: list[int] = []
    for paragraph in paragraphs_of(lines):
        visible = paragraph.strip("\n")
        size = len(visible.encode())
        counts["paragraphs"] += 1
        counts["lines"] += 1 + visible.count("\n")
        while group and sum(sizes) + size > GROUP_BYTES:
            ends = [number for number, part in enumerate(group, 1) if part.endswith(WIDE_GAP)]
            end = ends[-1] if ends else len(group)
            counts["groups"] += 1
            yield "".join(group[:end])
            del group[:end], sizes[:end]
        group.append(paragraph)
        sizes.append(size)
    if group:
        counts["groups"] += 1
        yield "".join(group)


def paragraphs_of(lines: Iterable[str]) -> Iterator[str]:
    """Yield paragraphs with the blank lines behind them, which joined give the text."""
    paragraph: list[str] = []
    visible = ended = False
    for line in lines:
        if line.strip():
            if visible and ended:
                yield "".join(paragraph)
                paragraph = []
            visible, ended = True, False
        else:
            ended = True
        paragraph.append(line)
    if paragraph:
        yield "".join(paragraph)


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


def beginning_of(line: str) -> re.Pattern | None:
    """Return how each part of a collection begins, of games or tunes; None of any other text."""
    return next((pattern for pattern in COLLECTIONS if pattern.match(line)), None)


def cut_collection(lines: Iterable[str], beginning: re.Pattern) -> Iterator[str]:
    """Yield the parts of a collection, each from the line that begins it to the next one's."""
    part: list[str] = []
    for line in lines:
        if part and beginning.match(line):
            yield "".join(part).strip("\n")
            part = []
        part.append(line)
    if part:
        yield "".join(part).strip("\n")


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
