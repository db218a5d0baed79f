"""A corpus read on the fly: the same documents held out, every block once, and exact resume."""

import itertools
import json
import signal
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import configure_trainer
import create_dataset
import train_test_split
from load_gpt2 import read_gpt2
from tests.run.test_chain import finish, start_training, wait_for_checkpoint
from toolkit.blocks.collator import collate
from toolkit.blocks.holding_out import hold_out_by_hash
from toolkit.blocks.training_stream import TrainingStream
from toolkit.corpus.tokenized_documents import TokenColumn, open_splits
from toolkit.run.command import UserError
from toolkit.run.options import build
from toolkit.run.run_directory import RunDirectory
from train_test_split import read_splits

BLOCK = 32


@pytest.fixture(scope="module")
def stream_flags(flags):
    """The tiny run's flags, streaming."""
    return flags | {"create_dataset.py": [*flags["create_dataset.py"], "--streaming"]}


@pytest.fixture
def split(run_copy):
    """Do steps 4 and 5 anew, and return the run directory."""

    def split(*words, block_size=BLOCK, more=()):
        here = ["--run_dir", str(run_copy)]
        create_dataset.main([*here, *map(str, words)])
        train_test_split.main([*here, "--block_size", str(block_size), *more])
        return RunDirectory(run_copy, 7, "cpu", "fp32")

    return split


@pytest.fixture
def rows_file(corpus, tmp_path):
    """The tiny corpus as one table, a text twice, once in capitals, and one row without text."""
    texts = [path.read_text() for path in sorted(corpus.iterdir())]
    texts = [*texts, texts[0].upper(), " "]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@pytest.fixture
def small_chunks(monkeypatch):
    """Several shuffled chunks in a pass of the tiny corpus, as in a large one."""
    monkeypatch.setattr("toolkit.blocks.training_stream.SHUFFLED_TOKENS", 1000)
    monkeypatch.setattr("toolkit.corpus.tokenized_documents.CHARACTERS_AT_ONCE", 1500)


def rows_of(blocks):
    return [block["input_ids"].tolist() for block in blocks]


def first_blocks(stream, count):
    return rows_of(itertools.islice(stream, count))


# Which documents are held out


@given(
    st.lists(st.integers(0, 2**64 - 1), max_size=50),
    st.lists(st.integers(0, 2**64 - 1), max_size=50),
    st.floats(0.001, 0.49),
    st.floats(0.001, 0.33),  # and half as much again: something is left to train on
    st.floats(0, 0.5),
)
def test_a_hash_decides_alone_and_more_held_out_takes_from_train_only(
    some, others, validation, test, more
):
    def sides(contents, validation, test):
        cut = hold_out_by_hash(np.array(contents, np.uint64), validation, test)
        return {contents[number]: name for name in cut for number in cut[name]}

    alone, together = sides(some, validation, test), sides([*others, *some], validation, test)
    assert set(alone) == set(some) and all(together[hash_] == alone[hash_] for hash_ in alone)
    larger = sides(some, validation, test * (1 + more))
    assert all(larger[hash_] == side for hash_, side in alone.items() if side != "train")


def test_a_hash_holds_out_the_shares_asked_for():
    contents = np.random.default_rng(0).integers(0, 2**64, 100_000, np.uint64)
    cut = hold_out_by_hash(contents, 0.2, 0.05)
    shares = {name: len(numbers) / len(contents) for name, numbers in cut.items()}
    assert shares == pytest.approx({"train": 0.75, "validation": 0.2, "test": 0.05}, abs=0.005)


def test_a_stream_holds_out_what_is_held_out_without_streaming(split, rows_file):
    held_out, train = {}, {}
    for name, words, more in (
        ("whole", [], ["--hold_out_by", "hash"]),
        ("stream", ["--streaming"], []),
    ):
        run = split("--corpus", rows_file, *words, more=more)
        held_out[name] = {k: rows_of(v) for k, v in read_splits(run).items() if k != "train"}
        train[name] = documents_in(run, train_tokens(run))
    assert held_out["whole"] == held_out["stream"]
    account = run.results("train_test_split")["splits"]
    assert account["train"]["blocks"] is None and account["test"]["documents"] > 0
    # Blocks cut the last documents off, others in either case: both have nearly all.
    both = train["whole"] & train["stream"]
    assert len(both) >= max(map(len, train.values())) - 2 > 20


