"""Serve the API and the page on one address until Ctrl-C or SIGTERM; requests under way finish."""

import contextlib
import importlib.util
import signal
import socket

from toolkit.run.command import UserError
from toolkit.run.console import say
from toolkit.run.run_directory import RunDirectory
from toolkit.writing.generator import Generator
from toolkit.writing.sampling import Sampling

LOOPBACK = ("127.0.0.1", "localhost")
NEEDS = "--serve needs more packages; run: python3 -m pip install -r requirements-serve.txt"


def require_server(host: str, port: int) -> None:
    """Refuse what could not be served later on: packages lack, or the port is taken."""
    if not all(map(importlib.util.find_spec, ("uvicorn", "fastapi"))):
        raise UserError(NEEDS)
    listen(host, port).close()


def listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except (OSError, UnicodeError) as error:
        problem = getattr(error, "strerror", None) or error
        raise UserError(f"--port {port} on --host {host}: {problem}") from None


def serve(
    generators: dict[str, Generator], run: RunDirectory, sampling: Sampling, host: str, port: int
) -> None:
    """Serve OpenAI's routes at /v1, and at / a page that begins with these settings.

    Raises UserError if packages lack or the port is taken.
    """
    try:
        import uvicorn

        from toolkit.serving.chat_api import add_chat
        from toolkit.serving.chat_page import add_chat_page
        from toolkit.serving.completions_api import completions_app
        from toolkit.serving.page import add_page
    except ImportError:
        raise UserError(NEEDS) from None
    listener = listen(host, port)
    conversations = run.results("create_dataset").get("conversations", False)
    address = f"http://{host}:{listener.getsockname()[1]}"
    app = completions_app(generators, [host, *LOOPBACK] if host in LOOPBACK else None)
    add_chat(app, app.state.engine, conversations)
    add_page(app, app.state.engine, run, sampling)
    if conversations:
        add_chat_page(app, app.state.engine, sampling)
    say(f"serving {' and '.join(generators)} at {address}/v1 ; page: {address} ; Ctrl-C ends")
    config = uvicorn.Config(app, log_level="warning", lifespan="on")
    # uvicorn answers both signals by finishing, and then sends them once more.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = uvicorn.Server(config)
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    say("stopped" if server.force_exit else "stopped; what was under way is finished")
