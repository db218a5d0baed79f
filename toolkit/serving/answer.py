"""What a client of /v1/completions is answered: all choices at the end, or events as they grow."""

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from tokenizers.decoders import DecodeStream
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from toolkit.serving.engine import follow
from toolkit.serving.request import Refusal, SamplingRequest
from toolkit.writing.continuation import Continuation

BYTES = {letter: byte for byte, letter in bytes_to_unicode().items()}  # as byte-level BPE has it


class Choice:
    """What a client gets of a continuation: its text and log probabilities, piece by piece.

    `echo`: the prompt comes first. Tokens are placed in the text from the prompt's beginning on,
    whether it is echoed or not, as OpenAI does it.
    """

    def __init__(
        self, number: int, row: Continuation, tokenizer: PreTrainedTokenizerFast, echo: bool
    ):
        self.number, self.row, self.tokenizer = number, row, tokenizer
        prompt = tokenizer.decode(row.prompt)
        self.prompt, self.skipped = (prompt, 0) if echo else ("", len(prompt))
        self.places: list[int] = []  # of each token that was described
        if row.likeliest is not None and echo:
            self.place(row.prompt, DecodeStream(skip_special_tokens=False), 0)
        self.new_tokens = DecodeStream(skip_special_tokens=True)
        self.ids = list(row.prompt) if echo else []
        self.sent = self.sent_tokens = 0
        self.decoded = len(prompt)

    def next(self, text: str, tokens: int, finish: str | None) -> dict[str, Any] | None:
        """Return what is new, None if nothing is.

        `text` and number of `tokens`: of the continuation so far; `finish`: why it has ended.
        """
        text = self.prompt + text
        piece, self.sent = text[self.sent :], len(text)
        if not piece and not finish:
            return None
        logprobs = None if self.row.likeliest is None else self.logprobs(tokens, finish)
        return {
            "index": self.number,
            "text": piece,
            "logprobs": logprobs,
            "finish_reason": finish,
        }

    def logprobs(self, tokens: int, finish: str | None) -> dict[str, list]:
        """Return OpenAI's lists for the tokens that begin in the text and have not been sent."""
        done = len(self.places) - len(self.ids)
        self.decoded = self.place(self.row.new[done:tokens], self.new_tokens, self.decoded)
        first, end = self.sent_tokens, len(self.places)
        if not finish or self.row.stream.stopped:  # what begins after the text waits, or is cut
            while end > first and self.places[end - 1] >= self.sent + self.skipped:
                end -= 1
        self.sent_tokens = end
        prompt = self.row.prompt_logprobs if self.ids else []
        ids = (self.ids + self.row.new)[first:end]
        known = (prompt + self.row.logprobs)[first:end]
        return {
            "tokens": [self.name(token) for token in ids],
            "token_logprobs": [found and found[0] for found in known],
            "top_logprobs": [
                found and self.best(token, *found) for token, found in zip(ids, known, strict=True)
            ],
            "text_offset": self.places[first:end],
        }

    def place(self, tokens: list[int], stream: DecodeStream, start: int) -> int:
        """Note where in the text each token begins, from a start; return where the last ends."""
        for token in tokens:
            self.places.append(start)
            start += len(stream.step(self.tokenizer.backend_tokenizer, token) or "")
        return start

    def best(self, token: int, logprob: float, likeliest: dict[int, float]) -> dict[str, float]:
        return {self.name(one): found for one, found in {**likeliest, token: logprob}.items()}

    def name(self, token: int) -> str:
        """Return a token's text; of one that is no whole characters, its bytes, as OpenAI does."""
        text = self.tokenizer.decode([token])
        if "\ufffd" not in text:
            return text
        letters = self.tokenizer.convert_ids_to_tokens(token)
        return "bytes:" + "".join(f"\\x{BYTES[letter]:02x}" for letter in letters)


async def follow_unbroken(choices: list[Choice], answers: asyncio.Queue) -> AsyncIterator[tuple]:
    """Yield what the choices' rows report; refuse if the server fails to generate one."""
    rows = [choice.row for choice in choices]
    async with contextlib.aclosing(follow(rows, answers)) as states:
        async for state in states:
            if state[-1] == "error":
                raise Refusal("the server failed to generate", 500)
            yield state


async def give(
    choices: list[Choice],
    answers: asyncio.Queue,
    asked: SamplingRequest,
    request: Request,
    name: str,
    kind: str,
) -> Any:
    """Return OpenAI's answer, whole or streamed. `name`: begins its id; `kind`: its "object"."""
    head = {
        "id": f"{name}-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": asked.model,
    }
    if asked.stream:
        events = stream_events(choices, answers, head, asked)
        return StreamingResponse(events, media_type="text/event-stream")
    return await whole_answer(choices, answers, head, asked.n, request)


async def whole_answer(
    choices: list[Choice], answers: asyncio.Queue, head: dict[str, Any], n: int, request: Request
) -> Any:
    """Return the choices when all have ended; forget them as soon as the client has gone."""

    async def ended() -> None:
        async with contextlib.aclosing(follow_unbroken(choices, answers)) as states:
            async for _ in states:
                pass

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.create_task(ended()), asyncio.create_task(gone())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            return Response(status_code=499)  # nobody reads it
        await tasks[0]
    finally:
        for task in tasks:
            task.cancel()
    parts = [
        choice.next(choice.row.text, len(choice.row.new), choice.row.finish) for choice in choices
    ]
    return {**head, "choices": parts, "usage": usage(choices, n)}


async def stream_events(
    choices: list[Choice], answers: asyncio.Queue, head: dict[str, Any], asked: SamplingRequest
) -> AsyncIterator[str]:
    """Yield OpenAI's server-sent events."""
    counts = bool(asked.stream_options and asked.stream_options.include_usage)
    if counts:
        head = {**head, "usage": None}
    try:
        async with contextlib.aclosing(follow_unbroken(choices, answers)) as states:
            async for number, length, *state in states:
                choice = choices[number]
                if part := choice.next(choice.row.text[:length], *state):
                    yield event({**head, "choices": [part]})
        if counts:
            yield event({**head, "choices": [], "usage": usage(choices, asked.n)})
    except Refusal as error:
        yield event(error.body())
    yield "data: [DONE]\n\n"


def event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"


def usage(choices: list[Choice], n: int) -> dict[str, int]:
    """Count tokens. A prompt counts once, however many choices it has."""
    prompt = sum(len(choice.row.prompt) for choice in choices[::n])
    new = sum(len(choice.row.new) for choice in choices)
    return {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}
