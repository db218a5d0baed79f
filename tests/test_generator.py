"""Batches say what each prompt alone would say; choices are those of transformers' processors."""

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from toolkit import generator as generator_module
from toolkit.batch import continue_all, continue_prompts
from toolkit.byte_level_bpe import train_byte_level_bpe
from toolkit.generator import Continuation, Generator
from toolkit.sampling import Sampling
from toolkit.text_stream import TextStream
from toolkit.token_choice import choose, weigh

GREEDY = Sampling(max_new_tokens=24, temperature=0, top_p=1, top_k=0, num_samples=1)
BOLD = Sampling(max_new_tokens=16, temperature=1.0, top_p=0.9, top_k=40, num_samples=2)
PROMPTS = ["a", "the lamp", "", "the sea was high and the wind in the west, ", "é ø", "b c d e"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_byte_level_bpe(["the lamp and the sea é ø " * 20], 300, 128)


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(5)
    size = len(tokenizer)
    ends = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    shape = {"n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": 128}
    config = GPT2Config(**shape, vocab_size=size, **ends)
    model = GPT2LMHeadModel(config).eval()
    for weight in model.parameters():  # so that logits differ enough for a text that varies
        weight.data *= 4
    return model


@pytest.fixture
def small_batches(monkeypatch):
    """Continuations have to wait for a place, and join a batch that is under way."""
    monkeypatch.setattr(generator_module, "MOST_ROWS", 3)


def greedy_by_hand(model, ids, count, end):
    """The likeliest token again and again, by whole forward passes: no batch, mask or cache."""
    new = []
    with torch.no_grad():
        while len(new) < count:
            token = int(model(torch.tensor([ids + new])).logits[0, -1].argmax())
            if token == end:
                break
            new.append(token)
    return new


def test_a_batch_says_token_for_token_what_each_prompt_alone_says(model, tokenizer, small_batches):
    end = tokenizer.eos_token_id
    prompts = [tokenizer(prompt)["input_ids"] or [end] for prompt in PROMPTS]
    lengths = [24, 3, 11, 17, 24, 1]
    settings = [Sampling(length, 0, 1, 0, 1) for length in lengths]
    found = continue_all(Generator(model, tokenizer), prompts, settings, seed=1)
    for ids, length, (row,) in zip(prompts, lengths, found, strict=True):
        assert row.new == greedy_by_hand(model, ids, length, end)
    assert len({tuple(row.new) for (row,) in found}) == len(PROMPTS)


def test_a_sample_does_not_depend_on_what_else_is_in_the_batch(model, tokenizer, small_batches):
    together = continue_prompts(model, tokenizer, PROMPTS, BOLD, seed=3)
    for number, prompt in enumerate(PROMPTS):
        alone = continue_prompts(model, tokenizer, [prompt], BOLD, seed=3 + number)
        assert alone == [together[number]]
    assert together[0][0] != together[0][1]


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.5},
        {"temperature": 1.3, "top_k": 7},
        {"top_p": 0.6},
        {"top_k": 20, "top_p": 0.5},
        {"min_p": 0.2},
        {"temperature": 2.0, "top_k": 50, "top_p": 0.8, "min_p": 0.05},
    ],
)
def test_the_distribution_is_that_of_transformers_processors(settings):
    torch.manual_seed(1)
    logits = torch.randn(4, 200) * 3
    given = Sampling(**{**vars(BOLD), "top_p": 1.0, "top_k": 0, **settings})
    expected = TemperatureLogitsWarper(given.temperature)(None, logits)
    if given.top_k:
        expected = TopKLogitsWarper(given.top_k)(None, expected)
    if given.top_p < 1:
        expected = TopPLogitsWarper(given.top_p)(None, expected)
    if given.min_p:
        expected = MinPLogitsWarper(given.min_p)(None, expected)
    weights, tokens = weigh(logits, given)
    found = torch.zeros_like(logits).scatter(1, tokens.expand_as(weights), weights)
    found = found / found.sum(-1, keepdim=True)
    torch.testing.assert_close(found, expected.softmax(-1))


def test_draws_pick_tokens_in_proportion():
    logits = torch.tensor([[0.5, 0.2, 0.3]]).log().repeat(1000, 1)
    draws = [number / 1000 for number in range(1000)]
    given = Sampling(1, 1.0, 1.0, 0, 1)
    counts = choose(logits, given, [[]] * 1000, draws).bincount(minlength=3)
    assert (counts - torch.tensor([500, 200, 300])).abs().max() <= 1


def test_the_repetition_penalty_is_that_of_transformers():
    torch.manual_seed(2)
    logits, seen = torch.randn(1, 50) * 3, [3, 7, 7, 20]
    expected = RepetitionPenaltyLogitsProcessor(9.0)(torch.tensor([seen]), logits.clone()).argmax()
    penalized = Sampling(1, 0.0, 1.0, 0, 1, repetition_penalty=9.0)
    best = int(logits.argmax())
    assert int(choose(logits, penalized, [seen], [0.0])) == int(expected)
    assert int(choose(logits, penalized, [[best]], [0.0])) != best


def test_a_stream_gives_whole_characters_and_nothing_of_a_stop_string(tokenizer):
    text = "the é sea\nEND of it"
    stream, seen = TextStream(tokenizer, ["\nEND", "never"]), []
    for token in tokenizer(text)["input_ids"]:
        stream.add(token)
        seen.append(stream.text)
        if stream.stopped:
            break
    assert stream.stopped and stream.text == "the é sea"
    assert all("the é sea".startswith(part) and "\ufffd" not in part for part in seen)
    whole = TextStream(tokenizer, ["\nENDING"])
    for token in tokenizer(text)["input_ids"]:
        whole.add(token)
    whole.end()
    assert whole.text == text and not whole.stopped


def test_log_probabilities_are_those_of_the_model(model, tokenizer):
    ids = tokenizer("the lamp")["input_ids"]
    row = Continuation(ids, GREEDY, seed=1, likeliest=2)
    Generator(model, tokenizer).finish_all([row])
    with torch.no_grad():
        logits = model(torch.tensor([ids + row.new])).logits[0, len(ids) - 1 :].log_softmax(-1)
    assert len(row.logprobs) == len(row.new)
    for place, (token, (logprob, best)) in enumerate(zip(row.new, row.logprobs, strict=True)):
        assert logprob == pytest.approx(float(logits[place, token]), abs=1e-4)
        assert len(best) == 2 and max(best, key=best.get) == token
