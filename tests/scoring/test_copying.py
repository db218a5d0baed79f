"""What samples copy and repeat, against counting by hand; ROUGE; passages; verdicts."""

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.report.verdict import judge, judge_copying
from toolkit.scoring.copying import (
    copied_runs,
    judge_samples,
    longest_loop,
    repetition,
    training_stretches,
)
from toolkit.scoring.rouge import KINDS, compare_rouge, rouge_scores

few_tokens = st.lists(st.integers(0, 3), max_size=40)


def runs_of(tokens, length):
    return [tuple(tokens[i : i + length]) for i in range(len(tokens) - length + 1)]


@settings(max_examples=150)
@given(few_tokens, few_tokens, few_tokens, st.integers(1, 30))
def test_copied_runs_are_those_found_by_comparing_everything(train, one, other, step):
    samples = [one, other + train[5:25]]
    longest = max(1, *map(len, samples))
    stretches = (
        np.array(train[max(0, begin - longest) : begin + step], np.int64)
        for begin in range(0, len(train), step)
    )
    for sample, found in zip(samples, copied_runs(samples, stretches, longest, 13), strict=True):
        lengths = [
            length
            for length in range(1, len(sample) + 1)
            if set(runs_of(sample, length)) & set(runs_of(train, length))
        ]
        copied = [run in set(runs_of(train, 13)) for run in runs_of(sample, 13)]
        assert found["longest_run"] == max(lengths, default=0)
        assert (found["windows"], found["copied_windows"]) == (len(copied), sum(copied))


