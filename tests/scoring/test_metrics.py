"""The figures of step 8: overlapping windows, words and bytes, intervals, what is kept."""

import json
import math
import subprocess
import sys

import numpy as np
import pyarrow.parquet
import pytest
import torch
from datasets import Dataset

import evaluate_model
from load_gpt2 import read_gpt2
from tests.conftest import PROJECT, library_model
from toolkit.blocks.collator import collate
from toolkit.run.run_directory import RunDirectory
from toolkit.scoring import bootstrap
from toolkit.scoring.bootstrap import (
    NORMAL,
    STUDENT,
    choose_units,
    interval,
    resample_totals,
    widen,
)
from toolkit.scoring.losses import score_pieces
from toolkit.scoring.metrics import METRICS, compare
from toolkit.scoring.metrics_table import as_text
from toolkit.scoring.text_counts import count_text
from toolkit.scoring.windows import find_pieces, window_starts
from train_model import read_tuned
from train_test_split import read_splits


@pytest.fixture(scope="module")
def run(finished):
    return RunDirectory(finished.path, seed=7, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def test(run):
    return read_splits(run)["test"]


def as_blocks(tokens, size):
    return Dataset.from_dict({"input_ids": np.reshape(tokens, (-1, size))}).with_format("numpy")


def losses_by_position(model, stream, size, stride):
    """Nats and first choices of every scored position: one window at a time, in float64."""
    model, nats, right = library_model(model).double(), {}, {}
    start = 0
    with torch.no_grad():
        while True:
            start = min(start, len(stream) - size)
            window = torch.from_numpy(stream[start : start + size].astype(np.int64))
            chances = model(window[None]).logits[0].log_softmax(-1)
            for place in range(1, size):
                if start + place not in nats:
                    nats[start + place] = -chances[place - 1, window[place]].item()
                    right[start + place] = int(chances[place - 1].argmax() == window[place])
            if start + size == len(stream):
                break
            start += stride
    model.float()
    return nats, right


@pytest.mark.parametrize("stride", [1, 5, 16, 31, 32])
def test_strided_sums_agree_with_a_float64_loop_document_by_document(run, test, stride):
    model, tokenizer = read_tuned(run), read_gpt2(run)[1]
    stream = test[:]["input_ids"].reshape(-1)
    nats, right = losses_by_position(model, stream, 32, stride)
    pieces = find_pieces(test, tokenizer.eos_token_id)
    sums = score_pieces(model, test, collate, pieces, stride, "fp32", "tuned")
    loss = sums["nats"].sum() / sums["tokens"].sum()
    assert loss == pytest.approx(sum(nats.values()) / len(nats), abs=1e-4)
    expected_tokens = len(stream) - (len(test) if stride == 32 else 1)
    assert sums["tokens"].sum() == len(nats) == expected_tokens
    assert sums["correct"].sum() == sum(right.values())
    documents = np.cumsum(stream == tokenizer.eos_token_id) - (stream == tokenizer.eos_token_id)
    for number in range(documents[-1] + 1):
        own = [value for place, value in nats.items() if documents[place] == number]
        inside = pieces.documents == number
        assert sums["tokens"][inside].sum() == len(own)
        assert sums["nats"][inside].sum() == pytest.approx(sum(own), abs=1e-3)


@pytest.mark.parametrize("positions, size, stride", [(96, 32, 5), (64, 32, 32), (32, 32, 7)])
def test_windows_score_every_token_that_has_something_before_it_once(positions, size, stride):
    starts, first = window_starts(positions, size, stride)
    scored = [
        start + place for start, f in zip(starts, first, strict=True) for place in range(f, size)
    ]
    alone = set(range(0, positions, size)) if stride == size else {0}
    assert sorted(scored) == sorted(set(range(positions)) - alone)
    assert starts[-1] + size == positions


def test_words_and_bytes_of_overlapping_windows_are_those_of_the_running_text(run, test):
    tokenizer = read_gpt2(run)[1]
    pieces = find_pieces(test, tokenizer.eos_token_id)
    counts = count_text(test, tokenizer, collate, pieces, 16)
    whole = tokenizer.decode(test[:]["input_ids"].reshape(-1)[1:])
    assert counts["words"].sum() == len(whole.replace("<|endoftext|>", " ").split())
    assert counts["bytes"].sum() == len(whole.replace("<|endoftext|>", "").encode())


# Intervals


def test_resampled_totals_are_those_of_a_plain_loop():
    sums = np.random.default_rng(1).random((9, 3))
    totals = resample_totals(sums, seed=5)
    drawn = np.random.default_rng(5).integers(0, 9, size=(10_000, 9))
    for number in (0, 1, 9_999):
        assert totals[number] == pytest.approx(sum(sums[row] for row in drawn[number]))


def test_an_interval_holds_the_truth_about_95_times_in_100():
    """Ratios of totals over 60 documents of known mean, drawn anew 300 times."""
    random, inside = np.random.default_rng(3), 0
    for seed in range(300):
        tokens = random.integers(20, 200, 60).astype(float)
        nats = tokens * random.normal(4.0, 0.5, 60)
        totals = resample_totals(np.stack([nats, tokens], 1), seed)
        low, high = interval(totals[:, 0] / totals[:, 1])
        inside += low <= 4.0 <= high
    assert 0.90 <= inside / 300 <= 0.98


def test_many_documents_take_fewer_resamples_and_as_little_memory(monkeypatch):
    monkeypatch.setattr(bootstrap, "DRAWS", 100_000)
    monkeypatch.setattr(bootstrap, "FEWEST_RESAMPLES", 10)
    assert len(resample_totals(np.ones((1000, 2)), seed=1)) == 100
    assert len(resample_totals(np.ones((10, 2)), seed=1)) == 10_000


def fake_scores(documents, blocks_each, gap):
    from toolkit.scoring.windows import Pieces

    count = documents * blocks_each
    random = np.random.default_rng(0)
    tokens = np.full(count, 50.0)
    base = tokens * random.normal(5, 1, count)
    scores = {
        "base": {"nats": base, "correct": tokens * 0.1, "tokens": tokens},
        "tuned": {"nats": base - gap * tokens, "correct": tokens * 0.2, "tokens": tokens},
    }
    text = {"bytes": tokens * 4, "characters": tokens * 4, "words": tokens * 0.7}
    numbers = np.arange(count)
    return scores, text, Pieces(numbers * 50, numbers // blocks_each, numbers)


def test_the_difference_is_paired():
    """The documents differ by much, the models by the same everywhere: no spread remains."""
    results = compare(*fake_scores(20, 1, gap=0.25), seed=1)
    low, high = results["difference"]["intervals"]["loss"]
    assert low == pytest.approx(0.25) and high == pytest.approx(0.25)
    low, high = results["tuned"]["intervals"]["loss"]
    assert high - low > 0.3
    assert results["difference"]["loss"] == pytest.approx(0.25)


def test_a_gain_above_zero_is_better_for_every_metric():
    """The tuned model's loss is lower, and twice as many of its first choices are right."""
    gains = compare(*fake_scores(20, 1, gap=0.25), seed=1)["difference"]
    assert all(gains[metric.name] > 0 for metric in METRICS)
    assert gains["token_accuracy"] == pytest.approx(0.1)
    assert gains["intervals"]["token_accuracy"] == pytest.approx([0.1, 0.1])


@pytest.mark.parametrize(
    "documents, blocks_each, unit, says",
    [
        (20, 1, "documents", "over 20 documents"),
        (8, 1, "documents", "over 8 documents"),
        (7, 1, "documents", "over 7 documents, widened (Student's t)"),
        (4, 1, "documents", "over 4 documents, widened"),
        (3, 2, "stretches", "over 4 stretches of 3 documents, widened"),
        (1, 20, "stretches", "1 document, widened (Student's t): they hold for this"),
        (3, 1, None, "none: 3 documents and 3 blocks are too few to resample"),
        (1, 3, None, "none: 1 document and 3 blocks are too few to resample"),
    ],
)
def test_what_is_resampled_is_said(documents, blocks_each, unit, says):
    results = compare(*fake_scores(documents, blocks_each, gap=1), seed=1)
    assert results["intervals"]["unit"] == unit and says in results["intervals"]["reason"]
    assert ("intervals" in results["tuned"]) == (unit is not None)
    assert ("intervals" in results["difference"]) == (unit is not None)


def test_one_document_to_three_are_cut_into_four_stretches_of_whole_blocks_in_order():
    for count in range(4, 400):
        stretches = choose_units(np.arange(count) * 3 // count, np.arange(count)).numbers
        sizes = np.bincount(stretches)
        assert len(sizes) == 4 and sizes.max() - sizes.min() <= 1
        assert (np.diff(stretches) >= 0).all()


def test_many_documents_intervals_are_plain_percentiles():
    for documents, widened in ((7, True), (8, False)):
        scores, text, pieces = fake_scores(documents, 1, gap=0)
        said = compare(scores, text, pieces, seed=1)["tuned"]["intervals"]["loss"]
        sums = np.stack([scores["tuned"]["nats"], scores["tuned"]["tokens"]], 1)
        plain = interval(np.divide(*resample_totals(sums, seed=1).T))
        assert (said != pytest.approx(plain)) == widened
        assert (said[1] - said[0] > plain[1] - plain[0]) == widened


def test_parts_without_predicted_tokens_are_no_units():
    """The arrays hold the pieces that have some: documents and blocks are counted by them alone."""
    assert choose_units(np.arange(8), np.arange(8)).name == "documents"
    assert choose_units(np.array([0, 0, 5]), np.array([0, 4, 9])).name is None
    few = choose_units(np.array([0, 0, 5, 5]), np.array([0, 4, 7, 9]))
    assert few.numbers.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("degrees", STUDENT)
def test_the_quantiles_of_students_t_are_those_of_its_density(degrees):
    def share_within(bound, density):
        x = np.linspace(-bound, bound, 20_001)
        y = density(x)
        return (y[:-1] + y[1:]).sum() / 2 * (x[1] - x[0])

    scale = math.gamma((degrees + 1) / 2) / math.gamma(degrees / 2) / math.sqrt(degrees * math.pi)
    within = share_within(
        STUDENT[degrees], lambda x: scale * (1 + x * x / degrees) ** (-(degrees + 1) / 2)
    )
    assert within == pytest.approx(0.95, abs=1e-4)
    normal = share_within(NORMAL, lambda x: np.exp(-x * x / 2) / math.sqrt(2 * math.pi))
    assert normal == pytest.approx(0.95, abs=1e-4)


@pytest.mark.parametrize("parts", [4, 5, 7])
def test_an_interval_over_few_parts_is_as_wide_as_students_t(parts):
    """So it holds the mean of independent parts about 95 times in 100; percentiles hold it less."""
    random, widened, plain = np.random.default_rng(3), 0, 0
    for seed in range(400):
        sums = np.stack([random.normal(4.0, 0.5, parts), np.ones(parts)], 1)
        totals = resample_totals(sums, seed)
        for wide in (False, True):
            rates = totals[:, 0] / totals[:, 1]
            low, high = interval(widen(rates, sums[:, 0].mean(), parts) if wide else rates)
            widened += wide and low <= 4.0 <= high
            plain += not wide and low <= 4.0 <= high
    assert 0.92 <= widened / 400 <= 0.98 and plain < widened - 400 * 0.02


def test_documents_of_very_different_lengths_have_intervals():
    """A resample of the short ones alone holds few tokens: widened, its totals were below zero."""
    scores, text, pieces = fake_scores(4, 1, gap=0.25)
    length = np.array([1, 0.02, 0.02, 0.02])
    scores = {name: {k: v * length for k, v in sums.items()} for name, sums in scores.items()}
    text = {name: values * length for name, values in text.items()}
    results = compare(scores, text, pieces, seed=1)
    for metric in METRICS:
        low, high = results["tuned"]["intervals"][metric.name]
        assert low <= results["tuned"][metric.name] <= high
    assert results["difference"]["intervals"]["loss"] == pytest.approx([0.25, 0.25])


def test_no_widened_rate_is_below_zero():
    """A first choice that is right once in a stretch or two: accuracy is no less than nothing."""
    scores, text, pieces = fake_scores(5, 1, gap=1)
    for sums in scores.values():
        sums["correct"] = np.array([0.0, 0, 0, 0, 9])
    low, high = compare(scores, text, pieces, seed=1)["tuned"]["intervals"]["token_accuracy"]
    assert low == 0 and high > 9 / 250


def test_what_has_no_value_is_none_and_prints():
    scores, text, pieces = fake_scores(20, 1, gap=1)
    text["words"][:] = 0
    scores["tuned"]["nats"] *= 1000
    results = compare(scores, text, pieces, seed=1)
    assert results["tuned"]["word_perplexity"] is None and results["tuned"]["perplexity"] is None
    assert results["difference"]["perplexity"] is None
    json.dumps(results, allow_nan=False)


def test_every_metric_is_printed_with_its_definition(finished):
    printed = finished.out
    for metric in METRICS:
        assert metric.title in printed and metric.definition in printed
    results = json.loads((finished.path / "evaluate_model.json").read_text())["results"]
    for line in as_text(results | {"tuned": results["tuned"] | {"context": context()}}):
        assert len(line) <= 135


def context():
    return {"block_size": 32, "stride": 8, "precision": "fp32"}


# What step 8 leaves


def test_the_loss_of_each_document_is_in_the_table(run, finished, test):
    table = pyarrow.parquet.read_table(finished.path / "test_losses.parquet").to_pydict()
    results = json.loads((finished.path / "evaluate_model.json").read_text())["results"]
    tokens = table["predicted_tokens"]
    assert sum(tokens) == results["tuned"]["tokens"]
    for model in ("base", "tuned"):
        pairs = zip(table[f"{model}_loss"], tokens, strict=True)
        total = sum(loss * count for loss, count in pairs if count)
        assert total / sum(tokens) == pytest.approx(results[model]["loss"])
    stream, end = test[:]["input_ids"].reshape(-1), read_gpt2(run)[1].eos_token_id
    assert all(start == 0 or stream[start - 1] == end for start in table["first_token"])


def test_the_base_model_is_scored_once(finished, run_copy, monkeypatch):
    before = json.loads((run_copy / "evaluate_model.json").read_text())["results"]

    def refuse(run):
        raise AssertionError("the base model was loaded again")

    tokenizer = evaluate_model.read_gpt2(RunDirectory(run_copy))[1]
    run = RunDirectory(
        run_copy,
        7,
        "cpu",
        json.loads((run_copy / "evaluate_model.json").read_text())["results"]["base"]["context"][
            "precision"
        ],
    )
    inputs = (read_tuned(run), tokenizer, read_splits(run))
    monkeypatch.setattr(evaluate_model, "read_gpt2", refuse)
    again = evaluate_model.evaluate_model(*inputs, evaluate_model.EvaluateOptions(), run)
    assert again == before
    options = evaluate_model.EvaluateOptions(stride=8)
    with pytest.raises(AssertionError, match="loaded again"):
        evaluate_model.evaluate_model(*inputs, options, run)
    (run_copy / "base_scores.safetensors").write_bytes(b"cut")
    with pytest.raises(AssertionError, match="loaded again"):
        evaluate_model.evaluate_model(*inputs, evaluate_model.EvaluateOptions(), run)
    monkeypatch.undo()
    again = evaluate_model.evaluate_model(*inputs, evaluate_model.EvaluateOptions(), run)
    assert again == before


MEASURE = """
import sys, torch
from datasets import load_from_disk
from transformers import GPT2Config
from toolkit.blocks.collator import collate
from toolkit.model.gpt2 import fresh_model
from toolkit.training.memory import peak_memory_bytes
from toolkit.scoring.losses import score_pieces
from toolkit.scoring.windows import find_pieces
torch.manual_seed(0)
config = GPT2Config(vocab_size=2000, n_layer=1, n_head=1, n_embd=16, n_positions=64)
for folder in sys.argv[1:]:
    blocks = load_from_disk(folder).with_format("numpy")
    pieces = find_pieces(blocks, 0)
    sums = score_pieces(fresh_model(config), blocks, collate, pieces, 48, "fp32", "")
    print(int(sums["tokens"].sum()), peak_memory_bytes())
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_test_split(tmp_path):
    """In one process, the smallest first, so that what is more was needed for more tokens."""
    counts = [64 * 250 * times for times in (1, 4, 16)]
    folders = [str(tmp_path / str(count)) for count in counts]
    for count, folder in zip(counts, folders, strict=True):
        tokens = np.random.default_rng(0).integers(0, 2000, count)
        as_blocks(tokens, 64).save_to_disk(folder)
    words = [sys.executable, "-c", MEASURE, *folders]
    done = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True, check=True)
    counted, peaks = zip(
        *(map(int, line.split()) for line in done.stdout.splitlines()), strict=True
    )
    assert list(counted) == [count - 1 for count in counts]
    # Logits of the largest split would take 2 GB, four bytes a token 1 MB.
    assert peaks[-1] < peaks[0] + 20e6, peaks
