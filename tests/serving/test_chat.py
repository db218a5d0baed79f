"""/v1/chat/completions, as OpenAI's own client and careless ones see it, and the page's chat."""

import contextlib
import http.client
import json
import socket
import threading
from types import SimpleNamespace

import openai
import pytest
import uvicorn

from load_gpt2 import read_gpt2
from tests.serving.test_page import SAMPLING, browser, generate  # noqa: F401 - a fixture
from toolkit.corpus.conversations import TEMPLATE, Message
from toolkit.run.run_directory import RunDirectory
from toolkit.serving import page
from toolkit.serving.chat_api import add_chat
from toolkit.serving.chat_page import add_chat_page
from toolkit.serving.completions_api import completions_app
from toolkit.writing.chat import answering, chat_ids
from toolkit.writing.continuation import Continuation
from toolkit.writing.generator import Generator
from toolkit.writing.sampling import Sampling
from train_model import read_tuned

HI = [{"role": "user", "content": "Hi"}]
ASK = {"model": "tuned", "messages": HI, "max_tokens": 12, "seed": 4}


@contextlib.contextmanager
def serving(run, conversations):
    base, tokenizer = read_gpt2(run)
    generators = {
        "base": Generator(base, tokenizer),
        "tuned": Generator(read_tuned(run), tokenizer),
    }
    app = completions_app(generators)
    add_chat(app, app.state.engine, conversations)
    add_chat_page(app, app.state.engine, SAMPLING)
    page.add_page(app, app.state.engine, run, SAMPLING)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        address = "{}:{}".format(*listener.getsockname())
        try:
            with openai.OpenAI(base_url=f"http://{address}/v1", api_key="none") as client:
                yield SimpleNamespace(client=client, address=address, tuned=generators["tuned"])
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def run(finished):
    return RunDirectory(finished.path, seed=7, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def chat(run):
    with serving(run, conversations=True) as served:
        yield served


def by_hand(generator, messages, most, seed):
    """What the model answers, asked in this process."""
    ids, _ = chat_ids([Message(**message) for message in messages], generator.tokenizer, 64 - most)
    row = Continuation(ids, answering(Sampling(most, 1.0, 1.0, 0, 1)), seed)
    Generator(generator.model, generator.tokenizer).finish_all([row])
    return row.text.lstrip(), row.finish


def test_openais_client_gets_an_answer_whole_and_in_pieces(chat):
    expected, finish = by_hand(chat.tuned, HI, 12, 4)
    whole = chat.client.chat.completions.create(**ASK)
    assert (whole.object, whole.choices[0].message.role) == ("chat.completion", "assistant")
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == (expected, finish)
    assert whole.usage.completion_tokens <= 12 and whole.usage.prompt_tokens > 5
    parts = list(
        chat.client.chat.completions.create(
            stream=True, stream_options={"include_usage": True}, **ASK
        )
    )
    assert parts.pop().usage == whole.usage
    assert {part.object for part in parts} == {"chat.completion.chunk"}
    assert "".join(part.choices[0].delta.content or "" for part in parts) == expected
    assert [part.choices[0].delta.role for part in parts][:2] == ["assistant", None]
    assert [part.choices[0].finish_reason for part in parts][-1] == finish


def test_what_was_said_counts_and_several_answers_differ(chat):
    talk = [
        {"role": "system", "content": "Be brief."},
        *HI,
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": [{"type": "text", "text": "Who?"}]},
    ]
    answers = chat.client.chat.completions.create(**ASK | {"messages": talk, "n": 3}).choices
    assert len({answer.message.content for answer in answers}) > 1
    plain = [*talk[:3], {"role": "user", "content": "Who?"}]
    assert answers[0].message.content == by_hand(chat.tuned, plain, 12, 4)[0]


def test_the_prompt_is_what_the_saved_template_writes(chat):
    tokenizer = chat.tuned.tokenizer
    ids, _ = chat_ids([Message(**message) for message in HI], tokenizer, 64)
    found = tokenizer.apply_chat_template(
        HI, chat_template=TEMPLATE, add_generation_prompt=True, return_dict=False
    )
    assert ids == found


def test_a_conversation_beyond_the_context_loses_its_oldest_turns(chat):
    talk = [*HI, {"role": "assistant", "content": "Hello."}] * 20 + HI
    answer = chat.client.chat.completions.create(**ASK | {"messages": talk, "max_tokens": 20})
    assert 20 < answer.usage.prompt_tokens <= 44 and answer.usage.total_tokens <= 64
    answer = chat.client.chat.completions.create(**ASK | {"max_tokens": 9999})
    assert answer.usage.total_tokens <= 64


WRONG = {
    "messages": ([], "messages"),
    "messages ": ([{"role": "tool", "content": "4"}], "message 1 has the role tool"),
    "messages  ": ([{"role": "user", "content": "word " * 99}], "the message is too long"),
    "tools": ([{"type": "function"}], "tools: is not supported; leave it out"),
    "temperature": (9, "temperature"),
    "mesages": (1, "mesages"),
}


@pytest.mark.parametrize("field", WRONG)
def test_a_wrong_request_is_refused_with_what_is_wrong(chat, field):
    value, says = WRONG[field]
    with pytest.raises(openai.BadRequestError, match=says):
        chat.client.chat.completions.create(**ASK, extra_body={field.strip(): value})


def test_a_model_without_a_template_says_what_to_use_instead(run):
    with serving(run, conversations=False) as served:
        with pytest.raises(openai.BadRequestError, match="ask /v1/completions") as refusal:
            served.client.chat.completions.create(**ASK)
    assert refusal.value.code == "no_chat_template"


# The page


def answers_on_the_page(chat, **changed):
    connection = http.client.HTTPConnection(chat.address)
    said = {"base": HI, "tuned": [*HI, {"role": "assistant", "content": "Hello."}, *HI]}
    asked = {"talks": said, "seed": 7, "max_new_tokens": 8, "temperature": 0.8}
    asked |= {"top_p": 0.95, "top_k": 50, "repetition_penalty": 1, **changed}
    connection.request("POST", "/answer", json.dumps(asked), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    lines = [json.loads(line) for line in answer.read().splitlines()]
    connection.close()
    return answer.status, lines


def test_both_models_answer_the_page_each_in_its_own_conversation(chat):
    status, events = answers_on_the_page(chat)
    assert status == 200
    for name in ("base", "tuned"):
        mine = [event for event in events if event["model"] == name]
        assert mine[-1]["finish"] in ("stop", "length") and mine[-1]["tokens"] <= 8
        assert all(event["likeliest"] for event in mine if event["text"])


EMPTY = [{"role": "user", "content": " "}]


@pytest.mark.parametrize(
    "changed, says",
    [
        ({"talks": {"base": HI}}, "talks must hold those of base, tuned"),
        ({"talks": {"base": EMPTY, "tuned": EMPTY}}, "prompt is empty: say something"),
        ({"max_new_tokens": 64}, "max_new_tokens must be below the model's 64 positions, got 64"),
    ],
)
def test_the_page_hears_what_is_wrong(chat, changed, says):
    status, [error] = answers_on_the_page(chat, **changed)
    assert status == 400 and error["error"]["message"] == says


def test_a_person_talks_with_both_models_and_begins_anew(run, browser, monkeypatch):  # noqa: F811
    facts = page.page_facts
    told = {"chat": True, "prompts": ["Hello"]}
    monkeypatch.setattr(page, "page_facts", lambda *given: facts(*given) | told)
    with serving(run, conversations=True) as served:
        browser.show(390, 844)
        browser.open(f"http://{served.address}")
        browser.type("[name=max_new_tokens]", "6")
        for message in ("Hi", "Who?"):
            browser.type("[name=prompt]", message)
            texts = generate(browser)
            assert browser.run("form.prompt.value") == ""
        for name, text in texts.items():
            assert text.startswith("Hi\n") and "\n\nWho?\n" in text
            talk = browser.run(f"talks.{name}")
            assert [turn["role"] for turn in talk] == ["user", "assistant"] * 2
            assert text.replace("\n\n", "\n").endswith(f"Who?\n{talk[-1]['content']}")
        browser.click("#reset")
        assert browser.run("document.querySelector('#tuned .text').textContent") == ""
        browser.type("[name=prompt]", "Hi")
        assert generate(browser)["tuned"].count("Hi\n") == 1
        assert browser.errors == []
