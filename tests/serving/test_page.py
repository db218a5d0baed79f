"""The page of --serve: what it says, what it refuses, and what a person does with it."""

import html
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest
import torch
import uvicorn
from markupsafe import Markup

from generate import read_samples
from load_gpt2 import read_gpt2
from tests.conftest import PROJECT, library_model
from tests.report.test_report import Tags
from tests.serving.browser import CHROMIUM, Browser
from toolkit.report.report import render
from toolkit.run.run_directory import RunDirectory
from toolkit.scoring.metrics import METRICS
from toolkit.serving import page
from toolkit.serving.completions_api import completions_app
from toolkit.writing.generator import Generator
from toolkit.writing.sampling import Sampling, all_prompt_ids
from train_model import read_tuned

SAMPLING = Sampling(8, 0.8, 0.95, 50, 1)  # as in `FLAGS`
ASKED = {"prompt": "The lamp", "seed": 7, "max_new_tokens": 8, "temperature": 0.8}
ASKED |= {"top_p": 0.95, "top_k": 50, "repetition_penalty": 1}


@pytest.fixture(scope="module")
def url(finished):
    words = ["generate.py", "--run_dir", str(finished.path), "--serve", "--port", "0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, *words], cwd=PROJECT, stdout=subprocess.PIPE, text=True, env=environment
    )
    yield re.search(r"page: (\S+)", process.stdout.readline())[1]
    process.kill()
    process.communicate()


def ask(url, **changed):
    """Return the status, and the events or the error's message."""
    head = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/continue", json.dumps(ASKED | changed).encode(), head)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, [json.loads(line) for line in answer]
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())["error"]["message"]


def test_the_page_says_what_the_records_say_and_asks_no_other_host(finished, url):
    with urllib.request.urlopen(url) as answer:
        policy, text = answer.headers["Content-Security-Policy"], answer.read().decode()
    assert policy.startswith("default-src 'none'; script-src 'self';")
    for tag, attributes in Tags(text).seen:
        assert attributes.get("src", "page.js") == "page.js"
        assert tag == "use" or attributes.get("href", "data:,") in ("data:,", "report.html")
    assert not re.search(r"url\((?!#)|@import", text)
    records = {p.stem: json.loads(p.read_text())["results"] for p in finished.path.glob("*.json")}
    for metric in METRICS:
        assert metric.definition in html.unescape(text)
        for model in ("base", "tuned", "difference"):
            assert metric.write(records["evaluate_model"][model][metric.name]) in text
    assert f"{records['train_test_split']['splits']['train']['tokens_read']:,}" in text
    assert "windows of 50 characters that training also has" in text and text.count("<svg") == 2
    assert finished.path.name in text and str(finished.path) not in text
    with urllib.request.urlopen(f"{url}/report.html") as answer:
        assert answer.read() == (finished.path / "report.html").read_bytes()


def test_a_page_without_test_figures_says_what_to_run(run_copy):
    for step in ("evaluate_model", "visualize_performance", "generate"):
        (run_copy / f"{step}.json").unlink()
    text = render("page.html", page.page_facts(RunDirectory(run_copy), SAMPLING), page.HERE)
    assert "No test figures; do this" in text and "run: python3 evaluate_model.py --run_dir" in text
    assert "No report; do this" in text and "--to_step 9" in text
    assert "Loss (nats per token)" in text and "report.html" not in text
    assert "<h2>Test figures" not in text and "<h2>Data" in text


def test_every_text_on_the_page_is_escaped(finished):
    def spoil(thing):
        if isinstance(thing, dict):
            return {key: spoil(value) for key, value in thing.items()}
        if isinstance(thing, list):
            return [spoil(value) for value in thing]
        spoiled = isinstance(thing, str) and not isinstance(thing, Markup)
        return f"{thing}\"'></textarea><script>alert(1)</script>" if spoiled else thing

    facts = page.page_facts(RunDirectory(finished.path), SAMPLING) | {"missing": ["No report"]}
    text = render("page.html", spoil(facts) | {"columns": [], "splits": []}, page.HERE)
    tags = Tags(text)
    assert [tag for tag, _ in tags.seen].count("script") == 1 and tags.open == []
    assert text.count("&lt;script&gt;") > 20 and "<script>alert" not in text