def documents_in(run, tokens):
    """The documents of packed tokens, whatever their order."""
    end = read_gpt2(run)[1].eos_token_id
    return {tuple(map(int, d)) for d in np.split(tokens, np.flatnonzero(tokens == end) + 1)[:-1]}


def train_tokens(run):
    """The tokens of the train split, or of a stream's first pass, unshuffled."""
    train = read_splits(run)["train"]
    if isinstance(train, TrainingStream):
        rows, _ = next(train.read_chunks(train.start))
        return rows["input_ids"].reshape(-1)
    return np.concatenate(list(train["input_ids"]))


def test_of_a_large_held_out_split_only_the_beginning_is_kept(split, corpus, monkeypatch):
    words = ["--validation_fraction", "0.3", "--test_fraction", "0.3"]
    whole = split("--corpus", corpus, "--streaming", more=words).results("train_test_split")
    monkeypatch.setattr("toolkit.blocks.document_stream.HELD_OUT_CHARACTERS", 1000)
    monkeypatch.setattr("toolkit.corpus.tokenized_documents.CHARACTERS_AT_ONCE", 1500)
    run = split("--corpus", corpus, "--streaming", more=words)
    few = run.results("train_test_split")
    for name in ("validation", "test"):
        assert 0 < few["splits"][name]["documents"] < whole["splits"][name]["documents"]
        assert few["stream"][name]["characters"] < 1000 + 2000  # the last document goes over
    assert few["stream"]["documents_read"] < whole["stream"]["documents_read"] == 30
    for _ in zip(range(400), stream := read_splits(run)["train"], strict=False):
        pass
    account = stream.account(400)
    held_out = account["documents_held_out"] / account["passes_read"]
    assert held_out == sum(whole["splits"][n]["documents"] for n in ("validation", "test"))


def test_own_splits_are_used_and_their_copies_not_trained_on(split, corpus, tmp_path):
    from datasets import Dataset, DatasetDict

    texts = [path.read_text() for path in sorted(corpus.iterdir())]
    parts = {"train": texts, "test": [texts[0].upper(), texts[1]]}
    saved = DatasetDict({k: Dataset.from_dict({"text": v}) for k, v in parts.items()})
    saved.save_to_disk(tmp_path / "saved")
    run = split("--corpus", tmp_path / "saved", "--streaming")
    results = run.results("train_test_split")
    assert results["splits"]["test"]["documents"] == 2
    validation = results["splits"]["validation"]["documents"]
    stream = read_splits(run)["train"]
    account = stream.account(len(first_blocks(stream, 1)))
    assert account["documents_held_out"] == validation + 2


# The blocks


