"""The server, as OpenAI's own client and careless clients see it. On loopback alone."""

import concurrent.futures
import contextlib
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import openai
import pytest
import torch

import generate
from load_gpt2 import read_gpt2
from tests.conftest import PROJECT, library_model
from toolkit.run.run_directory import RunDirectory
from toolkit.writing.continuation import Continuation
from toolkit.writing.generator import Generator
from toolkit.writing.sampling import Sampling
from train_model import read_tuned


@pytest.fixture(scope="module")
def server(finished):
    with serving(finished) as process:
        yield process


@contextlib.contextmanager
def serving(finished):
    words = ["generate.py", "--run_dir", str(finished.path), "--serve", "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    line = process.stdout.readline()
    process.url = line.split(" at ")[1].split("/v1")[0]
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def post(server, path="/v1/completions", **body):
    data = body.pop("data", None) or json.dumps({"model": "tuned", **body}).encode()
    request = urllib.request.Request(
        server.url + path, data, {"Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_openais_client_gets_models_choices_and_streams(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["tuned", "base"]
        ask = {"model": "tuned", "max_tokens": 12, "seed": 4, "n": 2}
        whole = client.completions.create(prompt=["The lamp", "The sea"], **ask)
        assert [entry.index for entry in whole.choices] == [0, 1, 2, 3]
        assert whole.choices[0].text != whole.choices[1].text
        assert all(entry.finish_reason in ("stop", "length") for entry in whole.choices)
        again = client.completions.create(prompt="The sea", **ask)
        assert [entry.text for entry in again.choices] == [
            entry.text for entry in whole.choices[2:]
        ]
        texts = ["", ""]
        for event in client.completions.create(prompt="The sea", stream=True, **ask):
            texts[event.choices[0].index] += event.choices[0].text
        assert texts == [entry.text for entry in again.choices]
        stopped = client.completions.create(prompt="The sea", stop=texts[0][3:5], **ask)
        assert stopped.choices[0].text == texts[0][: texts[0].index(texts[0][3:5])]
        with pytest.raises(openai.NotFoundError, match="there are tuned, base"):
            client.completions.create(prompt="a", model="gpt-5")


def test_what_real_clients_send_by_default_is_accepted(server):
    defaults = {"presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "suffix": None}
    defaults |= {"best_of": 1, "user": "me", "echo": False, "logprobs": None, "stop": None}
    ask = {"model": "base", "max_tokens": 7, "seed": -1, "temperature": 0, **defaults}
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        assert client.models.retrieve("tuned").id == "tuned"
        whole = client.completions.create(prompt=["The", "The sea"], **ask)
        options = {"include_usage": True}
        events = client.completions.create(
            prompt=["The", "The sea"], stream=True, stream_options=options, **ask
        )
        *parts, last = events
        assert last.choices == [] and last.usage.to_dict() == whole.usage.to_dict()
        assert all(part.usage is None for part in parts)
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("gpt-5")


def test_echo_and_log_probabilities_are_those_of_the_model(server, finished):
    run = RunDirectory(finished.path)
    model, tokenizer = read_tuned(run).eval(), read_gpt2(run)[1]
    ids = tokenizer("The lämp")["input_ids"]
    ask = {"model": "tuned", "prompt": [ids], "max_tokens": 9, "seed": 8, "logprobs": 3}
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        whole = client.completions.create(echo=True, **ask).choices[0]
        parts = [e.choices[0] for e in client.completions.create(echo=True, stream=True, **ask)]
        unechoed = client.completions.create(**ask).choices[0]
        scored = client.completions.create(echo=True, **{**ask, "max_tokens": 0}).choices[0]
    assert whole.text == "The lämp" + unechoed.text == "".join(part.text for part in parts)
    assert scored.text == "The lämp" and scored.finish_reason == "length"
    for name, values in whole.logprobs.to_dict().items():
        assert [value for part in parts for value in part.logprobs.to_dict()[name]] == values
        assert values[: len(ids)] == scored.logprobs.to_dict()[name]
        assert values[len(ids) :] == unechoed.logprobs.to_dict()[name]
    found, tokens = whole.logprobs, whole.logprobs.tokens
    assert "bytes:\\xc3" in tokens  # of the a with dots, which is two tokens here
    again = {tokenizer.decode([token]): token for token in range(len(tokenizer))}
    new = [again.get(token) for token in tokens[len(ids) :]]
    new = new[: new.index(None)] if None in new else new
    with torch.no_grad():
        expected = library_model(model)(torch.tensor([ids + new])).logits[0].log_softmax(-1)
    assert found.token_logprobs[0] is None and found.top_logprobs[0] is None
    for place, token in enumerate((ids + new)[1:], start=1):
        logprob = float(expected[place - 1, token])
        assert found.token_logprobs[place] == pytest.approx(logprob, abs=0.05)  # bf16, if it has
        assert 3 <= len(found.top_logprobs[place]) <= 4
        assert found.top_logprobs[place][tokens[place]] == found.token_logprobs[place]
        if "\\x" not in tokens[place]:
            offset = found.text_offset[place]
            assert whole.text[offset : offset + len(tokens[place])] == tokens[place]


@pytest.mark.parametrize(
    "body, status, complaint",
    [
        ({"prompt": "a " * 200}, 400, "201 tokens, the model's 64 positions"),
        ({"prompt": [5] * 64}, 400, "64 tokens, which leave no room for another"),
        ({"prompt": "a " * 5000}, 400, "10000 characters, which are more tokens than"),
        ({"prompt": "a", "max_tokens": 0}, 400, "max_tokens: "),
        ({"prompt": "a", "temperature": -1}, 400, "temperature: "),
        ({"prompt": "a", "temperature": 1e-40}, 400, "temperature: must be 0 or at least 1e-05"),
        (
            {"prompt": "half a character \ud800"},
            400,
            "the prompt is no text: half a character at 17",
        ),
        ({"prompt": "a", "top_p": 0}, 400, "top_p: "),
        ({"prompt": "a", "n": 65}, 400, "above 64 choices"),
        ({"prompt": "a", "stop": ""}, 400, "stop: "),
        ({"prompt": "a", "stop": ["a"] * 5}, 400, "stop: "),
        ({"prompt": "a", "seed": 2**63}, 400, "seed: "),
        ({"prompt": "a", "best_of": 2}, 400, "best_of: "),
        ({"prompt": "a", "presence_penalty": 0.5}, 400, "presence_penalty: is not supported"),
        ({"prompt": "a", "logit_bias": {"5": 1}}, 400, "logit_bias: is not supported"),
        ({"prompt": "a", "suffix": "b"}, 400, "suffix: is not supported"),
        ({"prompt": "a", "logprobs": 6}, 400, "logprobs: "),
        ({"prompt": "a", "max_tokens": "5"}, 400, "max_tokens: "),
        ({"prompt": "a", "stream_options": {"include_usage": True}}, 400, "stream_options: "),
        ({"prompt": "a", "top_k": -2}, 400, "top_k: "),
        ({"prompt": "a", "tools": []}, 400, "tools: unknown field; leave it out; there are model,"),
        ({"prompt": "a", "temperture": 1}, 400, "temperture: unknown field; did you mean temper"),
        ({"prompt": "a", "model": "\ud800"}, 404, "model ?: there is none; there are tuned, base"),
        ({"prompt": []}, 400, "prompt: must be text"),
        ({"prompt": [[]]}, 400, "prompt: must be text"),
        ({"prompt": [True]}, 400, "prompt: must be text"),
        ({"prompt": [[1], 2]}, 400, "prompt: must be text"),
        ({"prompt": [300]}, 400, "prompt: token ids go from 0 to 299"),
        ({}, 400, "prompt: "),
        ({"data": b"{"}, 400, "the body cannot be read: it must be JSON in UTF-8; Expecting prop"),
        ({"data": b"\xff\xfe"}, 400, "the body cannot be read: it must be JSON in UTF-8"),
        ({"data": b"[" * 100_000}, 400, "the body cannot be read: it must be JSON in UTF-8"),
        ({"data": b"[]"}, 400, "the body must be a JSON object: {"),
        ({"prompt": "a" * (1 << 20)}, 413, "larger than"),
    ],
)
def test_wrong_requests_get_errors_in_openais_shape(server, body, status, complaint):
    code, answer = post(server, **body)
    assert code == status and complaint in answer["error"]["message"], answer
    error = answer["error"]
    assert error["type"] == "invalid_request_error"
    if ": " in complaint and not {"prompt", "data"} & body.keys():
        assert error["param"] == complaint.split(":")[0]


def test_more_tokens_than_there_is_room_for_are_as_many_as_there_is_room_for(server):
    asked = {"prompt": "The sea", "max_tokens": 1000, "temperature": 0, "top_k": -1}
    answer = post(server, **asked)[1]
    tokens = answer["usage"]
    assert answer["choices"][0]["finish_reason"] == "length" and tokens["total_tokens"] == 64
    room = tokens["completion_tokens"]
    assert post(server, **{**asked, "max_tokens": room})[1]["choices"] == answer["choices"]


def test_many_clients_at_once_get_what_one_alone_gets(server):
    asked = {"prompt": "The wind", "max_tokens": 20, "seed": 5}
    alone = post(server, **asked)[1]["choices"]
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(post(server, **asked))) for _ in range(32)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [status for status, _ in answers] == [200] * 32
    assert all(answer["choices"] == alone for _, answer in answers)


def test_a_port_in_use_is_refused(finished, refusal):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = ["--run_dir", finished.path, "--serve", "--port", port]
        assert f"--port {port} on --host 127.0.0.1: " in refusal(generate.main, *words)


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_server_finishes_what_is_under_way(finished, signal_number):
    with serving(finished) as server:
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
        ask = {"model": "tuned", "prompt": "The lamp", "max_tokens": 55, "n": 64, "stream": True}
        body = json.dumps({**ask, "seed": 1, "stop": ["never said"]})
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.readline().startswith(b"data: ")  # it is under way
        server.send_signal(signal_number)
        events = [line for line in answer.read().split(b"\n\n") if line.strip()]
        connection.close()
        assert events[-1] == b"data: [DONE]"
        ended = [json.loads(line.split(b"data: ")[1])["choices"][0] for line in events[:-1]]
        assert sum(choice["finish_reason"] in ("stop", "length") for choice in ended) == 64
        out, err = server.communicate(timeout=60)
        assert err == "" and out.endswith("\nstopped; what was under way is finished\n")
        assert server.returncode == 0


def load(server, clients, seconds):
    """Let clients ask again and again; return each one's latencies in seconds."""
    until, latencies = time.monotonic() + seconds, [[] for _ in range(clients)]

    def work(number):
        while (began := time.monotonic()) < until:
            status, answer = post(server, prompt="The wind", max_tokens=20, seed=number)
            assert status == 200 and answer["choices"][0]["finish_reason"], answer
            latencies[number].append(time.monotonic() - began)

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        list(pool.map(work, range(clients)))
    return latencies


@pytest.mark.parametrize("seconds", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_32_clients_are_served_without_error_and_fairly(server, seconds):
    post(server, prompt="The wind", max_tokens=20)
    latencies = load(server, 32, seconds)
    counts = [len(one) for one in latencies]
    assert min(counts) >= max(1, 0.5 * statistics.median(counts)), counts
    every = sorted(latency for one in latencies for latency in one)
    middle, late = every[len(every) // 2], every[int(len(every) * 0.95)]
    if seconds >= 60:  # in three, one pause of the machine would decide
        assert late <= 3 * middle, (late, middle)  # of equal requests, hardly one waits longer


def call(server, method, path, body=None, **headers):
    """Return status, headers and body of the answer to a request that urllib would not send."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
    connection.request(method, path, body, headers)
    with contextlib.closing(connection), connection.getresponse() as answer:
        return answer.status, answer.headers, answer.read().decode()


def test_every_error_is_in_openais_shape_and_names_the_remedy(server):
    asked = json.dumps({"model": "tuned", "prompt": "a", "max_tokens": 1})
    for method, path, status, remedy in [
        ("GET", "/v1/nothing", 404, "there are GET /v1/models, GET /v1/models/{name}, GET /health"),
        ("POST", "/completions", 404, "POST /v1/completions"),
        ("GET", "/v1/completions", 405, "/v1/completions wants POST, not GET"),
        ("GET", "/v1/models/gpt-5", 404, "there are tuned, base"),
        ("POST", "/v1/completions", 415, "add the header Content-Type: application/json"),
    ]:
        found, _, text = call(server, method, path, asked if method == "POST" else None)
        error = json.loads(text)["error"]
        assert found == status and remedy in error["message"]
        assert set(error) == {"message", "type", "param", "code"}
    assert call(server, "GET", "/health")[0] == 200


def test_head_is_answered_as_get_without_its_body(server):
    for path in ("/", "/v1/models"):
        status, headers, text = call(server, "HEAD", path)
        assert status == 200 and int(headers["Content-Length"]) > 100 and text == ""


@pytest.mark.parametrize(
    "host, status", [("localhost", 200), ("[::1]", 200), ("evil.example", 400)]
)
def test_a_web_page_cannot_reach_it_by_a_name_of_its_own(server, host, status):
    for path in ("/", "/v1/models"):
        assert call(server, "GET", path, Host=f"{host}:8000")[0] == status


def test_a_page_elsewhere_is_refused_and_told_how_to_be_let_in(server):
    status, headers, text = call(server, "GET", "/v1/models", Origin="https://evil.example")
    assert status == 403 and "Access-Control-Allow-Origin" not in headers
    assert "--allow_origin https://evil.example" in json.loads(text)["error"]["message"]
    assert call(server, "GET", "/v1/models", Origin=server.url)[0] == 200


def test_a_body_of_unsaid_length_is_read_and_limited(server):
    ask = json.dumps({"model": "tuned", "prompt": "a", "max_tokens": 2}).encode()
    for parts, status in [([ask[:9], ask[9:]], 200), ([b" " * 2**19] * 3 + [ask], 413)]:
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
        kind = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/completions", iter(parts), kind, encode_chunked=True)
        answer = connection.getresponse()
        assert answer.status == status, answer.read()
        connection.close()


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_takes_its_rows_along(finished, stream):
    """A slow generator, and a client that hangs up while it is being served."""
    import uvicorn

    from toolkit.serving.completions_api import completions_app

    run = RunDirectory(finished.path)
    generator = Generator(read_tuned(run), read_gpt2(run)[1])
    step = generator.step
    generator.step = lambda: (time.sleep(0.3), step())  # all tokens would take 15 seconds
    application = completions_app({"tuned": generator})
    served = uvicorn.Server(uvicorn.Config(application, log_level="error"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=served.run, args=([listener],), daemon=True)
        thread.start()
        address = "{}:{}".format(*listener.getsockname())
        connection = http.client.HTTPConnection(address)
        ask = {"model": "tuned", "prompt": "a", "max_tokens": 50, "n": 4, "stream": stream}
        body = json.dumps({**ask, "seed": 3, "temperature": 2})
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        until(lambda: generator.rows)
        rows = list(generator.rows)
        connection.sock.close()
        connection.close()
        try:
            until(lambda: not generator.busy)
            assert all(row.cancelled and len(row.new) < 25 for row in rows)
        finally:
            served.should_exit = True
            thread.join()  # before its socket is closed


def until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_one_large_request_leaves_room_for_others(finished):
    run = RunDirectory(finished.path)
    generator = Generator(read_tuned(run), read_gpt2(run)[1])
    sampling = Sampling(50, 2.0, 1.0, 0, 1)
    large, small = ([Continuation([5], sampling, 1, n) for n in range(count)] for count in (64, 2))
    generator.submit(*large)
    generator.step()
    assert len(generator.rows) == 32
    generator.submit(*small)
    generator.step()
    assert all(row in generator.rows for row in small)
    while generator.busy:
        generator.step()
    assert all(row.finish for row in large + small)
