"""Requests that a server must not fall over: each is answered, and so is the next one."""

import http.client
import json
import socket
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from urllib.parse import SplitResult, urlsplit

from tests.faults.harness import Bench, Tally
from tests.faults.orders import Ending
from tests.serving.test_serve import serving

GOOD = {"model": "tuned", "prompt": "The lamp", "max_tokens": 4}
PAGE = {"prompt": "a", "temperature": 1, "top_p": 1, "top_k": 0, "max_new_tokens": 4}
PAGE |= {"repetition_penalty": 1, "seed": 0}
ODD = [None, -1, 0, 10**400, 1.5, True, "x", "", [], [[]], {}, {"a": 1}, [None]]
ODD += ["\ud800", "\x1b[31m"]
FIELDS = ["model", "prompt", "max_tokens", "temperature", "top_p", "top_k", "n", "stop", "seed"]
FIELDS += ["logprobs", "stream", "stream_options", "best_of", "echo", "no_such", "logit_bias"]
BODIES = [b"", b"null", b"[]", b"5", b'"x"', b"{", b"\xff\xfe", b"\0"]
BODIES += [b"[" * 10**5, b'{"a":' * 10**5]
BODIES += [b'{"model": "tuned", "prompt": "' + b"a" * (1 << 20) + b'"}', b" " * (1 << 21)]
BODIES += [b'{"model": "tuned", "prompt": NaN}', b'{"prompt": 1e999}', b"9" * 10**5]
END = b" HTTP/1.1\r\nHost: localhost\r\n"
LENGTH, CHUNKED = b"Content-Length: ", b"Transfer-Encoding: chunked\r\n\r\n"
RAW = [
    b"\r\n\r\n",
    b"\0" * 1000,
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /" + b"a" * 10**5 + END + b"\r\n",
    b"GET / HTTP/1.1\r\nHost: " + b"a" * 10**5 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"GET /../../etc/passwd" + END + b"\r\n",
    b"GET /%2e%2e/%2e%2e/etc/passwd" + END + b"\r\n",
    b"GET /v1/models/%ff%00" + END + b"\r\n",
    b"GET /v1/models/\x1b[31m" + END + b"\r\n",
    *[b"POST /v1/completions" + END + LENGTH + n + b"\r\n\r\n" for n in (b"-1", b"x", b"9" * 40)],
    b"POST /continue" + END + CHUNKED + b"zz\r\n",
    b"POST /continue" + END + CHUNKED + b"ffffffffff\r\n",
    b"PUT /" + END + b"\r\n",
    b"TRACE /" + END + b"\r\n",
    b"GET /" + END + b"Upgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
]


def bad_requests(bench: Bench) -> Tally:
    """In the long form alone: a server of its own takes seconds, and tests/serving has one."""
    tally = bench.tally("requests to the server")
    if bench.minutes is None:
        return tally
    with serving(SimpleNamespace(path=bench.run)) as server:
        address = urlsplit(server.url)
        for path, body in asked(bench):
            tally.note(f"{path} {body[:60]!r}", timed(post, address, path, body))
        for content in RAW:
            tally.note(f"{content[:60]!r}", timed(send, address, content))
        tally.note("good, at the end", timed(good, address))
        server.terminate()
        said = server.communicate(timeout=20)[1]
    tally.note("what it said", Ending(0, "", said, 0))
    return tally


def asked(bench: Bench) -> list[tuple[str, bytes]]:
    bodies = [("/v1/completions", GOOD | {field: odd}) for field in FIELDS for odd in ODD]
    bodies += [("/continue", PAGE | {field: odd}) for field in PAGE for odd in ODD]
    bodies = bench.some(bodies, 0, most=200)
    found = [(path, json.dumps(body).encode()) for path, body in bodies]
    return found + [(path, body) for path in ("/v1/completions", "/continue") for body in BODIES]


def timed(ask: Callable[..., int], *words: Any) -> Ending:
    """Return how a request ended, as if it were a command: 2 is refused."""
    started = time.monotonic()
    try:
        status = ask(*words)
    except TimeoutError:
        return Ending(1, "", "no answer", time.monotonic() - started, hung=True)
    except (ConnectionError, http.client.HTTPException):
        status = 400  # closed: so it was refused
    seconds = time.monotonic() - started
    code = {2: 0, 4: 2}.get(status // 100, 1)
    return Ending(code, "", f"error: {status}\n" if code else "", seconds, hung=seconds > 20)


def post(address: SplitResult, path: str, body: bytes) -> int:
    line = http.client.HTTPConnection(address.hostname, address.port, timeout=20)
    try:
        line.request("POST", path, body, {"Content-Type": "application/json"})
        answer = line.getresponse()
        answer.read()
        return answer.status
    finally:
        line.close()


def good(address: SplitResult) -> int:
    return post(address, "/v1/completions", json.dumps(GOOD).encode())


def send(address: SplitResult, content: bytes) -> int:
    """Send bytes as they are, and no more; return the status, 400 where the line is closed."""
    with socket.create_connection((address.hostname, address.port), timeout=20) as line:
        line.sendall(content)
        line.shutdown(socket.SHUT_WR)
        answer = line.recv(1 << 12)
    return int(answer.split()[1]) if answer.startswith(b"HTTP/") else 400