def test_a_pass_gives_the_blocks_of_plain_packing_each_once(split, rows_file, small_chunks):
    run = split("--corpus", rows_file, "--streaming")
    tokenizer, expected = read_gpt2(run)[1], []
    held_out = set(open_splits(run.path / "splits")["held_out"]["name"])
    for number, line in enumerate(rows_file.read_text().splitlines(), start=1):
        text = json.loads(line)["text"]
        if f"rows.jsonl:{number}" not in held_out and text.strip():
            expected += [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    whole = len(expected) // BLOCK
    stream = read_splits(run)["train"]
    given = first_blocks(stream, whole)
    packed = [expected[n * BLOCK : (n + 1) * BLOCK] for n in range(whole)]
    assert sorted(given) == sorted(packed) and given != packed
    account = stream.account(whole)
    assert account["tokens_read"] == len(expected)
    assert account["documents_read"] == 32 and account["empty_documents_dropped"] <= 1


def test_a_stream_goes_on_from_any_block(split, corpus, small_chunks):
    run = split("--corpus", corpus, "--streaming")
    stream, blocks = read_splits(run)["train"], []
    for block in itertools.islice(stream, 700):  # two passes and a half, over thirty files
        blocks.append(block["input_ids"].tolist())
    assert stream.account(700)["passes_read"] >= 2
    running = read_splits(run)["train"]
    going = iter(running)
    for place in range(0, 650, 13):
        state = json.loads(json.dumps(running.state_at(place)))
        resumed = read_splits(run)["train"]
        resumed.go_to(state)
        assert first_blocks(resumed, 40) == blocks[place : place + 40]
        assert resumed.account(place + 40) == stream_account(run, place + 40)
        assert len(rows_of(itertools.islice(going, 13))) == 13


def stream_account(run, block):
    stream = read_splits(run)["train"]
    first_blocks(stream, block)
    return stream.account(block)


@given(size=st.integers(2, 64), chunk=st.integers(1, 5000), block=st.integers(1, 900))
@settings(max_examples=15)
def test_the_account_of_a_stream_adds_up(finished, tmp_path_factory, corpus, size, chunk, block):
    from unittest.mock import patch

    from create_dataset import DatasetOptions, stream_documents

    tokenizer = read_gpt2(RunDirectory(finished.path, 7, "cpu", "fp32"))[1]
    options = DatasetOptions(corpus=[str(corpus)], streaming=True)
    documents = stream_documents(options, lambda: tokenizer, None)
    shares = {"validation": 0.1, "test": 0.2}
    stream = TrainingStream(documents, shares, np.empty(0, np.uint64), size, seed=1)
    with patch("toolkit.blocks.training_stream.SHUFFLED_TOKENS", chunk):
        assert len(first_blocks(stream, block)) == block
        account = stream.account(block)
    in_blocks = (account["blocks"] + account["blocks_read_but_not_used"]) * size
    assert account["tokens_read"] == in_blocks + account["tokens_left_over"]
    assert account["blocks"] == block and account["tokens_left_over"] < size


def test_prompts_and_completions_stream_as_they_pack(split, monkeypatch):
    corpus = ["--corpus", "data/dialogues.jsonl"]
    columns = ["--prompt_column", "dialogue", "--completion_column", "summary"]
    rows, dropped = {}, {}
    for name in ("whole", "stream"):
        words = [*corpus, *columns, *(["--streaming"] if name == "stream" else [])]
        # The tiny model has 64 positions, which no dialogue fits in.
        monkeypatch.setattr("toolkit.blocks.block_splits.refuse_beyond", lambda *_: None)
        more = ["--hold_out_by", "hash"] if name == "whole" else []
        run = split(*words, block_size=500, more=more)
        train = read_splits(run)["train"]
        account = run.results("train_test_split")["splits"]
        if name == "whole":
            count = account["train"]["blocks"]
            dropped[name] = account["train"]["examples_dropped_too_long"]
        taken = list(itertools.islice(train, count))
        rows[name] = sorted(
            (block["input_ids"].tolist(), block["learned"].tolist(), int(block["length"]))
            for block in taken
        )
    assert rows["whole"] == rows["stream"] and len(rows["whole"]) > 20
    account = train.account(count)
    assert account["examples_dropped_too_long"] == dropped["whole"] > 0
    batch = collate(taken[:3])
    assert (batch["labels"][0] == -100).sum() >= int(taken[0]["learned"][0])


def test_lines_of_articles_stream_as_articles(split, tmp_path):
    articles = [f" = Title {n} = \n\n Text of {n} , and more .\n\n" for n in range(200)]
    (tmp_path / "wiki.txt").write_text("".join(articles))
    run = split("--corpus", tmp_path / "wiki.txt", "--streaming", block_size=8)
    documents = create_dataset.read_documents(run)
    assert [d.text for d in documents.read_split("train")] == articles


# Stopping and going on


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, stream_flags):
    run = tmp_path_factory.mktemp("whole") / "run"
    finish(start_training(run, stream_flags, "--to_step", "7"))
    return run


@pytest.mark.parametrize(
    "number, code",
    [(signal.SIGINT, 130), pytest.param(signal.SIGKILL, -9, marks=pytest.mark.slow)],
)
def test_a_stopped_stream_goes_on_to_the_same_weights(
    uninterrupted, tmp_path, stream_flags, number, code
):
    run = tmp_path / "run"
    process = start_training(run, stream_flags, "--to_step", "7")
    wait_for_checkpoint(run, process)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code and "Traceback" not in error
    finish(start_training(run, stream_flags, "--to_step", "7"))
    records = [json.loads((r / "train_model.json").read_text()) for r in (run, uninterrupted)]
    assert records[0]["measured"]["resumed_from"] >= 3
    assert records[0]["results"] == records[1]["results"]
    weights = "model/model.safetensors"
    assert (run / weights).read_bytes() == (uninterrupted / weights).read_bytes()


