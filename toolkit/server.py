"""Serve an app on one address until Ctrl-C or SIGTERM, which let requests under way finish."""

import contextlib
import signal
import socket

from toolkit.command import UserError
from toolkit.console import say
from toolkit.generator import Generator


def serve(generators: dict[str, Generator], host: str, port: int) -> None:
    """Serve OpenAI's completions. Raises UserError if packages lack or the port is taken."""
    try:
        import uvicorn

        from toolkit.completions_api import completions_app
    except ImportError:
        raise UserError(
            "--serve needs more packages; run: python3 -m pip install -r requirements-serve.txt"
        ) from None
    try:
        listener = socket.create_server((host, port))
    except OSError as error:
        raise UserError(f"--port {port} on --host {host}: {error.strerror or error}") from None
    address = f"http://{host}:{listener.getsockname()[1]}"
    say(f"serving {' and '.join(generators)} at {address}/v1 ; Ctrl-C ends")
    config = uvicorn.Config(completions_app(generators), log_level="warning", lifespan="on")
    # uvicorn answers both signals by finishing, and then sends them once more.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])
    say("stopped; what was under way is finished")
