"""OpenAI's /v1/completions and /v1/models over generators, all requests in one batch a model.

Not `transformers serve`: it wants its launch string as the model's name, answers 500 where a text
outgrows the context, and heeds temperature only if the model's folder says so.
"""

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from toolkit.engine import Busy, Engine
from toolkit.generator import Continuation, Generator
from toolkit.sampling import Sampling, encode

MOST_BYTES = 1 << 20  # of a request
MOST_BYTES_SKIPPED = 64 << 20  # of a request that is too large
MOST_CHOICES = 64  # prompts x n of a request


class Refusal(Exception):
    """A request that is answered with an error in OpenAI's shape."""

    def __init__(self, message: str, status: int = 400, code: str | None = None):
        super().__init__(message)
        self.status, self.code = status, code


class CompletionRequest(BaseModel):
    """What a client may ask for; a name that is not here is refused."""

    model_config = ConfigDict(extra="forbid")
    model: str
    prompt: str | list[str] = Field(min_length=1)
    max_tokens: int = Field(16, ge=1)
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    min_p: float = Field(0.0, ge=0, le=1)
    repetition_penalty: float = Field(1.0, ge=0.01, le=100)
    n: int = Field(1, ge=1)
    stop: str | list[str] | None = None
    seed: int | None = Field(None, ge=0, lt=2**32)
    stream: bool = False
    logprobs: Literal[None] = None
    echo: Literal[False] = False
    user: str | None = None

    def sampling(self) -> Sampling:
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(stop) > 4 or not all(stop):
            raise Refusal("stop: must be up to 4 texts, none of them empty")
        return Sampling(
            self.max_tokens,
            self.temperature,
            self.top_p,
            self.top_k,
            1,
            self.min_p,
            self.repetition_penalty,
            tuple(stop),
        )


def completions_app(generators: dict[str, Generator]) -> FastAPI:
    """Return the app. `generators`: by the model's name, as clients say it."""
    engine = Engine(generators)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        engine.thread.start()
        yield
        await asyncio.to_thread(engine.close)

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.engine = engine
    app.add_exception_handler(Refusal, lambda _, error: refuse(error))
    app.add_exception_handler(
        Busy, lambda _, error: refuse(Refusal(str(error), 503, "server_busy"))
    )
    app.add_exception_handler(
        RequestValidationError, lambda _, error: refuse(Refusal(first_fault(error)))
    )
    started = int(time.time())

    @app.middleware("http")
    async def limit_size(request: Request, answer: Any) -> Any:
        length = request.headers.get("content-length", "")
        if request.method == "POST" and not length.isdecimal():
            return refuse(Refusal("the request must say its Content-Length", 411))
        if length and int(length) > MOST_BYTES:
            if int(length) <= MOST_BYTES_SKIPPED:  # a client that is still sending reads no answer
                async for _ in request.stream():
                    pass
            return refuse(Refusal(f"the request is larger than {MOST_BYTES:,} bytes", 413))
        return await answer(request)

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        common = {"object": "model", "created": started, "owned_by": "this machine"}
        return {"object": "list", "data": [{"id": name, **common} for name in generators]}

    @app.post("/v1/completions")
    async def completions(request: CompletionRequest) -> Any:
        if request.model not in generators:
            known = ", ".join(generators)
            message = f"model {request.model}: there is none; there are {known}"
            raise Refusal(message, 404, "model_not_found")
        answers: asyncio.Queue = asyncio.Queue()
        rows = rows_of(request, generators[request.model], answers)
        engine.submit(request.model, rows)
        head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": request.model,
        }
        if request.stream:
            events = stream_events(rows, answers, head)
            return StreamingResponse(events, media_type="text/event-stream")
        return await whole_answer(rows, answers, head, request.n)

    return app


def rows_of(
    request: CompletionRequest, generator: Generator, answers: asyncio.Queue
) -> list[Continuation]:
    """Return a continuation for each choice; each puts (its number, itself) in `answers`."""
    prompts = [request.prompt] if isinstance(request.prompt, str) else request.prompt
    if len(prompts) * request.n > MOST_CHOICES:
        raise Refusal(f"prompt, n: {len(prompts)} x {request.n} is above {MOST_CHOICES} choices")
    positions, most = generator.model.config.n_positions, request.max_tokens
    sampling, seed = request.sampling(), request.seed
    loop, rows = asyncio.get_running_loop(), []
    for prompt in prompts:
        ids = encode(prompt, generator.tokenizer)
        if len(ids) + most > positions:
            raise Refusal(
                f"the prompt has {len(ids)} tokens and max_tokens is {most}; together they must "
                f"not be above the model's {positions} positions",
                code="context_length_exceeded",
            )
        for sample in range(request.n):
            number = len(rows)

            def progress(row: Continuation, number: int = number) -> None:
                with contextlib.suppress(RuntimeError):  # the loop has ended: nobody listens
                    text, finish = row.text, row.finish
                    loop.call_soon_threadsafe(answers.put_nowait, (number, text, finish))

            drawn = secrets.randbits(32) if seed is None else seed
            rows.append(Continuation(ids, sampling, drawn, sample, progress=progress))
    return rows


async def follow(
    rows: list[Continuation], answers: asyncio.Queue
) -> AsyncIterator[tuple[int, str, str | None]]:
    """Yield (choice, text so far, why it ended or None) until all have ended.

    A listener who leaves early cancels what is not done.
    """
    open_rows = len(rows)
    try:
        while open_rows:
            number, text, finish = await answers.get()
            if finish == "error":
                raise Refusal("the server failed to generate", 500, "server_error")
            open_rows -= finish is not None
            yield number, text, finish
    finally:
        for row in rows:
            row.cancelled = True


async def whole_answer(
    rows: list[Continuation], answers: asyncio.Queue, head: dict[str, Any], n: int
) -> dict[str, Any]:
    async for _ in follow(rows, answers):
        pass
    choices = [choice(number, row.text, row.finish) for number, row in enumerate(rows)]
    usage = {
        "prompt_tokens": sum(len(row.prompt) for row in rows[::n]),
        "completion_tokens": sum(len(row.new) for row in rows),
    }
    usage["total_tokens"] = sum(usage.values())
    return {**head, "choices": choices, "usage": usage}


async def stream_events(
    rows: list[Continuation], answers: asyncio.Queue, head: dict[str, Any]
) -> AsyncIterator[str]:
    sent = [0] * len(rows)
    try:
        async for number, text, finish in follow(rows, answers):
            piece, sent[number] = text[sent[number] :], len(text)
            if piece or finish:
                event = {**head, "choices": [choice(number, piece, finish)]}
                yield f"data: {json.dumps(event)}\n\n"
    except Refusal as error:
        yield f"data: {json.dumps(body_of(error))}\n\n"
    yield "data: [DONE]\n\n"


def choice(number: int, text: str, finish: str | None) -> dict[str, Any]:
    return {"index": number, "text": text, "logprobs": None, "finish_reason": finish}


def body_of(error: Refusal) -> dict[str, Any]:
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    return {"error": {"message": str(error), "type": kind, "param": None, "code": error.code}}


def refuse(error: Refusal) -> JSONResponse:
    return JSONResponse(body_of(error), error.status)


def first_fault(error: RequestValidationError) -> str:
    fault = error.errors()[0]
    where = ".".join(str(part) for part in fault["loc"][1:]) or "body"
    return f"{where}: {fault['msg']}"