def test_another_corpus_under_the_same_name_is_noticed_without_reading_it_all(
    split, tmp_path, rows_file
):
    run = split("--corpus", rows_file, "--streaming")
    options = build(create_dataset.DatasetOptions, run.record("create_dataset")["options"])
    assert not run.changed_input("create_dataset", options)
    with rows_file.open("a") as file:
        file.write(json.dumps({"text": "One more."}) + "\n")
    fresh = RunDirectory(run.path, 7, "cpu", "fp32")
    assert fresh.changed_input("create_dataset", options)
    with pytest.raises(UserError, match="input files changed"):
        create_dataset.read_documents(fresh)


# What is refused


def test_a_stream_needs_a_number_of_steps_and_reads_in_one_process(split, corpus, refusal):
    run = split("--corpus", corpus, "--streaming")
    words = ["--run_dir", run.path]
    says = "--max_steps is needed with --streaming"
    assert says in refusal(configure_trainer.main, *words)
    assert says in refusal(configure_trainer.main, *words, "--num_train_epochs", "2")
    workers = ["--max_steps", "2", "--trainer", "dataloader_num_workers=2"]
    assert "--trainer dataloader_num_workers" in refusal(configure_trainer.main, *words, *workers)


def test_a_stream_cannot_be_shuffled_into_splits(split, corpus, refusal):
    run = split("--corpus", corpus, "--streaming")
    words = ["--run_dir", run.path, "--hold_out_by", "shuffle"]
    assert "--hold_out_by shuffle" in refusal(train_test_split.main, *words)


@pytest.mark.parametrize("streaming", [["--streaming"], []], ids=["stream", "whole"])
def test_a_corpus_of_one_document_cannot_be_held_out_by_hash(split, tmp_path, refusal, streaming):
    (tmp_path / "one.txt").write_text("word " * 5000)
    with pytest.raises(SystemExit):
        split("--corpus", tmp_path / "one.txt", *streaming, more=["--hold_out_by", "hash"])
    run = tmp_path / "copy"
    error = refusal(train_test_split.main, "--run_dir", run, "--hold_out_by", "hash")
    assert "by its hash" in error and "--document_separator" in error


def test_a_document_without_end_is_refused_before_it_fills_the_memory(
    run_copy, tmp_path, refusal, monkeypatch
):
    monkeypatch.setattr("toolkit.corpus.cutting.LONGEST_STREAMED", 1 << 21)
    (tmp_path / "endless.txt").write_text("word " * 1_000_000)
    words = ["--run_dir", run_copy, "--corpus", tmp_path / "endless.txt"]
    error = refusal(create_dataset.main, *words, "--streaming")
    assert "endless.txt: a document of more than" in error and "--document_separator" in error
    (tmp_path / "lines.txt").write_text("some words\n" * 1_000_000)
    words = ["--run_dir", run_copy, "--corpus", tmp_path / "lines.txt"]
    create_dataset.main(list(map(str, words)) + ["--streaming", "--document_separator", r"\n"])


def test_a_stream_with_nothing_to_train_on_is_refused_instead_of_read_for_ever(split, corpus):

    stream = read_splits(split("--corpus", corpus, "--streaming"))["train"]
    stream.shares = {"validation": 0.5, "test": 0.5}
    with pytest.raises(UserError, match="leaves nothing to train on"):
        next(iter(stream))


def test_a_fault_late_in_a_stream_ends_training_in_one_line(split, corpus, tmp_path):
    run = split("--corpus", corpus, "--streaming")
    documents = create_dataset.read_documents(run)
    late = tmp_path / "late.jsonl"
    late.write_text(json.dumps({"text": "fine"}) + "\n" + "not json\n")
    from toolkit.corpus.sources import Reading, find_sources

    documents.find = partial(find_sources, [str(late)], Reading(streaming=True), "--corpus")
    stream = read_splits(run)["train"]
    stream.documents = documents
    with pytest.raises(UserError, match="late.jsonl: line 2 is not JSON at column 1"):
        next(iter(stream))


# Cores


def test_any_number_of_cores_gives_the_same_bytes(run_copy, corpus):
    written = set()
    for cores in ([], ["--num_proc", "1"], ["--num_proc", "3"], ["--num_proc", "500"]):
        create_dataset.main(["--run_dir", str(run_copy), "--corpus", str(corpus), *cores])
        results = RunDirectory(run_copy).results("create_dataset")
        written.add(results["artifacts"]["documents"]["sha256"])
        assert len(TokenColumn(open_splits(run_copy / "documents")["train"])) == 30
    assert len(written) == 1
