"""OpenAI's /v1/completions and /v1/models over generators, all requests in one batch a model.

What a client may ask for is in request.py, what it is answered in answer.py, how much and how
slowly it may send in request_body.py.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from toolkit.run.command import UserError
from toolkit.serving.answer import Choice, stream_events, whole_answer
from toolkit.serving.engine import Busy, Engine, reporting_to
from toolkit.serving.request import CompletionRequest, Refusal
from toolkit.serving.request_body import LimitedBody
from toolkit.writing.continuation import Continuation
from toolkit.writing.generator import Generator
from toolkit.writing.sampling import all_prompt_ids


def completions_app(generators: dict[str, Generator], hosts: list[str] | None = None) -> FastAPI:
    """Return the app. `generators`: by the model's name, as clients say it.

    `hosts`: names that it answers to; None: to any. A name of somebody else's that leads to a
    loopback address (DNS rebinding) would let a web page read what only this machine may.
    """
    engine = Engine(generators)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        engine.thread.start()
        yield
        await asyncio.to_thread(engine.close)

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.engine = engine
    app.add_middleware(LimitedBody)
    if hosts is not None:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
    for kind in (
        Refusal,
        UserError,
        Busy,
        RequestValidationError,
        HTTPException,
        Exception,
    ):
        app.add_exception_handler(kind, answer_error)
    common = {"object": "model", "created": int(time.time()), "owned_by": "this machine"}

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": name, **common} for name in generators]}

    @app.get("/v1/models/{name:path}")
    def model(name: str) -> dict[str, Any]:
        engine.generator(name)
        return {"id": name, **common}

    @app.get("/health")
    def health() -> dict[str, str]:
        if not engine.thread.is_alive():
            raise Refusal("the generating thread has ended", 503)
        return {"status": "ok"}

    @app.post("/v1/completions")
    async def completions(asked: CompletionRequest, request: Request) -> Any:
        generator, answers = engine.generator(asked.model), asyncio.Queue()
        rows = continuations_for(asked, generator, answers)
        choices = [
            Choice(number, row, generator.tokenizer, asked.echo) for number, row in enumerate(rows)
        ]
        engine.submit(asked.model, rows)
        head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": asked.model,
        }
        if asked.stream:
            events = stream_events(choices, answers, head, asked)
            return StreamingResponse(events, media_type="text/event-stream")
        return await whole_answer(choices, answers, head, asked.n, request)

    return app


def continuations_for(
    asked: CompletionRequest, generator: Generator, answers: asyncio.Queue
) -> list[Continuation]:
    """Return a continuation for each choice, which reports to `answers` under its number."""
    sampling, rows = asked.sampling(asked.max_tokens), []
    for prompt in asked.prompt:
        ids = prompt_tokens(prompt, asked.max_tokens, generator)
        drawn = secrets.randbits(32) if asked.seed is None else asked.seed % 2**64
        for sample in range(asked.n):
            progress = reporting_to(answers, len(rows))
            prompt_too = asked.echo and asked.logprobs is not None
            rows.append(
                Continuation(
                    ids, sampling, drawn, sample, asked.logprobs, prompt_too, progress=progress
                )
            )
    return rows


def prompt_tokens(prompt: str | list[int], most: int, generator: Generator) -> list[int]:
    """Return the token ids; refuse those that are none, or that leave no room for the new ones."""
    tokenizer, positions = generator.tokenizer, generator.model.config.n_positions
    ids = all_prompt_ids(prompt, tokenizer) if isinstance(prompt, str) else prompt
    if not 0 <= min(ids) <= max(ids) < len(tokenizer):
        raise Refusal(f"prompt: token ids go from 0 to {len(tokenizer) - 1}", param="prompt")
    if len(ids) + most > positions:
        raise Refusal(
            f"the prompt has {len(ids)} tokens and max_tokens is {most}; together they must "
            f"not be above the model's {positions} positions",
            code="context_length_exceeded",
            param="prompt",
        )
    return ids


async def answer_error(_: Request, error: Exception) -> JSONResponse:
    """Answer any error in OpenAI's shape."""
    match error:
        case Refusal():
            refusal = error
        case UserError():
            refusal = Refusal(str(error))
        case Busy():
            refusal = Refusal(str(error), 503, "server_busy")
        case RequestValidationError():
            refusal = first_fault(error)
        case HTTPException():
            refusal = Refusal(f"{error.detail}", error.status_code)
        case _:
            refusal = Refusal("the server failed; its log says why", 500)
    return JSONResponse(refusal.body(), refusal.status, getattr(error, "headers", None))


def first_fault(error: RequestValidationError) -> Refusal:
    """Return what is wrong first, naming the field."""
    fault = error.errors()[0]
    where = [str(part) for part in fault["loc"][1:]]
    message = fault["msg"].removeprefix("Value error, ")
    if not where and ": " in message:  # fields that do not fit together: the message names them
        return Refusal(message, param=message.split(":")[0].split(",")[0])
    return Refusal(f"{'.'.join(where) or 'body'}: {message}", param=where[0] if where else None)
