"""From texts to documents to splits and blocks: nothing leaks, nothing is lost."""

import copy
import csv
import gzip
import json
import lzma
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import zstandard
from datasets import Dataset, DatasetDict
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import create_dataset
import train_test_split
from load_gpt2 import read_gpt2
from tests.corpus.reading import read_documents
from toolkit.blocks.holding_out import Selection, cut_tail, hold_out
from toolkit.blocks.packing import choose_block_size, pack
from toolkit.blocks.splitting import split_documents
from toolkit.corpus.cutting import cut_articles, cut_at, cut_paragraphs, lines_of, sample_documents
from toolkit.corpus.document import Document
from toolkit.corpus.sources import Reading, read_corpus
from toolkit.corpus.tokenized_documents import TokenColumn, tokenize_documents
from toolkit.corpus.tokenizing import spans_of, tokenize
from toolkit.model.tokenizer_files import open_tokenizer
from toolkit.run.command import UserError
from toolkit.run.run_directory import RunDirectory
from toolkit.writing.sampling import all_prompt_ids
from train_test_split import read_splits

WIKITEXT = """ = First = \n \n Text of the first . \n \n = = Early life = = \n \n More = of it .
 \n = Second = \n \n 1 = 1 \n = Not a heading , no blank line above = \n \n"""


