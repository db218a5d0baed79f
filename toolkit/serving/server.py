"""Serve the API and the page on one address until Ctrl-C or SIGTERM; requests under way finish."""

import contextlib
import importlib.util
import signal

from toolkit.run.command import UserError
from toolkit.run.console import say
from toolkit.run.run_directory import RunDirectory
from toolkit.serving.addresses import Address
from toolkit.writing.generator import Generator
from toolkit.writing.sampling import Sampling

NEEDS = "--serve needs more packages; run: python3 -m pip install -r requirements-serve.txt"
OPEN = """       every machine that reaches this one may use it: it has no password, no encryption
       (see "On a network" in docs/serving.md); without --host it is for this machine alone"""


def require_server(address: Address) -> None:
    """Refuse what could not be served later on: packages lack, or the port is taken."""
    if not all(map(importlib.util.find_spec, ("uvicorn", "fastapi"))):
        raise UserError(NEEDS)
    address.listen().close()


def serve(
    generators: dict[str, Generator], run: RunDirectory, sampling: Sampling, address: Address
) -> None:
    """Serve OpenAI's routes at /v1, and at / a page that begins with these settings.

    Raises UserError if packages lack or the port is taken.
    """
    try:
        import uvicorn

        from toolkit.serving.chat_api import add_chat
        from toolkit.serving.chat_page import add_chat_page
        from toolkit.serving.completions_api import completions_app
        from toolkit.serving.connections import PunctualProtocol, Server
        from toolkit.serving.page import add_page
    except ImportError:
        raise UserError(NEEDS) from None
    listener = address.listen()
    url = address.url(listener.getsockname()[1])
    conversations = run.results("create_dataset").get("conversations", False)
    app = completions_app(generators, address.names, address.origins)
    add_chat(app, app.state.engine, conversations)
    add_page(app, app.state.engine, run, sampling)
    if conversations:
        add_chat_page(app, app.state.engine, sampling)
    for route in app.routes:  # else HEAD would be refused, which some ask first
        route.methods |= {"HEAD"} if "GET" in route.methods else set()
    say(f"serving {' and '.join(generators)} at {url}/v1 ; page: {url} ; Ctrl-C ends")
    if not address.is_private:
        say(OPEN)
    config = uvicorn.Config(
        app, log_level="warning", lifespan="on", http=PunctualProtocol, ws="none"
    )
    # uvicorn answers both signals by finishing, and then sends them once more.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        Server(config).run(sockets=[listener])
    say("stopped; what was under way is finished")
