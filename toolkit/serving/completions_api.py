"""OpenAI's /v1/completions and /v1/models over generators, all requests in one batch a model.

What a client may ask for is in request.py, what it is answered in answer.py and errors.py, who may
ask in guard.py, how much and how slowly it may send in request_body.py and connections.py.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Collection
from typing import Any

from fastapi import FastAPI, Request
from starlette.middleware.cors import CORSMiddleware

from toolkit.serving.answer import Choice, give
from toolkit.serving.engine import Engine, reporting_to
from toolkit.serving.errors import KINDS, answer_error
from toolkit.serving.guard import Guard
from toolkit.serving.prompt_tokens import prompt_tokens, too_long
from toolkit.serving.request import CompletionRequest, Refusal
from toolkit.serving.request_body import LimitedBody
from toolkit.writing.continuation import Continuation
from toolkit.writing.generator import Generator


def completions_app(
    generators: dict[str, Generator],
    names: Collection[str] | None = None,
    origins: Collection[str] = (),
) -> FastAPI:
    """Return the app. `generators`: by the model's name, as clients say it.

    `names`: hosts that it answers as; None: as any. `origins`: of pages elsewhere that may ask.
    """
    engine = Engine(generators)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        engine.thread.start()
        yield
        await asyncio.to_thread(engine.close)

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.engine = engine
    if origins:
        allowed = {"allow_origins": origins, "allow_methods": ["GET", "POST"]}
        app.add_middleware(CORSMiddleware, allow_headers=["*"], **allowed)
    app.add_middleware(Guard, names=names, origins=origins)
    app.add_middleware(LimitedBody)  # the last one added is the first to see a request
    for kind in KINDS:
        app.add_exception_handler(kind, answer_error)
    common = {"object": "model", "created": int(time.time()), "owned_by": "this machine"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": name, **common} for name in generators]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        engine.generator(name)
        return {"id": name, **common}

    @app.get("/health")
    async def health() -> dict[str, str]:
        if not engine.thread.is_alive():
            raise Refusal("the generating thread has ended", 503)
        return {"status": "ok"}

    @app.post("/v1/completions")
    async def completions(asked: CompletionRequest, request: Request) -> Any:
        generator, answers = engine.generator(asked.model), asyncio.Queue()
        rows = await continuations_for(asked, generator, answers)
        choices = [
            Choice(number, row, generator.tokenizer, asked.echo) for number, row in enumerate(rows)
        ]
        engine.submit(asked.model, rows)
        return await give(choices, answers, asked, request, "cmpl", "text_completion")

    return app


async def continuations_for(
    asked: CompletionRequest, generator: Generator, answers: asyncio.Queue
) -> list[Continuation]:
    """Return a continuation for each choice, which reports to `answers` under its number."""
    rows, positions = [], generator.model.config.n_positions
    for prompt in asked.prompt:
        ids = await prompt_tokens(prompt, generator)
        room = positions - len(ids)
        if not room and asked.max_tokens:
            raise too_long(f"{len(ids)} tokens, which leave no room for another in", positions)
        sampling = asked.sampling(min(asked.max_tokens, room))
        drawn = asked.seed_drawn()
        for sample in range(asked.n):
            progress = reporting_to(answers, len(rows))
            prompt_too = asked.echo and asked.logprobs is not None
            rows.append(
                Continuation(
                    ids, sampling, drawn, sample, asked.logprobs, prompt_too, progress=progress
                )
            )
    return rows
