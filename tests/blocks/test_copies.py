"""What train and held-out splits share: copies, short messages that recur, near-copies, windows."""

import json
from unittest.mock import patch

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given
from hypothesis import strategies as st

import create_dataset
import import_modules
import load_gpt2
import train_test_split
from toolkit.blocks.leakage import near_copies, windows_in_train
from toolkit.blocks.splitting import split_documents
from toolkit.corpus.contents import SHORT_BYTES, content_of, hashes_of
from toolkit.corpus.document import Document
from toolkit.report.report import leak_line
from toolkit.run.run_directory import RunDirectory
from train_test_split import read_splits, summarize

TENTHS = {"validation": 0.1, "test": 0.1}
LONG = "The lamp was lit at four, and the glass wiped twice before dark."
MESSAGES = ["ok", "lol", "see you", "好的", "\u0e04\u0e48\u0e30"]  # also without spaces


@pytest.fixture
def split(finished, tmp_path):
    """Take rows through steps 2 to 5, and return the run directory."""

    def split(rows, *words, streaming=(), splits=None):
        if splits is None:
            corpus = tmp_path / "rows.jsonl"
            corpus.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
        else:
            corpus = tmp_path / "saved"
            columns = {name: Dataset.from_dict({"text": part}) for name, part in splits.items()}
            DatasetDict(columns).save_to_disk(corpus)
        here = ["--run_dir", str(tmp_path / "run")]
        import_modules.main([*here, "--device", "cpu"])
        load_gpt2.main([*here, "--model", str(finished.path / "model")])
        create_dataset.main([*here, "--corpus", str(corpus), *streaming])
        train_test_split.main([*here, "--block_size", "8", *words])
        return RunDirectory(tmp_path / "run", 42, "cpu", "fp32")

    return split


def texts_in(run, split):
    """The whole documents of a packed split; of a stream's train split, of its first chunk."""
    blocks, tokenizer = read_splits(run)[split], load_gpt2.read_tokenizer(run)
    rows = next(blocks.read_chunks(blocks.start))[0] if hasattr(blocks, "start") else blocks[:]
    text = tokenizer.decode(np.concatenate(list(rows["input_ids"])))
    return text.split(tokenizer.eos_token)[:-1]


