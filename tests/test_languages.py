"""Every figure and every prompt is right in every script, also where a token is a byte."""

import io

import numpy as np
import pytest
import regex
from matplotlib.figure import Figure

from tests.scripts import SCRIPTS
from toolkit.blocks.holding_out import Selection
from toolkit.blocks.leakage import windows_in_train
from toolkit.blocks.packing import pack
from toolkit.blocks.window_hash import window_tokens
from toolkit.corpus.token_text import measure
from toolkit.corpus.tokenizing import encode_text
from toolkit.model.byte_level_bpe import SMALLEST, train_byte_level_bpe
from toolkit.report import fonts
from toolkit.report.language import language_of
from toolkit.scoring.broken_text import MOST, broken_share
from toolkit.scoring.copying import judge_samples
from toolkit.scoring.metrics import as_metrics
from toolkit.scoring.rouge import rouge_scores
from toolkit.writing.openings import openings

scripts = pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)


@pytest.fixture(scope="module", params=["bytes", "own"])
def tokenizer(request):
    """A token is a byte; or, where a tokenizer was trained on these texts, several characters."""
    texts = [text for script in SCRIPTS.values() for text in (script.one, script.other)]
    entries = {"bytes": SMALLEST, "own": 2000}[request.param]
    return train_byte_level_bpe(texts, entries, context=64)


def tokens_of(tokenizer, *texts):
    return [np.array([*encode_text(text, tokenizer), tokenizer.eos_token_id]) for text in texts]


def blocks_of(tokenizer, folder, *texts):
    documents = Selection(tokens_of(tokenizer, *texts))
    return pack(documents, 16, folder / "x.arrow").with_format("numpy")


@scripts
def test_a_prompt_is_how_a_document_begins_and_ends_with_a_whole_character(
    tokenizer, tmp_path, script
):
    blocks = blocks_of(tokenizer, tmp_path, script.other, f"{script.one}\n{script.other}", "x" * 99)
    found = openings(blocks, tokenizer, count=1)
    assert found == ([(script.opening,)], "Openings of test documents")
    characters = regex.findall(r"\X", script.one)
    assert "".join(characters[: len(regex.findall(r"\X", script.opening))]) == script.opening


@scripts
def test_of_one_text_without_an_opening_passages_are_continued(tokenizer, tmp_path, script):
    text = script.other * 3
    prompts, source = openings(blocks_of(tokenizer, tmp_path, text), tokenizer)
    assert source == "Passages of the test text"
    assert prompts and all(prompt and prompt in text for (prompt,) in prompts)


@scripts
def test_a_passage_in_train_is_a_leak_and_the_same_script_is_none(tokenizer, script):
    train, alike, copy = tokens_of(
        tokenizer, script.one, script.other, f"{script.other} {script.one}"
    )
    length = window_tokens(len(train) - 1, len(script.one))
    found, windows = windows_in_train([train], {"test": [alike, copy]}, length)["test"]
    assert found[0] == 0 and windows[0] > 0
    of_train = len(train) - length + 1
    assert 0 < of_train - 2 <= found[1] <= of_train  # the first word has a space before it


@scripts
def test_a_sample_copies_where_fifty_characters_stand_in_train(tokenizer, tmp_path, script):
    blocks = blocks_of(tokenizer, tmp_path, script.one * 2, "x" * 99)
    one, other, few = (
        tokens_of(tokenizer, text)[0][:-1].tolist()
        for text in (script.one, script.other, script.opening)
    )
    length = window_tokens(len(one), len(script.one))
    samples = {"copied": [[one]], "own": [[other]], "short": [[few]]}
    found = {k: v["copying"] for k, v in judge_samples(samples, blocks, length).items()}
    assert found["copied"]["copied_share"] == 1
    assert found["own"]["copied_share"] == 0 and found["own"]["longest_run"] < length
    assert found["short"]["copied_share"] is None and found["short"]["longest_run"] > len(few) / 2


@scripts
def test_half_characters_are_broken_and_a_text_cut_short_is_not(tokenizer, script):
    ids = tokens_of(tokenizer, script.one)[0][:-1]
    whole = [tokenizer.decode(ids[:count]) for count in range(1, len(ids) + 1)]
    assert broken_share(whole) == 0
    if len(script.one.encode()) > 1.5 * len(script.one):
        data = bytes(np.random.default_rng(0).permutation(list(script.one.encode())))
        assert broken_share([data.decode(errors="replace")]) > MOST


@scripts
def test_word_perplexity_is_for_texts_whose_words_stand_apart(script):
    text = f"{script.one} {script.other}"
    short = "\n".join(text[start : start + 9] for start in range(0, len(text), 9))  # as in a poem
    for told in (text, text if script.spaced else short):
        found = as_metrics({"nats": 100.0, "correct": 5, "tokens": 50, **measure(told)})
        assert (found["word_perplexity"] is not None) == script.spaced
        assert found["bits_per_character"] == pytest.approx(100 / np.log(2) / len(told))


@scripts
def test_rouge_is_one_of_equal_texts_and_small_of_others(script):
    scores = rouge_scores([script.one, script.one], [script.one, script.other])
    assert scores[0].tolist() == [1, 1, 1] and scores[1, 1] < 0.2


LANGUAGES = {"Greek": "el", "Hebrew": "he", "Tamil": "ta", "Georgian": "ka", "Hangul": "ko"}
LANGUAGES |= {"Han": "zh", "Kana": "ja", "Thai": "th"}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_page_names_the_language_where_the_script_tells_it(name):
    assert language_of(SCRIPTS[name].one) == LANGUAGES.get(name, "")


@pytest.mark.filterwarnings("error")
@scripts
def test_a_plot_shows_each_letter_or_a_question_mark(script):
    """In installed fonts, whatever these are, and without a warning."""
    figure = Figure()
    text = figure.suptitle(script.one)
    fonts.show(text)
    figure.savefig(io.BytesIO(), format="png")
    own = fonts.letters_of(fonts.installed()[fonts.OWN])
    assert len(text.get_text()) == len(script.one)
    for letter, shown in zip(script.one, text.get_text(), strict=True):
        assert shown == letter or (shown == "?" and letter not in own)


def test_a_plot_takes_the_font_that_has_the_letter(monkeypatch):
    known = {"own": {"a"}, "other": {"b"}, "third": {"漢"}}
    monkeypatch.setattr(fonts, "installed", lambda: {name: name for name in known})
    monkeypatch.setattr(fonts, "letters_of", known.get)
    text = Figure().suptitle("a 漢ж")
    fonts.show(text)
    assert text.get_fontfamily() == ["own", "third"] and text.get_text() == "a 漢?"
