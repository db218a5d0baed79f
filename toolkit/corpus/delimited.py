"""CSV and TSV files, read strictly: every cell is text, and every row is as wide as the header.

id;text                    separator ';', columns id and text, cells as they are written:
007;NA                     "007" and "NA",
008;"a ""b""; c"           "008" and `a "b"; c`
"""

import csv
import itertools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from toolkit.corpus.columns import Table, looks_like_names
from toolkit.corpus.cutting import lines_of
from toolkit.corpus.files import read_chunks, suffix_of
from toolkit.run.command import UserError
from toolkit.run.console import count

SEPARATORS = {".csv": ",;\t|", ".tsv": "\t"}  # tried are those that the first line holds
ONE_COLUMN = "\0"  # as a separator: no text holds it
SAID_FIRST = re.compile(r"sep=(.)")  # a line before the header, for Excel
NUMBER = re.compile(r"\s*[-+]?[\d.,]*\d[\d.,]*(e[-+]?\d+)?\s*%?\s*", re.IGNORECASE)
ESCAPED = re.compile(r'\\(["\\])')
DOUBLED = {'"': '""', "\\": "\\"}  # what stands behind a backslash, as RFC 4180 writes it
ROWS_LOOKED_AT = 1000  # of a file that is streamed

# What quotes mean. The first with which all rows are regular is taken.
STANDARD = ""  # RFC 4180: they enclose a cell, and one within it is doubled
BACKSLASH = r"quotes written as \""  # they enclose a cell, and one within it is \"
LITERAL = "quotes are text"

csv.field_size_limit(2**31 - 1)


class Irregular(Exception):
    """A row is not what the header promises; the text says which, and what is wrong."""


class Form(NamedTuple):
    """How a file is written."""

    separator: str
    quotes: str = STANDARD

    def __str__(self) -> str:
        called = {"\t": "separator tab", ONE_COLUMN: "no separator"}
        separator = called.get(self.separator, f"separator '{self.separator}'")
        return f"{separator}, {self.quotes}" if self.quotes else separator


class Account(NamedTuple):
    """What reading all rows showed.

    `numbers`: which columns hold nothing but numbers; `several`: cells of more than one line.
    """

    names: list[str]
    rows: int
    numbers: set[int]
    several: int


