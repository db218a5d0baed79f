"""What a client of /v1/completions is answered: all choices at the end, or events as they grow."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from toolkit.serving.choice import Choice
from toolkit.serving.engine import follow
from toolkit.serving.request import CompletionRequest, Refusal


async def follow_unbroken(choices: list[Choice], answers: asyncio.Queue) -> AsyncIterator[tuple]:
    """Yield what the choices' rows report; refuse if the server fails to generate one."""
    rows = [choice.row for choice in choices]
    async with contextlib.aclosing(follow(rows, answers)) as states:
        async for state in states:
            if state[-1] == "error":
                raise Refusal("the server failed to generate", 500)
            yield state


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
    choices: list[Choice], answers: asyncio.Queue, head: dict[str, Any], asked: CompletionRequest
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