def chat(rows=1500):
    """Every second row is one of five messages, every other one a row of its own."""
    return [
        MESSAGES[n // 2 % len(MESSAGES)] if n % 2 else f"{LONG} Entry {n}." for n in range(rows)
    ]


# Which documents are copies


@given(st.text(max_size=80), st.text(max_size=20), st.text(max_size=20))
def test_short_documents_are_told_apart_by_name_and_long_ones_by_their_words_alone(text, a, b):
    one, other = Document(a, text), Document(b, text)
    words = " ".join(text.split()).casefold()
    short = len(words.encode()) < SHORT_BYTES
    assert hashes_of(one)[1] == hashes_of(other)[1]
    assert (content_of(one) == content_of(other)) == (a == b or not short)
    assert (hashes_of(one)[0] == hashes_of(one)[1]) == (not short)
    assert content_of(one) == content_of(Document(a, f"  {words}\n"))


def test_what_is_short_is_counted_in_bytes_of_folded_text():
    """So it holds without spaces between words, and for a message padded with white space."""
    for text, short in (
        ("a" * 59, True),
        ("a" * 60, False),
        ("好" * 19, True),
        ("好" * 20, False),
        (" o   k " + "\n" * 90, True),
    ):
        contents = {content_of(Document(name, text)) for name in ("x:1", "x:2")}
        assert len(contents) == 1 + short, text
    pair = [Document(name, "a" * 30, "b" * 30) for name in ("x:1", "x:2")]
    assert content_of(pair[0]) == content_of(pair[1])  # prompt and completion together


# Short messages stay where they fall


@pytest.mark.parametrize(
    "words, streaming",
    [
        (["--hold_out_by", "shuffle"], []),
        (["--hold_out_by", "hash"], []),
        ([], ["--streaming"]),
    ],
    ids=["shuffle", "hash", "stream"],
)
def test_short_messages_have_their_natural_share_of_train_and_test(split, words, streaming):
    run = split(chat(), *words, streaming=streaming)
    for name in ("train", "validation", "test"):
        found = texts_in(run, name)
        shares = [found.count(message) / len(found) for message in MESSAGES]
        # a tenth each: give or take what 150 documents leave to chance
        assert all(0.02 < share < 0.22 for share in shares), (name, shares)
        assert sum(shares) == pytest.approx(0.5, abs=0.13)


@pytest.mark.parametrize("words", [["--hold_out_by", "shuffle"], ["--hold_out_by", "hash"]])
def test_copies_of_long_documents_are_dropped_and_short_ones_kept_and_counted(split, words):
    rows = chat(400) * 2
    run = split(rows, *words)
    results = run.results("train_test_split")
    parts = {name: texts_in(run, name) for name in ("train", "validation", "test")}
    held_out = {*parts["validation"], *parts["test"]}
    both = held_out & set(parts["train"])
    assert both and both <= set(MESSAGES)
    assert set(parts["validation"]) & set(parts["test"]) <= set(MESSAGES)
    account = results["copies"]["train"]
    kept = sum(text in held_out for text in parts["train"])
    assert account["short_copies_kept"] == pytest.approx(kept, abs=2)  # left over, of no block
    assert "short documents also stand in a held-out split" in summarize(results)
    dropped = account["documents_dropped"] + results["copies"]["validation"]["documents_dropped"]
    documents = sum(part["documents"] for part in results["splits"].values())
    assert documents + dropped == len(rows)
    if words[-1] == "hash":  # copies are on one side to begin with
        assert dropped == 0


@pytest.mark.parametrize("streaming", [[], ["--streaming"]], ids=["whole", "stream"])
def test_a_corpuss_own_test_split_may_share_short_messages_with_train(split, streaming):
    long = [f"{LONG} Entry {n}." for n in range(60)]
    run = split(
        None, streaming=streaming, splits={"train": ["ok", *long], "test": ["ok", "OK ", *long[:9]]}
    )
    assert "ok" in texts_in(run, "train") and "ok" in texts_in(run, "test")
    assert not set(long[:9]) & set(texts_in(run, "train"))


@pytest.mark.parametrize("same", ["train", "test"])
def test_a_validation_split_that_equals_another_is_said(split, capsys, same):
    splits = {"train": [f"{LONG} Entry {n}." for n in range(40)], "test": [LONG]}
    splits |= {"validation": splits[same]}
    emptied, other = ("train", "validation or test") if same == "train" else ("validation", "test")
    with pytest.raises(SystemExit) as stopped:
        split(None, splits=splits)
    message = capsys.readouterr().err
    assert stopped.value.code == 2
    assert f"error: --corpus: every {emptied} document also stands in {other}" in message
    assert "one alone: it is cut into three" in message


def test_a_short_documents_side_depends_on_its_name_alone():
    """Not on the order, the seed or the rest, just as a long one's depends on its words alone."""

    def sides(rows, seed):
        table = {
            "name": [name for name, _ in rows],
            "content": np.array([content_of(Document(*row)) for row in rows], np.uint64),
            "words": np.array([hashes_of(Document(*row))[1] for row in rows], np.uint64),
            "input_ids": [[n] for n in range(len(rows))],
        }
        data = DatasetDict(train=Dataset.from_dict(table))
        parts, _ = split_documents(data, TENTHS, seed, by_hash=True)
        return {rows[int(ids[0])][0]: name for name, part in parts.items() for ids in part}

    rows = [(f"a.jsonl:{n}", "ok") for n in range(300)]
    alone = sides(rows, 1)
    grown = sides([*[(f"b.jsonl:{n}", "ok") for n in range(99)], *rows[::-1]], 2)
    assert {name: grown[name] for name in alone} == alone
    assert set(alone.values()) == {"train", "validation", "test"}


# Near-copies and windows

sides = st.lists(st.lists(st.integers(0, 2), max_size=40), max_size=6)


@given(sides, sides, sides, st.integers(13, 60))
def test_windows_in_train_are_those_of_a_plain_search(train, validation, test, at_once):
    def windows(document):
        return [tuple(document[i : i + 13]) for i in range(len(document) - 12)]

    known = {window for document in train for window in windows(document)}
    held_out = {"validation": validation, "test": test}
    arrays = {
        name: [np.array(document, np.uint16) for document in side]
        for name, side in {"train": train, **held_out}.items()
    }
    with patch("toolkit.blocks.leakage.TOKENS_AT_ONCE", at_once):
        counts = windows_in_train(arrays.pop("train"), arrays, 13)
    for name, side in held_out.items():
        found, total = counts[name]
        assert found.tolist() == [sum(w in known for w in windows(d)) for d in side]
        assert total.tolist() == [len(windows(d)) for d in side]
        near = [
            len(windows(d)) > 0 and sum(w in known for w in windows(d)) / len(windows(d)) >= 0.5
            for d in side
        ]
        assert near_copies(found, total).tolist() == near


def test_documents_with_a_changed_date_or_another_end_are_counted_and_named(split):
    words = np.random.default_rng(0).permutation(
        [f"{a}{b}" for a in "abcdefg" for b in "hijklmnop"]
    )

    def page(n, date=""):
        picked = np.random.default_rng(n).choice(words, 60)
        return f"{date} {' '.join(picked)}"

    fresh = [page(n) for n in range(100)]
    twins = [page(n, f"On {n} June") for n in range(20)]
    parts = {"train": fresh, "validation": [page(n) for n in range(300, 310)]}
    run = split(None, splits=parts | {"test": [*twins, *[page(n) for n in range(200, 230)]]})
    results = run.results("train_test_split")
    near = results["near_copies"]["test"]
    assert near["documents"] == 20 and near["names"][0] == "test:1" and len(near["names"]) == 20
    assert results["near_copies"]["validation"]["documents"] == 0
    assert results["copies"]["train"]["documents_dropped"] == 0  # no word-for-word copies
    said = "20 test documents share half or more of the windows with train"
    assert said in summarize(results)
    line = leak_line(results, results["test_windows_in_train"])
    assert "20 test documents (test:1, test:2, test:3, ...)" in line and "keep one" in line


def test_a_short_message_is_no_near_copy(split):
    """Even where its letters are as many as a window has, or more."""
    message = "zq xv jw kq zx vj qk zv xq jk wq vz kx qj zk vq xz jq"  # no merges: a token a letter
    run = split(None, splits={"train": [LONG, message] * 20, "test": [message] * 9})
    results = run.results("train_test_split")
    assert results["test_windows_in_train"] == 1
    assert results["near_copies"]["test"] == {"documents": 0, "names": []}


def test_of_a_stream_near_copies_cannot_be_told(split):
    results = split(chat(), streaming=["--streaming"]).results("train_test_split")
    assert results["near_copies"] is None
    assert "cannot be told" in leak_line(results, None)