def test_both_models_write_what_step_10_wrote_and_tell_the_true_probabilities(finished, url):
    run = RunDirectory(finished.path)
    sample = read_samples(run)[0]
    base, tokenizer = read_gpt2(run)
    status, events = ask(url, prompt=sample["prompt"])
    assert status == 200
    for name, model in (("base", base), ("tuned", read_tuned(run))):
        mine = [event for event in events if event["model"] == name]
        assert "".join(event["text"] for event in mine) == sample[name][0]
        assert [event["finish"] for event in mine][-1] in ("stop", "length")
        prompt, new = (
            all_prompt_ids(sample["prompt"], tokenizer),
            all_prompt_ids(sample[name][0], tokenizer),
        )
        with torch.no_grad():
            logits = library_model(model)(torch.tensor([prompt + new])).logits[0]
        logits = logits[len(prompt) - 1 : -1]
        shares = logits.double().softmax(-1)
        expected = float(shares.gather(1, torch.tensor(new)[:, None]).prod())
        told = 1.0
        for event in mine:
            told *= event.get("probability", 1)
        assert told == pytest.approx(expected, rel=1e-3)
        likeliest = [share for _, share, _ in mine[0]["likeliest"]][:5]
        assert likeliest == pytest.approx(shares[0].topk(5).values.tolist(), rel=1e-3)
        assert all(sum(chosen for _, _, chosen in e["likeliest"]) == 1 for e in mine if e["text"])