def documents_of(*names, **flags):
    """The train documents of a corpus, as texts."""
    return read_documents(*names, **flags)[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("corpus")


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


# From files to documents


def test_several_files_are_a_document_each(write):
    files = write("a.txt", "one\n\nstill one\n"), write("b.md", "two\n")
    assert documents_of(*files) == ["one\n\nstill one", "two"]
    assert documents_of(files[0].parent) == ["one\n\nstill one", "two"]
    assert documents_of(f"{files[0].parent}/*.txt", files[1]) == ["one\n\nstill one", "two"]


def test_a_separator_cuts_documents(write):
    assert documents_of(write("x.txt", "a\n---\nb\n---\nc"), separator="\n---\n") == ["a", "b", "c"]


@given(st.text(alphabet="ab-\n", max_size=60), st.lists(st.integers(0, 60), max_size=5))
def test_where_the_pieces_of_a_text_end_does_not_matter(text, cuts):
    cuts = sorted(min(cut, len(text)) for cut in cuts)
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    *parts, last = [part.strip("\n") for part in text.split("--")]
    assert list(cut_at(pieces, "--")) == parts + ([last] if last.strip() else [])
    assert "".join(lines_of(pieces)) == text
    assert list(cut_paragraphs(pieces, print)) == list(cut_paragraphs([text], print))


def test_one_file_is_cut_between_grouped_paragraphs_and_loses_nothing(write):
    text = "\n\n".join(f"Paragraph {n}. " + "word " * 60 for n in range(120))
    documents = documents_of(write("x.txt", text))
    assert 10 <= len(documents) < 120
    assert all(len(document) < 2700 for document in documents)
    assert "\n\n".join(documents) == text


def test_paragraphs_are_grouped_to_as_much_text_in_every_script(write):
    """50 kB of Chinese are 17,000 characters."""
    text = "\n\n".join("天还没亮，码头上一个人也没有，只有风声。" * 5 for _ in range(160))
    documents = documents_of(write("x.txt", text))
    assert 20 <= len(documents) <= 30 and "\n\n".join(documents) == text


def test_songs_between_wide_gaps_are_not_cut(write):
    songs = ["\n\n".join(f"Song {n}, verse {v}. " + "la " * 150 for v in "abc") for n in range(15)]
    assert documents_of(write("x.txt", "\n\n\n".join(songs))) == songs


def test_games_and_tunes_are_a_document_each(write):
    games = [f'[Event "{n}"]\n[Site "x"]\n\n1. e4 e5 2. Nf3 Nc6\n3. Bb5 a6 *' for n in range(9)]
    assert documents_of(write("x.txt", "\n\n".join(games) + "\n")) == games
    tunes = [f"X:{n}\nT:One\nK:G\nGABc d2\n\n% a remark" for n in range(1, 9)]
    assert documents_of(write("y.txt", "\n".join(tunes))) == tunes


def test_one_unbroken_text_stays_one_document(write):
    text = "word " * 5000
    assert documents_of(write("x.txt", text)) == [text]
    assert documents_of(write("y.txt", "one paragraph\n\nand another")) == [
        "one paragraph\n\nand another"
    ]


def test_wikitext_is_cut_at_top_level_headings_only(write):
    articles = list(cut_articles(WIKITEXT.splitlines(keepends=True)))
    assert [article.split("\n")[0] for article in articles] == [" = First = ", " = Second = "]
    assert "".join(articles) == WIKITEXT
    assert documents_of(write("x.txt", WIKITEXT)) == articles
    rows = "".join(json.dumps({"text": line}) + "\n" for line in WIKITEXT.splitlines())
    assert documents_of(write("x.jsonl", rows)) == articles


lines_strategy = st.lists(st.text(alphabet="ab \t\r\x0b\u2028\u00a0", max_size=9), max_size=60)


@given(lines_strategy, st.integers(1, 50))
def test_documents_are_the_file_and_between_them_stand_only_line_ends(folder, lines, group):
    (folder / "x.txt").write_bytes("\n".join(lines).encode())
    text = "\n".join(lines).replace("\r\n", "\n").replace("\r", "\n")
    with patch(f"{cut_paragraphs.__module__}.GROUP_BYTES", group):
        documents = documents_of(folder / "x.txt")
    place = 0
    for document in documents:
        start = text.index(document, place)
        assert not text[place:start].strip("\n")
        place = start + len(document)
    assert not text[place:].strip("\n")


cell = st.text(
    alphabet=st.one_of(
        st.sampled_from('",;|\t\n\r\\ #0.'),
        st.characters(exclude_categories=("Cs",), exclude_characters="\0\ufeff"),
    ),
    max_size=12,
)


@given(
    st.lists(st.tuples(cell, cell), min_size=1, max_size=12),
    st.sampled_from([",", ";", "|", "\t"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["\r\n", "\n"]),
)
@settings(max_examples=200)
def test_a_table_that_pythons_csv_wrote_gives_the_same_cells(
    folder, rows, separator, quoting, line_end
):
    # Python writes CR without quotes there, and so another table.
    assume(line_end == "\r\n" or not any("\r" in cell for row in rows for cell in row))
    # Where each line of a cell has the separators of a whole row, the lines are taken for rows.
    assume(not any("\n" in cell and separator in cell for row in rows for cell in row))
    path = folder / ("x.tsv" if separator == "\t" else "x.csv")
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=separator, quoting=quoting, lineterminator=line_end)
        writer.writerows([("id", "text"), *rows])
    expected = [row[1].replace("\r\n", "\n").replace("\r", "\n") for row in rows]
    assert documents_of(path) == expected


ROWS = [{"text": f"row {n}, with a comma", "n": n} for n in range(600)]
TEXTS = [row["text"] for row in ROWS]
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
CSV = "text,n\n" + "".join(f'"{row["text"]}",{row["n"]}\n' for row in ROWS)
TABLES = {
    "x.jsonl": JSONL,
    "x.json": json.dumps(ROWS).encode(),
    "x.csv": CSV.encode(),
    "x.tsv": "text\tn\n" + "".join(f"{row['text']}\t{row['n']}\n" for row in ROWS),
    "x.jsonl.gz": gzip.compress(JSONL),
    "x.jsonl.xz": lzma.compress(JSONL),
    "x.jsonl.zst": zstandard.compress(JSONL),
    "x.csv.gz": gzip.compress(CSV.encode()),
    "bom.csv": "\ufeff".encode() + CSV.encode(),
}


@pytest.mark.parametrize("name", TABLES)
def test_every_table_format_gives_the_same_documents(write, name):
    assert documents_of(write(name, TABLES[name])) == TEXTS


def test_parquet_arrow_and_saved_datasets_give_the_same_documents(tmp_path):
    table = pa.Table.from_pylist(ROWS)
    parquet.write_table(table, tmp_path / "x.parquet")
    with pa.OSFile(str(tmp_path / "x.arrow"), "wb") as sink:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    Dataset(table).save_to_disk(tmp_path / "saved")
    DatasetDict({"train": Dataset(table), "test": Dataset(table)}).save_to_disk(tmp_path / "both")
    for name in ("x.parquet", "x.arrow", "saved", "both"):
        assert documents_of(tmp_path / name) == TEXTS
    assert set(read_corpus([str(tmp_path / "both")], Reading(), "--corpus")) == {"train", "test"}


def test_a_datasets_splits_are_used_by_name_and_the_rest_is_said(tmp_path):
    def notes_of(*names):
        folder = tmp_path / "-".join(names)
        DatasetDict({name: Dataset.from_dict({"text": [name]}) for name in names}).save_to_disk(
            folder
        )
        notes = []
        splits = read_corpus([str(folder)], Reading(note=notes.append), "--corpus")
        return {split: [d.text for d in texts] for split, texts in splits.items()}, notes[0]

    assert notes_of("test") == (
        {"train": ["test"]},
        "its only split, test, is cut into train, validation and test",
    )
    assert notes_of("train", "dev", "valid", "extra") == (
        {"train": ["train"], "validation": ["dev"]},
        "splits that are not read: valid, extra",
    )
    with pytest.raises(UserError, match="has no train split, only validation, test; save the rows"):
        notes_of("validation", "test")


@pytest.mark.parametrize(
    "suffix, pack_up",
    [(".gz", gzip.compress), (".xz", lzma.compress), (".zst", zstandard.compress)],
)
def test_compressed_text_is_read(write, suffix, pack_up):
    assert documents_of(write(f"x.txt{suffix}", pack_up(b"a--b")), separator="--") == ["a", "b"]


def test_encodings_byte_order_marks_and_line_ends(write):
    text = "Café\r\nnaïve\rend"
    expected = ["Café\nnaïve\nend"]
    assert documents_of(write("a.txt", "\ufeff" + text)) == expected
    assert documents_of(write("b.txt", text.encode("latin-1")), encoding="latin-1") == expected
    assert documents_of(write("c.txt", text.encode("utf-16")), encoding="utf-16") == expected
    rows = "text\nCafé\n".encode("latin-1")
    assert documents_of(write("d.csv", rows), encoding="latin-1") == ["Café"]


def test_columns_are_chosen_or_found(write):
    file = write("x.jsonl", '{"id": 1, "body": "a", "title": "t"}\n')
    assert documents_of(file, text="body") == ["a"]
    assert documents_of(write("y.jsonl", '{"id": 1, "body": "a"}\n')) == ["a"]
    assert documents_of(write("z.jsonl", '{"text": "a", "body": "b"}\n')) == ["a"]
    assert documents_of(write("n.jsonl", '{"text": "a"}\n{"text": null}\n')) == ["a", ""]


@given(st.floats(0.01, 1), st.integers(1, 300), st.integers(0, 9))
def test_a_sample_is_seeded_in_order_and_bounded(fraction, most, seed):
    kept = list(sample_documents(range(300), fraction, most, seed))
    assert kept == list(sample_documents(range(300), fraction, most, seed)) == sorted(kept)
    assert len(kept) <= most
    whole = list(sample_documents(range(300), fraction, None, seed))
    assert kept == whole[:most]


# From documents to token ids


@pytest.fixture(scope="module")
def tokenizer(finished):
    return read_gpt2(RunDirectory(finished.path, 7, "cpu", "fp32"))[1]


@given(text=st.text(alphabet="ab, \n\t.'é\u00a0", max_size=300))
def test_pieces_of_a_long_text_tokenize_like_the_whole(tokenizer, text):
    from unittest.mock import patch

    whole = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
    with patch("toolkit.corpus.tokenizing.PIECE_CHARACTERS", 7):
        pieces = spans_of(text, tokenizer)
        assert "".join(pieces) == text
        (ids,), *_ = tokenize([Document("x", text)], tokenizer)
    assert ids.tolist() == [*whole, tokenizer.eos_token_id]


def test_a_tokenizer_saved_after_use_with_truncation_cuts_nothing(tokenizer, tmp_path):
    """A saved tokenizer.json keeps how it was last called."""
    used = copy.deepcopy(tokenizer)
    used("one two three four", truncation=True, max_length=2)
    used.save_pretrained(tmp_path)
    assert '"max_length": 2' in (tmp_path / "tokenizer.json").read_text()
    text = "The lamp was lit at four. " * 9
    (ids,), *_ = tokenize([Document("x", text)], open_tokenizer(tmp_path))
    (whole,), *_ = tokenize([Document("x", text)], tokenizer)
    assert ids.tolist() == whole.tolist() and len(ids) > 20


def test_the_account_of_tokenizing_adds_up(tokenizer, tmp_path):
    texts = ["one", "", "two words", " \n", "three"]
    documents = [Document(str(n), text) for n, text in enumerate(texts)]
    dataset, account = tokenize_documents(documents, tokenizer, tmp_path / "x", "train")
    ids = TokenColumn(dataset)
    assert account["documents"] == len(ids) == 3 and account["empty_documents_dropped"] == 2
    assert account["tokens"] == sum(map(len, ids)) == ids.lengths().sum()
    assert tokenizer.decode(ids[1]) == "two words<|endoftext|>"
    assert dataset["name"][:] == ["0", "2", "4"]
    assert dataset.features["input_ids"].feature.dtype == "uint16"


def test_the_name_of_end_of_text_is_text_within_a_document_a_prompt_and_a_request(tokenizer):
    text, end = "the <|endoftext|> token", tokenizer.eos_token_id
    (ids,), *_ = tokenize([Document("x", text)], tokenizer)
    assert ids[-1] == end and end not in ids[:-1] and tokenizer.decode(ids[:-1]) == text
    assert all_prompt_ids(text, tokenizer) == ids[:-1].tolist()
    assert tokenizer.backend_tokenizer.encode(text).ids.count(end) == 1  # as others read it
    (ids,), *_ = tokenize([Document("x", "plain text")], tokenizer)
    assert ids[:-1].tolist() == tokenizer.backend_tokenizer.encode("plain text").ids


# From token ids to splits and blocks

lengths_strategy = st.lists(st.integers(1, 60), min_size=3, max_size=40)


@given(lengths_strategy, st.floats(0.01, 0.45), st.floats(0.01, 0.45), st.integers(0, 99))
def test_no_document_is_in_two_splits_and_every_one_is_in_one(lengths, validation, test, seed):
    try:
        parts = hold_out(len(lengths), validation, test, seed)
    except ValueError:
        held_out = [max(1, round(len(lengths) * share)) for share in (validation, test)]
        assert sum(held_out) >= len(lengths)
        return
    assert all(len(part) for part in parts.values())
    everywhere = [int(number) for part in parts.values() for number in part]
    assert sorted(everywhere) == list(range(len(lengths)))


@given(lengths_strategy, st.integers(2, 50), st.integers(1, 200))
def test_every_token_is_in_a_block_or_in_the_remainder(lengths, block_size, at_once):
    import tempfile
    from pathlib import Path
    from unittest.mock import patch

    documents = [np.arange(n, dtype=np.uint16) for n in lengths]
    with (
        tempfile.TemporaryDirectory() as folder,
        patch(f"{pack.__module__}.TOKENS_AT_ONCE", at_once),
    ):
        blocks = pack(Selection(documents), block_size, Path(folder) / "x")
        kept = [token for row in blocks["input_ids"] for token in row]
    read = np.concatenate(documents)
    assert kept == read[: len(kept)].tolist()
    assert 0 <= len(read) - len(kept) < block_size


def test_the_same_seed_holds_out_the_same_documents_and_another_seed_others():
    one, same, other = (hold_out(50, 0.1, 0.1, seed)["test"].tolist() for seed in (1, 1, 2))
    assert one == same != other


def test_the_tail_of_one_document_is_held_out():
    parts = cut_tail(np.arange(100), 0.1, 0.2)
    assert [part.tokens() for part in parts.values()] == [70, 10, 20]
    assert next(iter(parts["test"])).tolist() == list(range(80, 100))


def test_the_automatic_block_size_is_the_largest_the_splits_can_fill():
    plenty = {"train": 10**6, "validation": 10**5, "test": 10**5}
    assert choose_block_size(plenty, 1024) == 1024
    assert choose_block_size({**plenty, "train": 20 * 512}, 1024) == 512
    assert choose_block_size({**plenty, "test": 4 * 128}, 1024) == 128
    stream = {"validation": 4 * 512, "test": 4 * 1024}
    assert choose_block_size(stream, 1024) == 512


def test_in_a_real_run_documents_end_with_end_of_text_and_no_split_shares_one(finished):
    run = RunDirectory(finished.path, 7, "cpu", "fp32")
    end = read_gpt2(run)[1].eos_token_id
    documents = TokenColumn(create_dataset.read_documents(run)["train"])
    assert all(ids[-1] == end and end not in ids[:-1] for ids in documents)
    whole = {tuple(ids) for ids in documents}
    seen = {}
    for name, split in read_splits(run).items():
        tokens = np.concatenate(list(split[:]["input_ids"]))
        pieces = np.split(tokens, np.flatnonzero(tokens == end) + 1)[:-1]
        assert {tuple(piece) for piece in pieces} <= whole
        for piece in pieces:
            assert seen.setdefault(tuple(piece), name) == name
    assert set(seen.values()) == {"train", "validation", "test"}


def test_a_real_run_accounts_for_every_token(finished):
    run = RunDirectory(finished.path, 7, "cpu", "fp32")
    read = run.results("create_dataset")["splits"]["train"]["tokens"]
    accounts = run.results("train_test_split")["splits"]
    for name, account in accounts.items():
        assert account["tokens_read"] == account["tokens_in_blocks"] + account["tokens_left_over"]
        assert (
            account["tokens_in_blocks"]
            == account["blocks"] * 32
            == read_splits(run)[name].num_rows * 32
        )
    assert sum(account["tokens_read"] for account in accounts.values()) == read


TENTHS = {"validation": 0.1, "test": 0.1}


def tokenized(*documents):
    """Documents of one token each; equal numbers are copies of each other."""
    return Dataset.from_dict(
        {
            "name": [str(n) for n in range(len(documents))],
            "content": np.array(documents, np.uint64),
            "words": np.array(documents, np.uint64),
            "input_ids": [[n] for n in documents],
        }
    )


def tokens_in(part):
    return [int(ids[0]) for ids in part]


@pytest.mark.parametrize("own", [("test",), ("validation",), ("validation", "test")])
def test_a_corpus_keeps_its_own_splits(own):
    documents = {name: tokenized(90, 91) for name in own} | {"train": tokenized(*range(20))}
    if len(own) == 2:
        documents["validation"] = tokenized(92, 93)
    parts, copied = split_documents(DatasetDict(documents), TENTHS, seed=0)
    assert not any(account["documents_dropped"] for account in copied.values())
    for name in ("validation", "test"):
        if name in own:
            assert tokens_in(parts[name]) == documents[name]["content"][:]
        else:
            assert len(parts[name]) == 2
    assert len(parts["train"]) == 20 - 2 * (2 - len(own))


@given(st.lists(st.integers(0, 12), min_size=12, max_size=60), st.integers(0, 9))
def test_copies_never_sit_on_both_sides(contents, seed):
    from toolkit.run.command import UserError

    try:
        parts, copied = split_documents(DatasetDict(train=tokenized(*contents)), TENTHS, seed)
    except UserError:
        return
    sides = {name: set(tokens_in(part)) for name, part in parts.items()}
    assert not sides["train"] & (sides["validation"] | sides["test"])
    assert not sides["validation"] & sides["test"]
    dropped = sum(account["documents_dropped"] for account in copied.values())
    assert sum(map(len, parts.values())) + dropped == len(contents)


def test_copies_differ_at_most_in_space_and_case_and_are_named(finished, tmp_path, corpus):
    run_path = tmp_path / "run"
    import import_modules
    import load_gpt2

    files = sorted(corpus.iterdir())
    rows = [{"text": path.read_text()} for path in files] * 2
    for row in rows[: len(files)]:
        row["text"] = "  " + row["text"].upper().replace(" ", "\n")
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    here = ["--run_dir", str(run_path)]
    import_modules.main([*here, "--device", "cpu"])
    load_gpt2.main([*here, "--model", str(finished.path / "model")])
    create_dataset.main([*here, "--corpus", str(tmp_path / "x.jsonl")])
    train_test_split.main([*here, "--block_size", "16"])
    copied = RunDirectory(run_path).results("train_test_split")["copies"]["train"]
    assert copied["documents_dropped"] > 0
    assert all(name.startswith("x.jsonl:") for name in copied["names"])


@given(st.integers(1, 50), st.integers(1, 8), st.integers(1, 5))
def test_the_plan_counts_steps_and_tokens_as_the_batches_do(blocks, micro_batch, accumulation):
    from toolkit.training.plan import plan_training

    asked = {
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "max_steps": 1,
        "early_stopping_patience": None,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.05,
    }
    names = ("num_train_epochs", "eval_steps", "save_steps", "logging_steps", "learning_rate")
    asked |= dict.fromkeys(names)
    usual = {"num_train_epochs": 1.0, "learning_rate": 1.0}
    train = {"blocks": blocks, "tokens_in_blocks": 16 * blocks}
    held_out = {"blocks": 2, "tokens_in_blocks": 32}
    plan = plan_training(asked, {"train": train, "validation": held_out}, usual)
    batch = micro_batch * accumulation
    epoch = [min(batch, blocks - start) for start in range(0, blocks, batch)]
    assert plan["steps_per_epoch"] == len(epoch)
    assert plan["tokens_per_step"] == 16 * batch and plan["tokens_per_validation"] == 32
    assert plan["tokens_per_epoch"] == 16 * sum(epoch) and "learned_per_step" not in plan


def test_a_disk_that_fills_up_leaves_nothing_half_written(run_copy, tmp_path):
    """A limit on the size of files stands in for the full disk: writing fails in the middle."""
    from tests.conftest import shell

    (tmp_path / "x.txt").write_text(
        "\n\n".join(f"Paragraph {n} of many words." for n in range(9999))
    )
    before = {path: path.stat().st_mtime_ns for path in run_copy.rglob("*")}
    code = (
        "import resource, create_dataset\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        f"words = ['--run_dir', {str(run_copy)!r}, '--corpus', {str(tmp_path / 'x.txt')!r}]\n"
        "create_dataset.main(words)"
    )
    done = shell("-c", code)
    assert done.returncode == 2 and done.stderr.startswith("error: "), done.stderr
    assert done.stderr.count("\n") == 1
    after = {path: path.stat().st_mtime_ns for path in run_copy.rglob("*")}
    assert {p: t for p, t in after.items() if p.suffix != ".json"} == {
        p: t for p, t in before.items() if p.suffix != ".json"
    }
    train_test_split.main(["--run_dir", str(run_copy), "--block_size", "16"])
