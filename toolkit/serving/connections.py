"""uvicorn's server, but one that waits for nobody who does not send, nor for who cannot wait."""

import asyncio
import os
from types import FrameType

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from toolkit.run.console import say
from toolkit.serving.request_body import MOST_SECONDS


class PunctualProtocol(H11Protocol):
    """Closes a connection on which no request's head has come whole in time.

    uvicorn itself waits for ever. How long a request's body may take is in request_body.py.
    """

    deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.deadline = self.loop.call_later(MOST_SECONDS, transport.close)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        waiting = self.conn.their_state is h11.IDLE
        if waiting and self.deadline is None:
            self.deadline = self.loop.call_later(MOST_SECONDS, self.transport.close)
        elif not waiting:
            self.drop_deadline()

    def connection_lost(self, error: Exception | None) -> None:
        self.drop_deadline()
        super().connection_lost(error)

    def drop_deadline(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None


class Server(uvicorn.Server):
    """Ends at the first signal when what is under way is finished, at the second at once."""

    def handle_exit(self, number: int, frame: FrameType | None) -> None:
        if self.should_exit:
            say("stopped; what was under way is dropped")
            os._exit(130)  # threads that generate would be waited for
        super().handle_exit(number, frame)
        if self.server_state.tasks:
            say("finishing what is under way; Ctrl-C once more ends at once")
