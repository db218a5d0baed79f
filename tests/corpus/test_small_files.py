"""Small files as people have them: the documents that each gives, or how it is refused."""

import gzip
import json

import pytest
import zstandard

import create_dataset
from tests.conftest import shell
from tests.corpus.reading import read_documents, read_examples
from tests.scripts import SCRIPTS, Script
from toolkit.run.command import UserError

LONG = "word " * 450  # a paragraph that fills a group of its own
NOVEL = "\n\n".join(f"{n}. {LONG}" for n in range(12))
JOKES = [f"Joke {n}: why did it cross?" for n in range(30)]

# name of the file, its content, flags, the exact documents
READ = {
    # Tables: cells are text
    "none is a word": ("x.csv", "id,text\n1,None\n2,NA\n3,null\n", {}, ["None", "NA", "null"]),
    "numbers as written": (
        *("x.csv", "text,id\n3.0,a\n007,b\n1e5,c\nTRUE,d\n", {}),
        ["3.0", "007", "1e5", "TRUE"],
    ),
    "dates as written": ("x.csv", "text\n2026-01-02\n1/2/26\n", {}, ["2026-01-02", "1/2/26"]),
    "nan and empty": ("x.csv", "id,text\n1,nan\n2,\n3,n/a\n", {}, ["nan", "", "n/a"]),
    "spaces around cells stay": ("x.csv", "id,text\n1,  a b \n", {}, ["  a b "]),
    "one column of numbers": ("x.csv", "text\n1\n2\n", {}, ["1", "2"]),
    # Separators
    "semicolons": ("x.csv", "id;text\n1;a, b\n2;c\n", {}, ["a, b", "c"]),
    "bars": ("x.csv", "id|text\n1|a, b; c\n", {}, ["a, b; c"]),
    "tabs in a csv": ("x.csv", "id\ttext\n1\ta, b\n", {}, ["a, b"]),
    "said in the first line": ("x.csv", "sep=;\nid;text\n1;a\n", {}, ["a"]),
    "commas in an only column": ("x.csv", "text\na, b, c\nd\n", {}, ["a, b, c", "d"]),
    "commas in quotes in an only column": ("x.csv", 'text\n"a, b"\nc\n', {}, ["a, b", "c"]),
    "header of two, commas in quotes": ("x.csv", 'id,text\n1,"a, b"\n', {}, ["a, b"]),
    "the separator of more columns": (
        "x.csv",
        "id;by;text,\n1;a;b, c\n",
        {"text": "text,"},
        ["b, c"],
    ),
    # Quotes
    "a doubled quote": ("x.csv", 'id,text\n1,"a ""b"" c"\n', {}, ['a "b" c']),
    "a quote in the middle": ("x.csv", 'id,text\n1,a "b" c\n', {}, ['a "b" c']),
    "a quote for inches": ("x.csv", 'id,text\n1,5" wide\n2,b\n', {}, ['5" wide', "b"]),
    "a lone quote in a tsv": (
        *("x.tsv", 'id\ttext\n1\t"a\n2\tb\n3\t"c\n4\td\n', {}),
        ['"a', "b", '"c', "d"],
    ),
    "an odd lone quote in a tsv": ("x.tsv", 'id\ttext\n1\t"a\n2\tb\n', {}, ['"a', "b"]),
    "lone quotes that enclose lines": (
        *("x.tsv", 'id\ttext\n1\t"a\n2\tb\n3\tc"\n4\td\n', {}),
        ['"a', "b", 'c"', "d"],
    ),
    "someone's quotes in a tsv": ("x.tsv", 'id\ttext\n1\t"hi"\n2\tb\n', {}, ['"hi"', "b"]),
    "a program's quotes in a tsv": ("x.tsv", 'id\ttext\n1\t"hi"\n2\t"b"\n', {}, ["hi", "b"]),
    "a doubled quote in a tsv": ("x.tsv", 'id\ttext\n1\t"a ""b"""\n2\tc\n', {}, ['a "b"', "c"]),
    "a tab in quotes": ("x.tsv", 'id\ttext\n1\t"a\tb"\n2\tc\n', {}, ["a\tb", "c"]),
    "backslashes before quotes": (
        *("x.csv", 'id,text\n1,"a \\"b\\", c"\n2,d\n', {}),
        ['a "b", c', "d"],
    ),
    "a path with backslashes": ("x.csv", "id,text\n1,C:\\new\n", {}, ["C:\\new"]),
    "text after a quote, lines whole": (
        *("x.csv", 'id,text\n1,"a" b\n2,c\n', {}),
        ['"a" b', "c"],
    ),
    # Line ends and marks
    "several lines in a cell": ("x.csv", 'id,text\n1,"a\n\n b"\n2,c\n', {}, ["a\n\n b", "c"]),
    "crlf in a cell": ("x.csv", b'id,text\r\n1,"a\r\nb"\r\n', {}, ["a\nb"]),
    "cr in a json cell": ("x.jsonl", '{"text": "a\\r\\nb\\rc"}\n', {}, ["a\nb\nc"]),
    "cr alone ends rows": ("x.csv", b"id,text\r1,a\r2,b\r", {}, ["a", "b"]),
    "blank lines between rows": ("x.csv", "\nid,text\n\n1,a\n\n2,b\n", {}, ["a", "b"]),
    "a mark inside": ("x.csv", "id,text\n1,a\n\ufeff2,b\n", {}, ["a", "b"]),
    "unusual line separators stay": ("x.csv", "id,text\n1,a\u2028b\x0bc\n", {}, ["a\u2028b\x0bc"]),
    # Which column
    "a saved index": ("x.csv", ",text\n0,a\n1,b\n", {}, ["a", "b"]),
    "the only one that is no number": ("x.csv", "id,tweet,likes\n1,a,3\n2,b,4\n", {}, ["a", "b"]),
    "a column asked for": ("x.csv", "a,b\nx,y\n", {"text": "b"}, ["y"]),
    "a late column": (
        *("x.csv", "id,text,by\n" + "1,a,\n" * 11_000 + "2,b,Ann\n", {}),
        ["a"] * 11_000 + ["b"],
    ),
    "a column that turns to words": (
        *("x.jsonl", '{"text": "a", "n": 1}\n' * 3 + '{"text": "b", "n": "many"}\n', {}),
        ["a", "a", "a", "b"],
    ),
    # JSON
    "rows": ("x.jsonl", '{"text": "a"}\n\n{"text": "b"}', {}, ["a", "b"]),
    "a list of rows": ("x.json", '[\n {"text": "a"},\n {"text": "b"}\n]', {}, ["a", "b"]),
    "rows in a json": ("x.json", '{"text": "a"}\n{"text": "b"}\n', {}, ["a", "b"]),
    "one row": ("x.json", '{\n"text": "a"\n}', {}, ["a"]),
    "a list of texts": ("x.json", '["a", "b"]', {}, ["a", "b"]),
    "null and missing": (
        "x.jsonl",
        '{"text": "a"}\n{"text": null}\n{"id": 1}\n',
        {},
        ["a", "", ""],
    ),
    "numbers as written in json": (
        *("x.jsonl", '{"n": 1.50}\n{"n": 1e3}\n{"n": true}\n', {"text": "n"}),
        ["1.50", "1e3", "true"],
    ),
    "rows in a field": (
        *("x.json", '{"chat": "g", "messages": [{"id": "1", "content": "a"}, {"content": "b"}]}'),
        *({"text": "messages.content"}, ["a", "b"]),
    ),
    "rows in a field, indented": (
        *("x.json", json.dumps({"m": [{"content": "a"}]}, indent=1), {"text": "m.content"}, ["a"]),
    ),
    "a column within a column": (
        *("x.jsonl", '{"by": {"name": "Ann"}, "text": "a"}\n', {"text": "by.name"}, ["Ann"]),
    ),
    "a column with a dot": ("x.jsonl", '{"a.b": "x"}\n', {"text": "a.b"}, ["x"]),
    "a tab within a text": ("x.jsonl", b'{"text": "a\tb"}\n', {}, ["a\tb"]),
    "a pair of surrogates": ("x.jsonl", '{"text": "\\ud83d\\ude00"}\n', {}, ["\U0001f600"]),
    # Text
    "code": (
        *("x.txt", "def f():\n\tx = 1\n\t\n\treturn x\n\n\n\ndef g():\n    pass\n", {}),
        ["def f():\n\tx = 1\n\t\n\treturn x\n\n\n\ndef g():\n    pass"],
    ),
    "indented first line": ("x.txt", "    a\nb\n", {}, ["    a\nb"]),
    "spaces at the end": ("x.txt", "a  \nb \t", {}, ["a  \nb \t"]),
    "groups of paragraphs": ("x.txt", NOVEL, {}, NOVEL.split("\n\n")),
    "a separator": ("x.txt", "a\n---\n\n  b\n---\n", {"separator": "\n---\n"}, ["a", "  b"]),
    "a line each": ("x.txt", "\n".join(JOKES), {"separator": "\n"}, JOKES),
    "windows line ends": ("x.txt", b"a\r\n\r\nb\r\n", {}, ["a\n\nb"]),
    "utf-16 with its mark": ("x.txt", "Café\r\nb".encode("utf-16"), {}, ["Café\nb"]),
    "utf-16 of the other order": ("x.txt", b"\xfe\xff" + "ab".encode("utf-16-be"), {}, ["ab"]),
    "utf-32 with its mark": ("x.txt", "ab".encode("utf-32"), {}, ["ab"]),
    "utf-16 tables": ("x.csv", "id\ttext\n1\ta\n".encode("utf-16"), {}, ["a"]),
    "utf-16 without a mark": ("x.txt", "ab".encode("utf-16-le"), {"encoding": "utf-16-le"}, ["ab"]),
    "marks where files were joined": ("x.txt", "\ufeffa\n\ufeffb", {}, ["a\nb"]),
    "compressed": ("x.csv.gz", gzip.compress(b"id,text\n1,a\n"), {}, ["a"]),
    "compressed in two frames": (
        *("x.txt.zst", zstandard.compress(b"a\n") + zstandard.compress(b"b"), {}, ["a\nb"]),
    ),
    # The end-of-text token's own text
    "end of text between": ("x.txt", "a\n\nb<|endoftext|>c<|endoftext|>\n", {}, ["a\n\nb", "c"]),
    "start and end of text": (
        *("x.txt", "<|startoftext|>a\nb<|endoftext|>\n<|startoftext|>c<|endoftext|>\n", {}),
        ["a\nb", "c"],
    ),
    "start of text, cut by lines": (
        *("x.txt", "<|startoftext|>a\n<|startoftext|>b\n", {"separator": "\n"}, ["a", "b"]),
    ),
    "end of text around a cell": (
        *("x.csv", "id,text\n1,<|startoftext|>a<|endoftext|>\n2,b<|endoftext|> \n", {}),
        ["a", "b"],
    ),
    "end of text within a cell": (
        *("x.csv", "id,text\n1,the <|endoftext|> token\n", {}, ["the <|endoftext|> token"]),
    ),
    # Articles
    "wikitext": (
        *("x.txt", " = A = \n \n one \n \n = B = \n \n two \n", {}),
        [" = A = \n \n one \n \n", " = B = \n \n two \n"],
    ),
}


