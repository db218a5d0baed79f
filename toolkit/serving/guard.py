"""Who may ask. There is no password: what keeps web pages out that somebody opens on this machine.

Such a page gives itself away by `Host`, if a name of its own leads to a loopback address (DNS
rebinding), or by `Origin`.
"""

from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from toolkit.serving.errors import as_answer
from toolkit.serving.request import Refusal


class Guard:
    """ASGI middleware that refuses requests by a foreign name, or from a foreign page."""

    def __init__(self, app: Any, names: Collection[str] | None, origins: Collection[str]):
        self.app, self.names, self.origins = app, names, origins

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        refusal = self.refusal(Headers(scope=scope)) if scope["type"] == "http" else None
        await (as_answer(refusal) if refusal else self.app)(scope, receive, send)

    def refusal(self, headers: Headers) -> Refusal | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.names is not None and part("hostname", f"//{host}") not in self.names:
            names = ", ".join(sorted(self.names))
            return Refusal(f"Host {host[:100]}: this server answers only as {names}")
        # A proxy says by X-Forwarded-Host what it was asked for; a foreign page cannot.
        own = {host.lower(), headers.get("x-forwarded-host", host).lower()}
        allowed = "*" in self.origins or origin in self.origins
        if origin is None or allowed or part("netloc", origin) in own:
            return None
        message = f"a page of {origin[:100]} asks, which is not this server's; to let it, "
        return Refusal(f"{message}serve with --allow_origin {origin[:100]}", 403)


def part(name: str, url: str) -> str | None:
    """Return a part of an address, `::1` of //[::1]:8000; None if it is none."""
    try:
        return getattr(urlsplit(url), name) or None
    except ValueError:
        return None