class DelimitedFile:
    """A CSV or TSV file. `most`: how many rows to look at before any is used (None: all)."""

    def __init__(self, path: Path, encoding: str, flag: str, most: int | None = None):
        self.path, self.encoding, self.flag, self.most = path, encoding, flag, most

    def lines(self) -> Iterator[str]:
        return lines_of(read_chunks(self.path, self.flag, self.encoding))

    def read(self, form: Form) -> Iterator[list[str]]:
        """Yield the header, then every row. Raises Irregular."""
        lines = self.lines()
        first = next(lines, "")
        skipped = bool(SAID_FIRST.fullmatch(first.strip()))
        lines = itertools.chain([] if skipped else [first], lines)
        if form.quotes == BACKSLASH:
            lines = (ESCAPED.sub(lambda found: DOUBLED[found[1]], line) for line in lines)
        quoting = csv.QUOTE_NONE if form.quotes == LITERAL else csv.QUOTE_MINIMAL
        reader = csv.reader(lines, delimiter=form.separator, quoting=quoting, strict=True)
        header: list[str] = []
        number, line = 0, 1 + skipped  # of the row that is read next, and of its first line
        try:
            for row in reader:
                blank = not row or (len(row) == 1 < len(header) and not row[0].strip())
                if header and len(row) != len(header) and not blank:
                    found, wanted = count(len(row), "cell"), count(len(header), "cell")
                    raise Irregular(
                        f"row {number:,} (line {line:,}) has {found}, the header {wanted}; a cell "
                        "that holds the separator, or several lines, must stand in quotes"
                    )
                if not blank:
                    header = header or row
                    yield row
                    number += 1
                line = reader.line_num + 1 + skipped
        except csv.Error as error:
            raise Irregular(
                f"row {number:,} (line {line:,}): a quote does not close, or text follows it "
                f"({error}); a quote within a cell in quotes must be doubled"
            ) from None

    def choose_form(self) -> tuple[Form, Account]:
        """Return the form in which all rows are regular, and their account.

        Raises Irregular, for the form that the first line suggests, if none is.
        """
        first = next(filter(str.strip, self.lines()), "").strip()
        if said := SAID_FIRST.fullmatch(first):
            separators = [said[1]]
        else:
            separators = [mark for mark in SEPARATORS[suffix_of(self.path)] if mark in first]
        found, complaints = [], []
        for quotes in (STANDARD, BACKSLASH, LITERAL):
            if quotes == BACKSLASH and not any('\\"' in line for line in self.lines()):
                continue
            for separator in separators or [ONE_COLUMN]:
                form = Form(separator, quotes)
                try:
                    found.append((form, self.look_at(form)))
                except Irregular as error:
                    complaints.append(error)
            if found:
                break
        else:
            raise complaints[0]
        form, account = max(found, key=lambda entry: len(entry[1].names))
        if form.quotes == STANDARD and self.quotes_are_text(form, account):
            form = Form(form.separator, LITERAL)
            account = self.look_at(form)
        return form, account

    def look_at(self, form: Form) -> Account:
        """Read all rows. Raises Irregular."""
        rows = itertools.islice(self.read(form), None if self.most is None else self.most + 1)
        names = next(rows, [])
        number, several, numbers = 0, 0, set(range(len(names)))
        for row in rows:
            number += 1
            several += any("\n" in cell for cell in row)
            numbers -= {n for n in numbers if row[n] and not NUMBER.fullmatch(row[n])}
            if form == Form(ONE_COLUMN, LITERAL) and row[0].endswith('"'):
                raise Irregular("a quote may close here")  # and the cell be longer than a line
        return Account(names, number, numbers, several)

    def quotes_are_text(self, form: Form, account: Account) -> bool:
        """Tell whether quotes that could enclose cells are rather text.

        They are where every line is a whole row, quotes aside, and where quotes swallow lines; and
        in TSV files if no cell needs its quotes, though not all of a column have them: no program
        writes these.
        """
        if form.separator == ONE_COLUMN or not any('"' in line for line in self.lines()):
            return False
        literal = Form(form.separator, LITERAL)
        try:
            if self.look_at(literal).rows > account.rows:
                return True
        except Irregular:
            return False
        if form.separator != "\t":
            return False
        quoted, filled = Counter(), Counter()
        pairs = zip(self.read(literal), self.read(form), strict=True)
        for raw, row in itertools.islice(pairs, 1, None):
            for place, (before, after) in enumerate(zip(raw, row, strict=True)):
                if before != after and '"' in after:
                    return False
                quoted[place] += before != after
                filled[place] += bool(after)
        return any(0 < quoted[place] < filled[place] for place in quoted)


def open_delimited(path: Path, encoding: str, flag: str, streaming: bool) -> Table:
    """Return a CSV or TSV file as a table, after reading all of it (streaming: its beginning).

    Raises UserError that names the first row of another width than the header's, or whose quotes
    do not close.
    """
    file = DelimitedFile(path, encoding, flag, ROWS_LOOKED_AT if streaming else None)
    try:
        form, account = file.choose_form()
    except Irregular as error:
        raise UserError(f"{flag} {path}: {error}") from None
    names, taken = account.names, str(form)
    if not names:
        raise UserError(f"{flag} {path}: holds no row")
    if not streaming:
        several = f", {account.several:,} of several lines" if account.several else ""
        taken = f"{count(account.rows, 'row')}{several}, {form}"

    def rows(wanted: list[str]) -> Iterator[tuple[str, ...]]:
        places = [names.index(name) for name in wanted]
        try:
            for row in itertools.islice(file.read(form), 1, None):
                yield tuple(row[place] for place in places)
        except Irregular as error:  # of a stream, whose rows were not all looked at
            raise UserError(f"{flag} {path}: {error}") from None

    texts = [name for place, name in enumerate(names) if place not in account.numbers]
    doubt = "" if looks_like_names(names) else "its first row does not look like columns' names"
    return Table(names, names if len(names) == 1 else texts, rows, taken, doubt)