@pytest.mark.parametrize(
    "changed, complaint",
    [
        ({"prompt": " \n"}, "prompt is empty"),
        ({"max_new_tokens": 64}, "max_new_tokens must be below the model's 64 positions, got 64"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ({"max_new_tokens": 2.5}, "max_new_tokens: "),
        ({"temperature": -1}, "temperature must be at least 0, got -1"),
        ({"temperature": float("nan")}, "temperature must be at least 0, got nan"),
        ({"temperature": None}, "temperature: "),
        ({"top_p": 0}, "top_p must lie above 0"),
        ({"top_k": -1}, "top_k must be at least 0"),
        ({"repetition_penalty": 1e9}, "repetition_penalty must be at most 100"),
        ({"seed": -1}, "seed must lie between 0 and 2**32 - 1"),
        ({"best_of": 2}, "best_of: "),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(url, changed, complaint):
    status, message = ask(url, **changed)
    assert status == 400 and complaint in message and "\n" not in message


def test_a_prompt_too_long_is_cut_with_a_word_as_in_the_terminal(finished, url):
    status, (told, *events) = ask(url, prompt="The lamp " * 50)
    ids = all_prompt_ids("The lamp " * 50, read_gpt2(RunDirectory(finished.path))[1])
    cut = f"the first {len(ids) - 56} tokens of the prompt do not fit the context and are left out"
    assert status == 200 and told == {"note": cut}
    assert {event["model"] for event in events} == {"base", "tuned"}


class Slow(Generator):
    def step(self):
        time.sleep(0.05)
        super().step()


def test_who_leaves_early_cancels_both_models(finished):
    run = RunDirectory(finished.path)
    model, tokenizer = read_gpt2(run)
    generators = {name: Slow(model, tokenizer) for name in ("base", "tuned")}
    app = completions_app(generators)
    page.add_page(app, app.state.engine, run, SAMPLING)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        body = json.dumps(ASKED | {"max_new_tokens": 50, "temperature": 5, "top_p": 1})
        client = http.client.HTTPConnection("127.0.0.1", listener.getsockname()[1])
        client.request("POST", "/continue", body, {"Content-Type": "application/json"})
        answer = client.getresponse()
        assert json.loads(answer.readline())["finish"] is None
        rows = [row for generator in generators.values() for row in generator.rows]
        answer.close()
        client.close()
        server.should_exit = True
        thread.join()  # the server finishes what is under way
    assert len(rows) == 2 and all(row.cancelled and len(row.new) < 25 for row in rows)


# In a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not CHROMIUM:
        pytest.skip("no Chromium here")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def generate(browser):
    browser.click("[type=submit]")
    browser.wait("!document.querySelector('[type=submit]').disabled")
    return {
        name: browser.run(f"document.querySelector('#{name} .text').textContent")
        for name in ("base", "tuned")
    }


@pytest.mark.parametrize("width", [1280, 390])
def test_a_person_types_generates_and_changes_settings(browser, url, width):
    browser.show(width, 844)
    browser.open(url)
    evil = "The <b>lamp</b> <img src=x onerror=alert(1)>"
    browser.type("[name=prompt]", evil)
    assert browser.run("settings.open") == (width > 600)
    if width < 600:
        browser.click("#settings summary")
    browser.type("[name=max_new_tokens]", "8")
    first = generate(browser)
    assert all(text.startswith(evil) and len(text) > len(evil) for text in first.values())
    assert first["base"] != first["tuned"] and generate(browser) == first

    told = {"model": "base", "text": "<i id=evil>", "probability": 1}
    told["likeliest"] = [["<i id=evil>", 1, True]]
    browser.run(
        f"show({json.dumps(told)}); document.querySelector('#base .token:last-child').focus()"
    )
    assert browser.run("likeliest.innerText").startswith("<i␣id=evil>")
    assert browser.run("document.querySelectorAll('#evil, .text img, .text b').length") == 0

    for text in ("ب", "\u064e"):  # a mark has no width: it belongs to the token before it
        told |= {"text": text, "likeliest": [[text, 1, True]]}
        browser.run(f"show({json.dumps(told)})")
    browser.run("document.querySelector('#base .token:last-child').focus()")
    assert browser.run("document.activeElement.textContent") == "ب\u064e"
    assert browser.run("likeliest.querySelectorAll('table').length") == 2

    browser.click("#tuned .token")
    assert browser.run("document.activeElement.className") == "token"
    shown = browser.wait("likeliest.hidden ? '' : likeliest.innerText")
    assert len(re.findall(r"\d%", shown)) >= 5
    box = browser.run("likeliest.getBoundingClientRect().toJSON()")
    assert 0 <= box["left"] and box["right"] <= width

    browser.type("[name=temperature]", "5")
    assert generate(browser) != first
    browser.type("[name=temperature]", "-1")
    generate(browser)
    assert browser.run("problem.textContent") == "temperature must be at least 0, got -1.0"
    invalid = "[...document.querySelectorAll('[aria-invalid]')].map((field) => field.name)"
    assert browser.run(invalid) == ["temperature"]
    room = browser.run("[document.documentElement.scrollWidth, innerWidth]")
    assert room == [width, width] and browser.errors == []
    assert browser.asked and all(asked.startswith((url, "data:")) for asked in browser.asked)


def test_on_a_phone_both_answers_are_in_sight_and_a_tap_shows_the_likeliest_tokens(browser, url):
    browser.show(390, 844)
    browser.call("Emulation.setTouchEmulationEnabled", enabled=True)
    browser.open(url)
    browser.tap("[type=submit]")
    browser.wait("document.querySelector('#tuned .end').textContent.includes('tokens')")
    edges = browser.run(
        "[...document.querySelectorAll('.columns .card')].flatMap(card => "
        "(({top, bottom}) => [top, bottom])(card.getBoundingClientRect()))"
    )
    assert len(edges) == 4 and all(0 <= edge <= 844 for edge in edges)
    browser.tap("#tuned .token:nth-child(3)")
    shown = browser.wait("likeliest.hidden ? '' : likeliest.innerText")
    assert len(re.findall(r"\d%", shown)) >= 5
    browser.run(  # as browsers of phones say that the finger has gone
        "columns.dispatchEvent(new MouseEvent('mouseleave')),"
        "columns.dispatchEvent(new PointerEvent('pointerleave', {pointerType: 'touch'}))"
    )
    assert browser.run("likeliest.innerText") == shown and not browser.run("likeliest.hidden")
    browser.tap("h1")
    browser.wait("likeliest.hidden")
    browser.call("Emulation.setTouchEmulationEnabled", enabled=False)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_more_a_token_surprises_the_stronger_its_shade(browser, url, scheme):
    browser.show(1280, 844, scheme)
    browser.open(url)
    told = {"model": "base", "text": "a", "likeliest": [["a", 1, True]]}
    events = [told | {"probability": share} for share in (1, 0.5, 0.03, 0.001, 1e-9)]
    browser.run(f"{json.dumps(events)}.forEach(show)")
    colours = browser.run(
        "[...document.querySelectorAll('.token')].map(e => getComputedStyle(e).backgroundColor)"
    )
    alphas = [float(re.search(r"/ ([\d.]+)\)", colour)[1]) for colour in colours]
    assert alphas[0] == 0 and alphas == sorted(alphas) and alphas[3] == alphas[4] > 0.6
    assert 0.05 < alphas[1] < alphas[2] < alphas[3]


def test_the_page_says_what_of_a_long_prompt_is_left_out(browser, url):
    browser.show(1280, 844)
    browser.open(url)
    browser.type("[name=prompt]", "The lamp " * 60)
    generate(browser)
    assert re.fullmatch(
        r"the first \d+ tokens of the prompt do not fit the context and are left out",
        browser.run("note.textContent"),
    )
    browser.type("[name=prompt]", "The lamp")
    generate(browser)
    assert browser.run("note.textContent") == ""
