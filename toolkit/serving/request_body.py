"""How much a client may send, and how slowly, so that one alone cannot take the server down."""

import asyncio
from typing import Any

from toolkit.serving.errors import as_answer
from toolkit.serving.request import Refusal

MOST_BYTES = 1 << 20  # of a request
MOST_BYTES_SKIPPED = 64 << 20  # of a request that is too large
MOST_SECONDS = 30  # for a request to arrive
LEAVE = {"Connection": "close"}  # else what is still sent would be read for ever


class LimitedBody:
    """ASGI middleware that reads a request's body whole, whether its length was said or not."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        try:
            body = await asyncio.wait_for(read(receive), MOST_SECONDS)
        except asyncio.TimeoutError:
            refusal = Refusal(f"the request took more than {MOST_SECONDS} seconds to arrive", 408)
            return await as_answer(refusal, LEAVE)(scope, receive, send)
        except Refusal as refusal:
            return await as_answer(refusal, LEAVE)(scope, receive, send)
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> dict[str, Any]:
            return messages.pop() if messages else await receive()

        await self.app(scope, replay, send)


async def read(receive: Any) -> bytes:
    """Return the body. Raises Refusal if it is too large.

    A client that is still sending reads no answer: so the rest is read too, up to a limit.
    """
    parts, size, more = [], 0, True
    while more and size <= MOST_BYTES_SKIPPED:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        part, more = message.get("body", b""), message.get("more_body", False)
        size += len(part)
        if size <= MOST_BYTES:
            parts.append(part)
    if size > MOST_BYTES:
        raise Refusal(f"the request is larger than {MOST_BYTES:,} bytes", 413)
    return b"".join(parts)
