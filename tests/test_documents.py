"""From texts to documents to splits and blocks: nothing leaks, nothing is lost."""

import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from load_gpt2 import read_gpt2
from toolkit.documents import cut_articles, cut_texts, group_paragraphs, token_ids
from toolkit.packing import choose_block_size, hold_out, pack
from toolkit.run_directory import RunDirectory
from train_test_split import read_splits

WIKITEXT = """ = First = \n \n Text of the first . \n \n = = Early life = = \n \n More = of it .
 \n = Second = \n \n 1 = 1 \n = Not a heading , no blank line above = \n \n"""


def test_several_files_are_a_document_each():
    assert cut_texts(["one\n\nstill one\n", "two\n"], None) == ["one\n\nstill one", "two"]


def test_a_separator_cuts_documents():
    assert cut_texts(["a\n---\nb\n---\nc"], "\n---\n") == ["a", "b", "c"]


def test_one_file_is_cut_between_grouped_paragraphs_and_loses_nothing():
    text = "\n\n".join(f"Paragraph {n}. " + "word " * 60 for n in range(120))
    documents = cut_texts([text], None)
    assert 10 <= len(documents) < 120
    assert all(len(document) < 2700 for document in documents)
    assert "\n\n".join(documents) == text


def test_one_unbroken_text_stays_one_document():
    text = "word " * 5000
    assert cut_texts([text], None) == [text]
    assert cut_texts(["one paragraph\n\nand another"], None) == ["one paragraph\n\nand another"]


def test_wikitext_is_cut_at_top_level_headings_only():
    articles = list(cut_articles(WIKITEXT.splitlines(keepends=True)))
    assert [article.split("\n")[0] for article in articles] == [" = First = ", " = Second = "]
    assert "".join(articles) == WIKITEXT
    assert cut_texts([WIKITEXT], None) == articles


def test_wikitext_rows_without_line_ends_are_the_same_articles():
    rows = WIKITEXT.splitlines()
    assert list(cut_articles(rows)) == list(cut_articles(WIKITEXT.splitlines(keepends=True)))


@given(st.text(alphabet="ab \n", max_size=400))
def test_grouping_paragraphs_keeps_every_word_in_order(text):
    assert " ".join(group_paragraphs(text)).split() == text.split()


documents_strategy = st.lists(st.integers(1, 60), min_size=3, max_size=40).map(
    lambda lengths: [np.full(n, number, np.uint16) for number, n in enumerate(lengths)]
)


@given(documents_strategy, st.floats(0.01, 0.45), st.floats(0.01, 0.45), st.integers(0, 99))
def test_no_document_is_in_two_splits_and_every_one_is_in_one(documents, validation, test, seed):
    try:
        parts = hold_out(documents, validation, test, seed)
    except ValueError:
        held_out = [max(1, round(len(documents) * share)) for share in (validation, test)]
        assert sum(held_out) >= len(documents)
        return
    where = collections.Counter()
    for part in parts.values():
        assert part
        where.update({int(document[0]) for document in part})
    assert where == collections.Counter(range(len(documents)))


@given(documents_strategy, st.integers(2, 50))
@settings(deadline=None)
def test_every_token_is_in_a_block_or_in_the_remainder(documents, block_size):
    blocks = pack(documents, block_size)
    read = np.concatenate(documents)
    kept = [token for row in blocks["input_ids"] for token in row]
    assert kept == read[: len(kept)].tolist()
    assert 0 <= len(read) - len(kept) < block_size
    assert len(kept) == len(blocks) * block_size


def test_the_same_seed_holds_out_the_same_documents_and_another_seed_others():
    documents = [np.array([n]) for n in range(50)]
    same = [hold_out(documents, 0.1, 0.1, seed=1)["test"] for _ in range(2)]
    assert same[0] == same[1] != hold_out(documents, 0.1, 0.1, seed=2)["test"]


def test_the_tail_of_one_document_is_held_out():
    parts = hold_out([np.arange(100)], 0.1, 0.2, seed=0)
    assert [len(parts[name][0]) for name in ("train", "validation", "test")] == [70, 10, 20]
    assert parts["test"][0].tolist() == list(range(80, 100))


def test_the_automatic_block_size_is_the_largest_the_splits_can_fill():
    plenty = {"train": 10**6, "validation": 10**5, "test": 10**5}
    assert choose_block_size(plenty, 1024) == 1024
    assert choose_block_size({**plenty, "train": 20 * 512}, 1024) == 512
    assert choose_block_size({**plenty, "test": 4 * 128}, 1024) == 128


def test_in_a_real_run_documents_end_with_end_of_text_and_no_split_shares_one(finished):
    run = RunDirectory(finished.path, 7, "cpu", "fp32")
    from create_dataset import read_documents

    tokenizer = read_gpt2(run)[1]
    end = tokenizer.eos_token_id
    documents = token_ids(read_documents(run)["train"])
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


@pytest.mark.parametrize("own", [("test",), ("validation",), ("validation", "test")])
def test_a_corpus_keeps_its_own_splits(own):
    from datasets import Dataset, DatasetDict

    from train_test_split import SplitOptions, split_documents

    documents = {name: Dataset.from_dict({"input_ids": [[9, 9], [8]]}) for name in own}
    documents["train"] = Dataset.from_dict({"input_ids": [[n] for n in range(20)]})
    parts = split_documents(DatasetDict(documents), SplitOptions(), seed=0)
    for name in ("validation", "test"):
        if name in own:
            assert [ids.tolist() for ids in parts[name]] == [[9, 9], [8]]
        else:
            assert len(parts[name]) == 2
    assert sum(map(len, parts["train"])) == 20 - 2 * (2 - len(own))


@given(st.integers(1, 50), st.integers(1, 8), st.integers(1, 5), st.integers(0, 60))
def test_the_plan_counts_tokens_as_the_batches_do(blocks, micro_batch, accumulation, steps):
    from toolkit.training_plan import plan_training, tokens_after

    asked = {
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "max_steps": steps or 1,
    }
    names = ("num_train_epochs", "eval_steps", "save_steps", "logging_steps", "learning_rate")
    asked |= dict.fromkeys(names)
    usual = {"num_train_epochs": 1.0, "learning_rate": 1.0}
    plan = plan_training(asked, {"train": blocks, "validation": 1}, 16, usual)
    batch = micro_batch * accumulation
    epoch = [min(batch, blocks - start) for start in range(0, blocks, batch)]
    assert plan["steps_per_epoch"] == len(epoch)
    rounds = epoch * (steps // len(epoch) + 1)
    assert tokens_after(steps, plan) == sum(rounds[:steps]) * 16
