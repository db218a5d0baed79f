"""The server, as OpenAI's own client and careless clients see it. On loopback alone."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest

import generate
from tests.conftest import PROJECT

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")


@pytest.fixture(scope="module")
def server(finished):
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
    yield process
    process.kill()


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
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["base", "tuned"]
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
        with pytest.raises(openai.NotFoundError, match="there are base, tuned"):
            client.completions.create(prompt="a", model="gpt-5")


@pytest.mark.parametrize(
    "body, status, complaint",
    [
        ({"prompt": "a", "max_tokens": 1000}, 400, "the model's 64 positions"),
        ({"prompt": "a " * 200}, 400, "the model's 64 positions"),
        ({"prompt": "a", "max_tokens": 0}, 400, "max_tokens: "),
        ({"prompt": "a", "temperature": -1}, 400, "temperature: "),
        ({"prompt": "a", "top_p": 0}, 400, "top_p: "),
        ({"prompt": "a", "n": 65}, 400, "above 64 choices"),
        ({"prompt": "a", "stop": ""}, 400, "stop: "),
        ({"prompt": "a", "seed": -1}, 400, "seed: "),
        ({"prompt": "a", "best_of": 2}, 400, "best_of: "),
        ({"prompt": []}, 400, "prompt"),
        ({}, 400, "prompt: "),
        ({"data": b"{"}, 400, ""),
        ({"data": b"\xff\xfe"}, 400, ""),
        ({"prompt": "a" * (1 << 20)}, 413, "larger than"),
    ],
)
def test_wrong_requests_get_errors_in_openais_shape(server, body, status, complaint):
    code, answer = post(server, **body)
    assert code == status and complaint in answer["error"]["message"], answer
    assert answer["error"]["type"] == "invalid_request_error"


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


def test_a_stopped_server_finishes_what_is_under_way(server):
    answers = []
    ask = {"prompt": "The lamp", "max_tokens": 50, "n": 32, "seed": 1}
    client = threading.Thread(target=lambda: answers.append(post(server, **ask)))
    client.start()
    while client.is_alive() and not answers:
        if post(server, prompt="a", max_tokens=1)[0] == 200:
            break
    server.send_signal(signal.SIGTERM)
    client.join()
    assert answers[0][0] == 200 and len(answers[0][1]["choices"]) == 32
    out, err = server.communicate(timeout=60)
    assert err == "" and "Traceback" not in out
