"""One thread that generates for everybody who asks: clients of the API, people at the page."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable, Collection

from toolkit.serving.request import Refusal
from toolkit.writing.continuation import Continuation
from toolkit.writing.generator import Generator

MOST_WAITING = 1024  # continuations, of all requests


class Busy(Exception):
    """Too many continuations are waiting, or the engine is closing."""


def reporting_to(answers: asyncio.Queue, key: int | str) -> Callable[[Continuation], None]:
    """Return a `progress` that tells this event loop what a continuation has become.

    It puts (key, length of its text, number of tokens, why it has ended) into `answers`.
    """
    loop = asyncio.get_running_loop()

    def progress(row: Continuation) -> None:
        state = (key, len(row.text), len(row.new), row.finish)
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody listens
            loop.call_soon_threadsafe(answers.put_nowait, state)

    return progress


async def follow(
    rows: Collection[Continuation], answers: asyncio.Queue
) -> AsyncIterator[tuple[int | str, int, int, str | None]]:
    """Yield what the rows report to `answers` until all have ended.

    A listener who leaves early cancels what is not done.
    """
    open_rows = len(rows)
    try:
        while open_rows:
            state = await answers.get()
            open_rows -= state[-1] is not None
            yield state
    finally:
        for row in rows:
            row.cancelled = True


class Engine:
    """One thread that steps every generator that has work; `close` lets it finish what it has."""

    def __init__(self, generators: dict[str, Generator]):
        self.generators, self.closing = generators, False
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self.work, name="generating", daemon=True)

    def generator(self, name: str) -> Generator:
        """Return the generator of this name. Raises Refusal if there is none."""
        if name not in self.generators:
            message = f"model {name}: there is none; there are {', '.join(self.generators)}"
            raise Refusal(message, 404, "model_not_found", "model")
        return self.generators[name]

    def submit(self, name: str, rows: list[Continuation]) -> None:
        """Queue continuations for the generator of this name. Raises Busy if too many wait."""
        with self.changed:
            waiting = sum(generator.waiting_rows for generator in self.generators.values())
            if waiting + len(rows) > MOST_WAITING or self.closing:
                raise Busy("the server is busy; try again later")
            self.generators[name].submit(*rows)
            self.changed.notify()

    def work(self) -> None:
        while True:
            with self.changed:
                while not (busy := [g for g in self.generators.values() if g.busy]):
                    if self.closing:
                        return
                    self.changed.wait()
            for generator in busy:
                try:
                    generator.step()
                except Exception:  # a row must not wait for ever on our own defect
                    logging.getLogger(__name__).exception("generation failed")
                    with self.changed:
                        dropped = generator.drop_all()
                    for row in dropped:
                        row.finish = "error"
                        if row.progress:
                            row.progress(row)

    def close(self) -> None:
        with self.changed:
            self.closing = True
            self.changed.notify()
        self.thread.join()
