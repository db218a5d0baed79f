"""Lines on a console: of any encoding, as wide as characters are, cut between characters."""

import io
import sys

import pytest

from run_pipeline import one_line
from toolkit.run import console
from toolkit.run.characters import shortened, wrapped
from toolkit.run.widths import width

FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467"  # one picture, of three joined
PERSIAN = "می\u200cرود"


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "gbk"])
def test_a_console_that_lacks_a_character_shows_its_number(monkeypatch, encoding):
    console.say_once_that_it_lacks.cache_clear()
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding, newline="\n") for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    console.say("caf\xe9 漢 \u0e01")
    console.say_on("\u0e01")
    known = {"cp1252": "caf\xe9 \\u6f22 ", "ascii": "caf\\xe9 \\u6f22 ", "gbk": "caf\xe9 漢 "}
    shown = out.buffer.getvalue().decode(encoding)
    assert shown == f"{known[encoding]}\\u0e01\n\\u0e01"
    assert err.buffer.getvalue().decode(encoding).count("PYTHONIOENCODING") == 1


def test_columns_stand_under_each_other_where_characters_are_wide():
    rows = [["", "before"], ["日本語", "1"], ["e\u0301", "2"]]
    assert console.aligned(rows) == ["        before", "日本語  1", "e\u0301       2"]
    assert width("日本語") == 6 and width("e\u0301") == 1 and width(PERSIAN) == 5


def test_a_long_line_is_wrapped_at_spaces_or_between_characters():
    assert wrapped("one two three", 8) == ["one two", "three"]
    assert wrapped("é one two", 5) == ["é one", "two"]
    assert wrapped("漢字" * 5 + " é", 8) == ["漢字漢字", "漢字漢字", "漢字 é"]
    assert wrapped(f"x{FAMILY}{FAMILY}", 8) == [f"x{FAMILY}", FAMILY]


def test_a_line_fits_the_terminal_and_is_cut_between_characters(monkeypatch):
    assert shortened("one two three", 40) == "one two three"
    assert shortened("one two three four", 14) == "one two ..."
    assert shortened("漢字" * 20, 15) == "漢字漢字漢 ..."
    assert shortened("x" * 9 + FAMILY * 9, 21) == "x" * 9 + FAMILY + " ..."
    monkeypatch.setenv("COLUMNS", "20")
    line = one_line(f"a\n{PERSIAN}\t{FAMILY} " * 30)
    assert line.startswith(f"a {PERSIAN} {FAMILY} a") and width(line) <= 60
