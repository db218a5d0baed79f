"""Batches say what each prompt alone would say; choices are those of transformers' processors."""

import copy
from dataclasses import replace

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    MinPLogitsWarper,
    PreTrainedTokenizerFast,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tests.model.tokenizer_forms import CHINESE, ENGLISH, KINDS, KOREAN
from toolkit.corpus.tokenizing import encode_text
from toolkit.model import kernels
from toolkit.model.byte_level_bpe import train_byte_level_bpe
from toolkit.model.gpt2 import take_over
from toolkit.writing import generator as generator_module
from toolkit.writing.continuation import Continuation
from toolkit.writing.continue_prompts import continue_all
from toolkit.writing.decoder import Decoder
from toolkit.writing.generator import Generator
from toolkit.writing.key_value_cache import KeyValueCache
from toolkit.writing.sampling import Sampling
from toolkit.writing.talks import continue_prompts
from toolkit.writing.text_stream import TextStream, text_after
from toolkit.writing.token_choice import choose, weigh

GREEDY = Sampling(max_new_tokens=24, temperature=0, top_p=1, top_k=0, num_samples=1)
BOLD = Sampling(max_new_tokens=16, temperature=1.0, top_p=0.9, top_k=40, num_samples=2)
PROMPTS = ["a", "the lamp", "", "the sea was high and the wind in the west, ", "é ø", "b c d e"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_byte_level_bpe(["the lamp and the sea é ø " * 20], 300, 128)


@pytest.fixture(scope="module")
def reference(tokenizer):
    """transformers' own model."""
    torch.manual_seed(5)
    size = len(tokenizer)
    ends = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    shape = {"n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": 128}
    config = GPT2Config(**shape, vocab_size=size, **ends)
    model = GPT2LMHeadModel(config).eval()
    for weight in model.parameters():  # so that logits differ enough for a text that varies
        weight.data *= 4
    return model


@pytest.fixture(scope="module")
def model(reference):
    return take_over(reference)


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


def ending_with(tokenizer, token):
    """The tokenizer, with another token as end-of-text."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(token)
    return tokenizer


def test_a_batch_says_token_for_token_what_each_prompt_alone_says(
    model, reference, tokenizer, small_batches
):
    end = tokenizer.eos_token_id
    prompts = [tokenizer(prompt)["input_ids"] or [end] for prompt in PROMPTS]
    lengths = [24, 3, 11, 17, 24, 1]
    settings = [Sampling(length, 0, 1, 0, 1) for length in lengths]
    found = continue_all(Generator(model, tokenizer), prompts, settings, seed=1)
    for ids, length, (row,) in zip(prompts, lengths, found, strict=True):
        assert row.new == greedy_by_hand(reference, ids, length, end)
    assert len({tuple(row.new) for (row,) in found}) == len(PROMPTS)


def test_edge_cases_say_what_transformers_generate_says(model, reference, tokenizer, small_batches):
    """A prompt of one token, a full context, rows that join others midway, end of text at once."""
    positions = model.config.n_positions
    end = greedy_by_hand(reference, [11, 12, 13], 20, tokenizer.eos_token_id)[-1]
    tokenizer = ending_with(tokenizer, end)
    prompts = [[5], [end], list(range(20, 60)), [7, 8] * 50, [9] * (positions - 1), [11, 12, 13]]
    settings = [Sampling(positions - len(ids), 0, 1, 0, 1) for ids in prompts]
    found = continue_all(Generator(model, tokenizer), prompts, settings, seed=1)
    for ids, (row,) in zip(prompts, found, strict=True):
        ids = torch.tensor([ids])
        expected = reference.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=positions - ids.shape[1],
            do_sample=False,
            pad_token_id=end,
            eos_token_id=end,
        )[0, ids.shape[1] :].tolist()
        ended = end in expected
        assert row.new == (expected[: expected.index(end)] if ended else expected)
        assert row.finish == ("stop" if ended else "length")
    assert any(row.finish == "stop" for (row,) in found)


def test_end_of_text_at_once_is_an_empty_text(model, reference, tokenizer):
    first = greedy_by_hand(reference, [5], 1, tokenizer.eos_token_id)[0]
    row, other = Continuation([5], GREEDY, 1, likeliest=1), Continuation([6], GREEDY, 1)
    Generator(model, ending_with(tokenizer, first)).finish_all([row, other])
    assert (row.new, row.text, row.logprobs, row.finish) == ([], "", [], "stop")
    assert other.new == greedy_by_hand(reference, [6], GREEDY.max_new_tokens, first)


def test_a_stop_text_over_several_tokens_ends_a_row_and_no_other(model, reference, tokenizer):
    free, other = Continuation([5], GREEDY, 1), Continuation([6], GREEDY, 1)
    Generator(model, tokenizer).finish_all([free])
    stop = free.text[4:9]
    assert len(tokenizer(stop)["input_ids"]) > 1
    stopped = Continuation([5], replace(GREEDY, stop=(stop,)), 1)
    Generator(model, tokenizer).finish_all([stopped, other])
    assert stopped.text == free.text[: free.text.index(stop)] and stopped.finish == "stop"
    assert other.new == greedy_by_hand(reference, [6], 24, tokenizer.eos_token_id)


def test_cancelled_rows_leave_and_disturb_nobody(model, reference, tokenizer, small_batches):
    rows = [Continuation([number], GREEDY, 1) for number in range(5, 11)]
    generator = Generator(model, tokenizer)
    for row in rows:
        generator.submit(row)
    generator.step()
    rows[0].cancelled = rows[4].cancelled = True  # one under way, one waiting
    while generator.busy:
        generator.step()
    assert len(rows[0].new) == 2 and rows[4].new == []
    for row in (rows[1], rows[2], rows[3], rows[5]):
        assert row.new == greedy_by_hand(reference, row.prompt, 24, tokenizer.eos_token_id)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_row_alone_is_the_row_in_a_batch_in_either_precision(
    model, tokenizer, small_batches, precision
):
    rows, alone = (
        [Continuation(tokenizer(text)["input_ids"] or [7], GREEDY, 1) for text in PROMPTS]
        for _ in range(2)
    )
    Generator(model, tokenizer, precision).finish_all(rows)
    for row in alone:
        Generator(model, tokenizer, precision).finish_all([row])
    assert [row.new for row in rows] == [row.new for row in alone]


@pytest.mark.parametrize(
    "extreme",
    [
        {"top_p": 1e-60},
        {"temperature": 1e-5, "top_k": 0},
        {"temperature": 100.0, "top_p": 1e-30, "top_k": 7},
        {"min_p": 1.0, "top_p": 1e-10},
        {"repetition_penalty": 100.0, "temperature": 1e-5},
    ],
)
def test_extreme_settings_still_choose_a_token(extreme):
    torch.manual_seed(1)
    logits, draws = torch.randn(3, 50) * 20, [0.0, 0.5, 1 - 2**-32]
    chosen = choose(logits, replace(BOLD, **extreme), [[1, 2]] * 3, draws)
    assert all(0 <= token < 50 for token in chosen.tolist())
    if extreme.get("top_p", 1) < 1e-6:
        assert chosen.tolist() == logits.argmax(-1).tolist()


def test_the_cache_keeps_within_its_limit_when_long_rows_follow_many_short_ones():
    cache = KeyValueCache(1, 1, 2, torch.float32, torch.device("cpu"))
    cache.make_room(64, 32, 64)
    cache.keys[0][:3] = 7
    cache.make_room(4, 1024, 16)
    assert cache.values[0].shape == (16, 1, 1024, 2)
    assert (cache.keys[0][:3, ..., :32] == 7).all() and not cache.keys[0][3:].any()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"activation_function": "relu"},
        {"activation_function": "gelu", "n_inner": 48},
        {"scale_attn_by_inverse_layer_idx": True},
        {"scale_attn_weights": False, "tie_word_embeddings": False},
        {"reorder_and_upcast_attn": True},
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_the_decoder_computes_what_transformers_computes(changes, packed, monkeypatch):
    if not packed:
        monkeypatch.setattr(kernels, "packing_works", lambda dtype: False)
    torch.manual_seed(3)
    shape = {"n_layer": 3, "n_head": 2, "n_embd": 32, "n_positions": 64, "vocab_size": 90}
    model = GPT2LMHeadModel(GPT2Config(**shape, **changes)).eval()
    for weight in model.parameters():
        weight.data *= 3
    texts = [torch.randint(90, (length,)).tolist() for length in (9, 1, 40)]
    for precision, tolerance in (("fp32", 1e-4), ("bf16", 0.3)):
        decoder = Decoder(take_over(model), precision)
        cache = decoder.empty_cache()
        cache.make_room(3, 50, 3)
        states = [*decoder.read(texts[:2], cache, 0), *decoder.read(texts[2:], cache, 2)]
        first = decoder.logits(torch.cat([own[-1:] for own in states]))
        then = decoder.step([4, 5, 6], [len(text) for text in texts], cache)
        for row, text in enumerate(texts):
            with torch.no_grad():
                expected = model(torch.tensor([text + [4 + row]])).logits[0, -2:]
            found = torch.stack([first[row], then[row]])
            torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance / 10)


def test_a_sample_does_not_depend_on_what_else_is_in_the_batch(model, tokenizer, small_batches):
    def texts(prompts, seed):
        given = [(prompt,) for prompt in prompts]
        found = continue_prompts(Generator(model, tokenizer), given, BOLD, seed)
        return [[talk.text for talk in talks] for talks in found]

    together = texts(PROMPTS, 3)
    for number, prompt in enumerate(PROMPTS):
        assert texts([prompt], 3 + number) == [together[number]]
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


def test_log_probabilities_are_those_of_the_model(model, reference, tokenizer):
    ids = tokenizer("the lamp")["input_ids"]
    row = Continuation(ids, GREEDY, seed=1, likeliest=2)
    Generator(model, tokenizer).finish_all([row])
    with torch.no_grad():
        logits = reference(torch.tensor([ids + row.new])).logits[0, len(ids) - 1 :].log_softmax(-1)
    assert len(row.logprobs) == len(row.new)
    for place, (token, (logprob, best)) in enumerate(zip(row.new, row.logprobs, strict=True)):
        assert logprob == pytest.approx(float(logits[place, token]), abs=1e-4)
        assert len(best) == 2 and max(best, key=best.get) == token


@pytest.mark.parametrize("kind", KINDS)
def test_new_text_is_what_follows_the_prompt_spaces_and_all(kind):
    train, end = KINDS[kind]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=train(), eos_token=end)
    ids = encode_text(ENGLISH + KOREAN + CHINESE, tokenizer)
    for place in range(1, len(ids) - 1):
        told = tokenizer.decode(ids[:place], skip_special_tokens=True)
        if told.endswith("\ufffd"):  # amid a character
            continue
        prompt, new = ids[:place], ids[place : place + 12]
        whole = tokenizer.decode(prompt + new, skip_special_tokens=True)
        assert told + text_after(prompt, new, tokenizer) == whole