@pytest.mark.parametrize("case", READ)
def test_a_file_gives_exactly_these_documents(case, tmp_path):
    name, content, flags, documents = READ[case]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert read_documents(path, **flags)[0] == documents


# name of the file, its content, flags, what the refusal says
REFUSED = {
    "a wider row": (
        "x.csv",
        "id,text\n1,a\n2,b, c\n",
        {},
        "row 2 (line 3) has 3 cells, the header 2",
    ),
    "a narrower row": (
        "x.csv",
        'id,text\n1,"a\nb"\n2\n',
        {},
        "row 2 (line 4) has 1 cell, the header 2",
    ),
    "a row cut by a line end": ("x.csv", "id,text,n\n1,a\nb,3\n", {}, "row 1 (line 2) has 2 cells"),
    "a quote that does not close": (
        *("x.csv", 'id,text\n1,"a\n2,b, c\n', {}, "row 1 (line 2): a quote does not close"),
    ),
    "an only column with odd quotes": (
        *("x.csv", 'text\n"a" b\n"c\nd"\n', {}, "row 1 (line 2): a quote does not close, or text"),
    ),
    "no header": (
        *("x.csv", '1000;maria;"The storm is over."\n1001;tom;"I saw it."\n', {}),
        "its first row does not look like columns' names (1000, maria, The storm is over.)",
    ),
    "no header, one column": (
        "x.csv",
        "I love this song so much!\nme too\n",
        {},
        "does not look like",
    ),
    "no header, a column asked for": (
        *("x.csv", "1,The storm is over.\n2,b\n", {"text": "text"}),
        "no such column; there are: 1, The storm is over. (its first row does not look like",
    ),
    "two columns of words": ("x.csv", "a,b\nx,y\n", {}, "say with --text_column which column is"),
    "an absent column": ("x.csv", "a,b\nx,y\n", {"text": "c"}, "no such column; there are: a, b"),
    "an empty table": ("x.csv", "", {}, "holds no row"),
    "an empty list": ("x.json", "[]", {}, "holds no row"),
    "rows in a field, not named": (
        *("x.json", '{"guild": "g", "messages": [{"id": "1", "content": "a"}]}', {}),
        "its rows stand in messages; say with --text_column which column is the text: messages.id, "
        "messages.content, guild",
    ),
    "a list for a text": (
        *("x.jsonl", '{"m": ["a"], "t": "x"}\n' * 2, {"text": "m"}, "--text_column m holds a list"),
    ),
    "an object for a text": (
        *("x.jsonl", '{"m": "a"}\n{"m": {"x": 1}}\n', {"text": "m"}, "line 2: m holds an object"),
    ),
    "half a character": (
        *("x.jsonl", '{"text": "a"}\n{"text": "\\ud83d"}\n', {}),
        "line 2: text holds half a character (\\ud83d alone)",
    ),
    "a broken line": ("x.jsonl", '{"text": "a"}\n{"text": \n', {}, "line 2 is not JSON at column"),
    "a broken list": ("x.json", '[{"text": "a"},\n {"te]', {}, "is not JSON at line 2 column"),
    "a list for a row": (
        "x.jsonl",
        '{"text": "a"}\n["b"]\n',
        {},
        "line 2 is a list, not an object",
    ),
    "numbers for rows": ("x.json", "[1, 2]", {}, "row 1 is 1, not an object of columns"),
    "deeply nested": ("x.json", "[" * 100_000, {}, "is nested too deeply"),
    "utf-16 without its mark": (
        *("x.txt", "hello there".encode("utf-16-le"), {}, "give --encoding utf-16-le"),
    ),
    "utf-16 without its mark, big": (
        *("x.csv", "text\nhello".encode("utf-16-be"), {}, "give --encoding utf-16-be"),
    ),
    "utf-16 asked for, no mark": (
        *("x.txt", "hello".encode("utf-16-le"), {"encoding": "utf-16"}, "utf-16-le or utf-16-be"),
    ),
    "zero bytes": ("x.txt", b"ab\0cdefgh", {}, "is no text (a zero byte at offset 2)"),
    "another encoding": ("x.csv", "text\nCaf\xe9".encode("latin-1"), {}, "is not utf-8"),
    "no encoding at all": (
        *("x.txt", SCRIPTS["Han"].one, {"encoding": "latin-1"}),
        "as latin-1 it is no text, but control or private characters",
    ),
    "two encodings": (
        *("x.txt", b"caf\xc3\xa9 caf\xe9\n", {}),
        "offset 9 is not utf-8; the text before it is: the file is damaged there",
    ),
    "cut short": ("x.csv.gz", gzip.compress(b"text\na\n" * 99)[:-9], {}, "is cut short or damaged"),
}


