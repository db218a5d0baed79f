"""Who the server answers, whom it waits for, and what does not make others wait."""

import asyncio
import os
import socket
import threading

import pytest
import uvicorn

from load_gpt2 import read_gpt2
from toolkit.run.run_directory import RunDirectory
from toolkit.serving import connections, prompt_tokens
from toolkit.serving.addresses import Address, require_origin
from toolkit.serving.completions_api import completions_app
from toolkit.serving.connections import PunctualProtocol, Server
from toolkit.serving.guard import Guard
from toolkit.serving.request import Refusal
from toolkit.writing.generator import Generator


async def ok(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


def answer(app, method="GET", **headers):
    """Return status and headers that an ASGI app answers with."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    named = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    scope = {"type": "http", "method": method, "path": "/health", "headers": named}
    asyncio.run(app({**scope, "query_string": b"", "root_path": ""}, receive, send))
    return sent[0]["status"], {name.decode(): text.decode() for name, text in sent[0]["headers"]}


@pytest.mark.parametrize(
    "host, origin, status",
    [
        ("127.0.0.1:8000", None, 200),  # curl, a client library
        ("127.0.0.1:8000", "http://127.0.0.1:8000", 200),
        ("[::1]:8000", "http://[::1]:8000", 200),
        ("LOCALHOST:8000", "http://localhost:8000", 200),
        ("localhost:8000", "http://localhost:9000", 403),  # somebody else's port
        ("localhost:8000", "null", 403),  # a file, a frame in a sandbox
        ("localhost:8000", "https://ok.example", 200),
        ("localhost:8000", "https://ok.example.evil.example", 403),
        ("evil.example:8000", "http://evil.example:8000", 400),  # DNS rebinding
        ("[::1", None, 400),
        ("", "null", 400),
    ],
)
def test_only_this_servers_page_and_those_that_are_let_in_may_ask(host, origin, status):
    guard = Guard(ok, Address("127.0.0.1", 8000).names, ("https://ok.example",))
    headers = {"host": host} | ({"origin": origin} if origin else {})
    assert answer(guard, **headers)[0] == status


def test_behind_a_proxy_the_page_has_the_proxys_name():
    guard = Guard(ok, Address("localhost", 8000).names, ())
    asked = {"host": "127.0.0.1:8000", "origin": "https://tale.example.org"}
    assert answer(guard, **asked)[0] == 403
    assert answer(guard, x_forwarded_host="tale.example.org", **asked)[0] == 200


def test_a_page_that_is_let_in_may_read_and_send(finished):
    model, tokenizer = read_gpt2(RunDirectory(finished.path))
    generators = {"tuned": Generator(model, tokenizer)}
    page = {"host": "localhost:8000", "origin": "https://ok.example"}
    asks = page | {"access_control_request_method": "POST"}
    asks["access_control_request_headers"] = "authorization, content-type"
    for origins, allowed in ((("https://ok.example",), page["origin"]), (("*",), "*")):
        app = completions_app(generators, {"localhost"}, origins)
        status, headers = answer(app, "OPTIONS", **asks)
        assert status == 200 and headers["access-control-allow-origin"] == allowed
        assert headers["access-control-allow-headers"] == asks["access_control_request_headers"]
    status, headers = answer(completions_app(generators, {"localhost"}), "OPTIONS", **asks)
    assert status == 403 and "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    "host, private, url",
    [
        ("127.0.0.1", True, "http://127.0.0.1:80"),
        ("::1", True, "http://[::1]:80"),
        ("localhost", True, "http://localhost:80"),
        ("0.0.0.0", False, "http://192.0.2.7:80"),
        ("::", False, "http://192.0.2.7:80"),
        ("192.0.2.1", False, "http://192.0.2.1:80"),
    ],
)
def test_an_address_says_who_reaches_it(monkeypatch, host, private, url):
    monkeypatch.setattr("toolkit.serving.addresses.own_address", lambda: "192.0.2.7")
    address = Address(host, 0)
    assert (address.is_private, address.url(80)) == (private, url)
    assert (address.names is not None) == private


def test_it_listens_on_ipv6():
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
    with (
        Address("::1", 0).listen() as listener,
        socket.create_connection(listener.getsockname()[:2]),
    ):
        pass


def test_an_origin_is_what_browsers_say():
    for origin in (
        "https://a.example",
        "http://localhost:3000",
        "chrome-extension://a",
        "null",
        "*",
    ):
        require_origin(origin)
    for origin in ("a.example", "https://a.example/page", "https://A.example", ""):
        with pytest.raises(ValueError, match="write it as browsers do"):
            require_origin(origin)


def test_a_request_whose_head_does_not_come_whole_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(connections, "MOST_SECONDS", 0.3)
    config = uvicorn.Config(ok, log_level="error", http=PunctualProtocol, lifespan="off")
    server = Server(config)
    with Address("127.0.0.1", 0).listen() as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        whole = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        for first, sent in ((b"", b""), (b"", b"GET / HTTP/1.1\r\nHost:"), (whole, b"GET /ag")):
            with socket.create_connection(listener.getsockname(), timeout=20) as client:
                client.sendall(first)
                assert not first or b"200 OK" in client.recv(1000)
                client.sendall(sent)
                while client.recv(1000):  # until it is closed
                    pass
        server.should_exit = True
        thread.join()


def test_the_second_signal_ends_at_once(monkeypatch, capsys):
    monkeypatch.setattr(os, "_exit", lambda code: ended.append(code))
    server, ended = Server(uvicorn.Config(ok)), []
    server.server_state.tasks.add("a request")
    server.handle_exit(2, None)
    assert server.should_exit and not server.force_exit and ended == []
    server.handle_exit(2, None)
    assert ended == [130]
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "finishing what is under way; Ctrl-C once more ends at once"
    assert said[1] == "stopped; what was under way is dropped"


def test_a_long_prompt_is_refused_by_its_length_or_read_in_a_thread_of_its_own(
    finished, monkeypatch
):
    generator = Generator(*read_gpt2(RunDirectory(finished.path)))
    threads = []

    def tokenize(*_):
        threads.append(threading.current_thread())
        return [5]

    monkeypatch.setattr(prompt_tokens, "all_prompt_ids", tokenize)
    with pytest.raises(Refusal, match="1000000 characters, which are more tokens than"):
        asyncio.run(prompt_tokens.prompt_tokens("a " * 500_000, generator))
    assert threads == []
    asyncio.run(prompt_tokens.text_tokens("a " * 500_000, generator.tokenizer))
    asyncio.run(prompt_tokens.text_tokens("a lamp", generator.tokenizer))
    assert threads[0].name.startswith("long-prompts") and threads[1] is threading.main_thread()