@settings(max_examples=150)
@given(st.lists(st.integers(0, 2), max_size=24))
def test_the_longest_loop_is_the_one_found_by_trying_every_unit(sample):
    longest = 0
    for begin in range(len(sample)):
        for end in range(begin + 2, len(sample) + 1):
            part = sample[begin:end]
            for unit in range(1, len(part) // 2 + 1):
                if all(part[i] == part[i - unit] for i in range(unit, len(part))):
                    longest = max(longest, len(part))
    assert longest_loop(sample) == longest


def test_distinct_counts_different_runs():
    found = repetition([[1, 2, 1, 2], [1, 2]])
    assert found["distinct_1"] == pytest.approx(2 / 6)
    assert found["distinct_2"] == pytest.approx(2 / 4)
    assert found["distinct_3"] == 1.0 and found["longest_loop"] == 4


def test_a_run_over_the_edge_of_a_stretch_is_found_and_padding_is_not():
    rows = np.arange(4096 * 4, dtype=np.uint16).reshape(-1, 4)
    blocks = Dataset.from_dict({"input_ids": rows}).with_format("numpy")
    sample = list(range(2048 * 4 - 10, 2048 * 4 + 10))
    judged = judge_samples({"tuned": [[sample]], "base": [[[5, 4, 3]], [[]]]}, blocks, 13)
    assert judged["tuned"]["copying"]["longest_run"] == 20
    assert judged["tuned"]["copying"]["copied_share"] == 1.0
    assert judged["base"]["copying"]["longest_run"] == 1
    assert judged["base"]["copying"]["copied_share"] is None
    padded = {"input_ids": [[7, 8, 9, 9], [5, 6, 7, 9]], "length": [2, 3]}
    stretches = list(training_stretches(Dataset.from_dict(padded).with_format("numpy"), 3))
    assert [stretch.tolist() for stretch in stretches] == [[7, 8, 5, 6, 7]]


# ROUGE


def test_rouge_is_that_of_its_definition():
    scores = rouge_scores(["the cat sat on the mat"], ["the cat lay on a mat"])[0]
    assert scores[0] == pytest.approx(4 / 6)  # the, cat, on, mat
    assert scores[1] == pytest.approx(1 / 5)  # the cat
    assert scores[2] == pytest.approx(4 / 6)


def test_rouge_of_english_is_that_of_the_published_package():
    from rouge_score.rouge_scorer import RougeScorer

    texts = [
        "The cat's 2 kittens don't sit on the mat_of 1,000 U.S. dollars.",
        "A cat and 2 kittens: they DON'T sit; the mat (of 1000 dollars) is theirs!",
        "",
        "... --- ...",
    ]
    pairs = [(one, other) for one in texts for other in texts]
    published = [RougeScorer(list(KINDS)).score(*pair) for pair in pairs]
    expected = [[score[kind].fmeasure for kind in KINDS] for score in published]
    assert rouge_scores(*map(list, zip(*pairs, strict=True))).tolist() == expected


@pytest.mark.parametrize(
    "reference, completion, shared",  # shared: F1 of words, counted by hand
    [
        ("Она пошла домой", "она пошла спать", 2 / 3),
        ("Η γάτα κοιμάται", "η γάτα τρώει", 2 / 3),
        ("ذهبت إلى البيت", "ذهبت إلى السوق", 2 / 3),
        ("من می\u200cروم", "من میروم", 1),
        ("הלכתי אל הבית", "הלכתי אל השוק", 2 / 3),
        ("बिल्ली घर में है", "बिल्ली घर पर है", 3 / 4),
        ("나는 집에 간다", "나는 집에 있다", 2 / 3),
        ("我去学校。", "我去医院", 2 / 4),
        ("ねこがラーメン", "ねこがうどん", 2 * 3 / 13),
        ("ที่บ้าน", "ที่สวน", 2 * 2 / 8),
        ("müller", "möller", 0),
        ("tiếng Việt", "tie\u0302\u0301ng Vie\u0323\u0302t", 1),
        ("ผม我 abc", "abc", 2 * 1 / 5),
    ],
)
def test_rouge_counts_words_of_every_script(reference, completion, shared):
    scores = rouge_scores([reference, reference], [completion, reference])
    assert scores[0, 0] == pytest.approx(shared)
    assert scores[1, 0] == 1


def test_rouge_is_compared_example_by_example():
    references = [f"word{n} and more of it" for n in range(12)]
    completions = {"base": ["nothing"] * 12, "tuned": references}
    results = compare_rouge(references, completions, seed=1)
    assert results["tuned"]["rouge2"] == results["difference"]["rouge2"] == pytest.approx(1.0)
    assert results["difference"]["intervals"]["rougeL"] == pytest.approx([1.0, 1.0])
    few = compare_rouge(references[:3], {"tuned": references[:3]}, seed=1)
    assert "intervals" not in few["tuned"] and few["examples"] == 3


# Verdicts


def metrics(gap, span):
    tuned = {"loss": 4.0, "perplexity": 54.6, "tokens": 1000, "broken_share": 0.0}
    results = {"tuned": tuned, "base": {"loss": 4.0 + gap, "perplexity": 70.0}}
    results["difference"] = {"loss": gap} | ({"intervals": {"loss": span}} if span else {})
    return results


@pytest.mark.parametrize(
    "gap, span, kind, says",
    [
        (0.5, [0.4, 0.6], "better", "Training worked: perplexity went from 70.00 to 54.60"),
        (-0.5, [-0.6, -0.4], "worse", "Training made the model worse"),
        (0.1, [-0.1, 0.3], "unclear", "No clear change"),
        (0.1, None, "unclear", "too small to say how sure"),
    ],
)
def test_the_verdict_is_sure_only_where_the_interval_leaves_out_zero(gap, span, kind, says):
    verdict = judge(metrics(gap, span))
    assert verdict["kind"] == kind and says in verdict["sentence"]


def test_noise_is_no_success_whatever_its_loss():
    results = metrics(0.5, [0.4, 0.6])
    results["tuned"]["broken_share"] = 0.72
    verdict = judge(results)
    assert verdict["kind"] == "unclear" and "worked" not in verdict["sentence"]
    assert "72% of its samples' characters are broken" in verdict["sentence"]


def test_without_a_base_there_is_no_verdict():
    results = metrics(0.5, [0.4, 0.6])
    del results["base"], results["difference"]
    assert judge(results)["kind"] == "unknown"


@pytest.mark.parametrize(
    "share, leak, loop, says",
    [
        (0.0, 0.0, 4, ["are not copied", "none is caught in a loop"]),
        (0.3, 0.0, 4, ["copy from the training text", "30.0%"]),
        (0.3, 0.4, 40, ["are not copied", "40.0%", "one repeats itself for 40 tokens"]),
        (None, None, 0, ["too short"]),
    ],
)
def test_the_verdict_on_copying_compares_with_the_test_text(share, leak, loop, says):
    copying = {"longest_run": 9, "copied_share": share}
    tuned = {"copying": copying, "repetition": {"longest_loop": loop}}
    line = judge_copying({"tuned": tuned}, leak)
    assert all(part in line for part in says)