ENCODINGS = {
    "gb18030": SCRIPTS["Han"],
    "big5": Script("從前有一個小村莊，村裡住著一位老人。", "他每天早上都到河邊釣魚。", ""),
    "cp932": SCRIPTS["Kana"],
    "cp949": SCRIPTS["Hangul"],
    "cp1251": SCRIPTS["Cyrillic"],
    "koi8_r": SCRIPTS["Cyrillic"],
    "cp1253": SCRIPTS["Greek"],
    "cp1255": SCRIPTS["Hebrew"],
    "cp874": SCRIPTS["Thai"],
    "cp1252": Script("Où est passé le garçon ?", "L'été dernier, j'ai été à la plage.", ""),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_likely_encoding_is_named_with_a_line_as_it_would_read(encoding, tmp_path):
    text = f"{ENCODINGS[encoding].one}\n{ENCODINGS[encoding].other}\n" * 3
    (tmp_path / "x.txt").write_bytes(text.encode(encoding))
    with pytest.raises(UserError) as refusal:
        read_documents(tmp_path / "x.txt")
    said = str(refusal.value)
    assert f'as {encoding} it reads "{text[:15]}' in said and f"--encoding {encoding}" in said


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_is_refused_in_one_line_that_says_why(case, tmp_path, capfd):
    name, content, flags, reason = REFUSED[case]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as refusal:
        read_documents(path, **flags)
    message = str(refusal.value)
    assert message.startswith(f"--corpus {path}: ") and reason in message and "\n" not in message
    assert capfd.readouterr() == ("", "")  # no line of a library's log


def test_answers_that_look_like_missing_values_are_learned(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("question,answer\nIs it 1?,None\nIs it 2?,NA\nIs it 3?,\n")
    columns = {"prompt": "question", "completion": "answer"}
    assert read_examples(path, **columns) == [
        *(("Is it 1?", "None"), ("Is it 2?", "NA"), ("Is it 3?", ""))
    ]


NOTES = {
    "a table": ("x.csv", "id;text\n1;a\n2;b\n", {}, ["x.csv: 2 rows, separator ';', column text"]),
    "an only column": ("x.csv", "text\na, b\n", {}, ["x.csv: 1 row, no separator, column text"]),
    "cells of several lines": (
        *("x.csv", 'id,text\n1,"a\nb"\n', {}),
        ["x.csv: 1 row, 1 of several lines, separator ',', column text"],
    ),
    "quotes as text": (
        *("x.tsv", 'id\ttext\n1\t"a\n2\tb\n', {}),
        ["x.tsv: 2 rows, separator tab, quotes are text, column text"],
    ),
    "rows of json": ("x.jsonl", '{"body": "a"}\n', {}, ["x.jsonl: 1 row, column body"]),
    "one unbroken text": (
        *("x.txt", "word " * 999, {}),
        ["x.txt: one paragraph, one document, of which the end is held out"],
    ),
    "jokes": (
        *("x.txt", "\n".join(JOKES), {}),
        [
            "x.txt: 30 lines without a blank one, one document, of which the end is held out; if "
            r"each is a text of its own: --document_separator '\n'"
        ],
    ),
    "jokes, a few of them apart": (
        *("x.txt", "\n".join(JOKES) + "\n\n" + "\n".join(JOKES), {}),
        [
            "x.txt: 60 lines with few blank ones, one document, of which the end is held out; if "
            r"each is a text of its own: --document_separator '\n'"
        ],
    ),
    "in another encoding": (
        *("x.txt", "Café au lait.\n", {"encoding": "utf-8-sig"}),
        [
            'read as utf-8-sig: "Café au lait."',
            "x.txt: one paragraph, one document, of which the end is held out",
        ],
    ),
    "games": (
        *("x.txt", '[Event "a"]\n\n1. e4 *\n\n[Event "b"]\n\n1. d4 *\n', {}),
        ["x.txt: cut to its games, a document each"],
    ),
    "jokes between blank lines": (
        *("x.txt", "\n\n".join(JOKES * 30), {}),
        [
            "x.txt: 900 paragraphs of one line, grouped to 12 documents of about 2,000 bytes; "
            r"if each is a text of its own: --document_separator '\n\n'"
        ],
    ),
    "a separator that does not occur": (
        *("x.txt", "a\nb\n", {"separator": "\n---\n"}),
        [r"x.txt: --document_separator '\n---\n' does not occur in it: it is one document"],
    ),
    "end of text": (
        *("x.txt", "<|startoftext|>a<|endoftext|>\nb<|endoftext|>", {}),
        [
            "x.txt: cut to documents at its <|endoftext|>",
            "x.txt: <|startoftext|>, <|endoftext|> around 1 document left out",
        ],
    ),
    "end of text within": (
        *("x.jsonl", '{"text": "the <|endoftext|> token"}\n', {}),
        [
            "x.jsonl: 1 row, column text",
            "x.jsonl: <|endoftext|> within 1 document is read as text, not as the token",
        ],
    ),
}


@pytest.mark.parametrize("case", NOTES)
def test_what_was_taken_is_said(case, tmp_path):
    name, content, flags, notes = NOTES[case]
    (tmp_path / name).write_text(content)
    assert read_documents(tmp_path / name, **flags)[1] == notes


def test_step_4_prints_what_was_taken_and_needs_no_home(run_copy, tmp_path):
    (tmp_path / "x.csv").write_text("id;text\n" + "".join(f"{n};Entry {n}.\n" for n in range(9)))
    words = ["create_dataset.py", "--run_dir", str(run_copy), "--corpus", str(tmp_path / "x.csv")]
    done = shell(*words, HOME="/proc/no home", HF_HOME="/proc/no home", XDG_CACHE_HOME="/proc/none")
    note = "x.csv: 9 rows, separator ';', column text"
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert done.stdout.startswith(f"[4/10] {note}\n[4/10] 9 documents, ")
    record = json.loads((run_copy / "create_dataset.json").read_text())
    assert record["results"]["notes"] == [note]


def test_of_many_notes_some_are_printed_and_all_recorded(run_copy, tmp_path, capsys):
    for number in range(9):
        (tmp_path / f"{number}.csv").write_text("text\na, b\n")
    create_dataset.main(["--run_dir", str(run_copy), "--corpus", str(tmp_path / "*.csv")])
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 8 and printed[6] == "[4/10] ... and 3 more notes, in the record"
    record = json.loads((run_copy / "create_dataset.json").read_text())
    assert len(record["results"]["notes"]) == 9
