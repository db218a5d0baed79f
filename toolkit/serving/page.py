"""The web page of `--serve`: prompts for both models, and what the run's records say of them.

Written by hand, not with Gradio: that is 16 more packages, wants an older Pillow than ours, and
shows no alternatives to a token. The page's policy forbids the browser to ask any other host.
"""

import asyncio
import contextlib
import dataclasses
import json
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict
from transformers import PreTrainedTokenizerFast

from toolkit.report.report import render
from toolkit.run.run_directory import RunDirectory
from toolkit.serving.engine import Busy, Engine, follow, reporting_to
from toolkit.serving.page_facts import page_facts
from toolkit.serving.prompt_tokens import text_tokens
from toolkit.serving.request import Refusal
from toolkit.writing.continuation import Continuation
from toolkit.writing.sampling import Sampling, require_possible, shortened

HERE = Path(__file__).parent
LIKELIEST = 5  # tokens shown in the place of each
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}


class Settings(BaseModel):
    """The values of the page's controls."""

    model_config = ConfigDict(extra="forbid")
    temperature: float
    top_p: float
    top_k: int
    max_new_tokens: int
    repetition_penalty: float
    seed: int


class Asked(Settings):
    prompt: str


def add_page(app: FastAPI, engine: Engine, run: RunDirectory, sampling: Sampling) -> None:
    """Serve the page at /. `sampling`: what its controls begin with."""
    tuned = engine.generators["tuned"]
    facts = page_facts(run, shortened(sampling, tuned.model.config.n_positions // 2))
    page = render("page.html", facts, HERE)

    @app.get("/")
    async def index() -> HTMLResponse:
        return HTMLResponse(page, headers=HEADERS)

    @app.get("/page.js")
    async def script() -> FileResponse:
        return FileResponse(HERE / "page.js", media_type="text/javascript", headers=HEADERS)

    @app.get("/report.html")
    def report() -> FileResponse:
        if not (run.path / "report.html").exists():
            raise Refusal("this run has no report; run step 9", 404)
        return FileResponse(run.path / "report.html", headers=HEADERS)

    @app.post("/continue")
    async def continue_both(asked: Asked) -> StreamingResponse:
        answers: asyncio.Queue = asyncio.Queue()
        rows, cut = await one_a_model(asked, sampling, engine, answers)
        submit_all(engine, rows)
        note = f"the first {cut} tokens of the prompt do not fit the context and are left out"
        lines = as_lines(rows, answers, tuned.tokenizer, note if cut else None)
        return StreamingResponse(lines, media_type="application/x-ndjson")


async def one_a_model(
    asked: Asked, sampling: Sampling, engine: Engine, answers: asyncio.Queue
) -> tuple[dict[str, Continuation], int]:
    """Return a continuation for each model, and how many tokens of the prompt were too many.

    Each reports to `answers` under its name.
    """
    if not asked.prompt.strip():
        raise Refusal("prompt is empty: type the beginning of a text")
    tuned = engine.generators["tuned"]
    sampling = sampling_of(asked, sampling, tuned.positions)
    ids = await text_tokens(asked.prompt, tuned.tokenizer)
    kept = ids[sampling.max_new_tokens - tuned.positions :]
    rows = {
        name: continuation(name, kept, sampling, asked.seed, answers) for name in engine.generators
    }
    return rows, len(ids) - len(kept)


def sampling_of(asked: Settings, sampling: Sampling, positions: int) -> Sampling:
    """Return the sampling that the page's controls ask for; the rest as it was."""
    most = asked.max_new_tokens
    if most >= positions:
        raise Refusal(f"max_new_tokens must be below the model's {positions} positions, got {most}")
    if not 0 <= asked.seed < 2**32:
        raise Refusal(f"seed must lie between 0 and 2**32 - 1, got {asked.seed}")
    controls = {name: getattr(asked, name) for name in Settings.model_fields if name != "seed"}
    sampling = dataclasses.replace(sampling, num_samples=1, **controls)
    try:
        require_possible(sampling)
    except ValueError as error:
        raise Refusal(str(error)) from None
    return sampling


def continuation(
    name: str, ids: list[int], sampling: Sampling, seed: int, answers: asyncio.Queue
) -> Continuation:
    """Return what reports to `answers` under a model's name, with the likeliest tokens."""
    progress = reporting_to(answers, name)
    return Continuation(ids, sampling, seed, likeliest=LIKELIEST, progress=progress)


def submit_all(engine: Engine, rows: dict[str, Continuation]) -> None:
    """Let every model write, or none."""
    try:
        for name, row in rows.items():
            engine.submit(name, [row])
    except Busy:
        for row in rows.values():
            row.cancelled = True
        raise


async def as_lines(
    rows: dict[str, Continuation],
    answers: asyncio.Queue,
    tokenizer: PreTrainedTokenizerFast,
    note: str | None,
) -> AsyncIterator[str]:
    """Yield a line of JSON for each piece of text a model adds, until all have ended.

    A piece is one token, or the few that make up one character. `note`: what the first line says.
    """
    if note:
        yield json.dumps({"note": note}) + "\n"
    told = dict.fromkeys(rows, (0, 0))  # characters and tokens
    async with contextlib.aclosing(follow(rows.values(), answers)) as states:
        async for name, length, count, finish in states:
            characters, tokens = told[name]
            piece = rows[name].text[characters:length]
            event = {"model": name, "text": piece, "finish": finish, "tokens": count}
            if piece:
                told[name] = (length, count)
                event |= explain(rows[name], slice(tokens, count), piece, tokenizer)
            if piece or finish:
                yield json.dumps(event) + "\n"


def explain(
    row: Continuation, part: slice, text: str, tokenizer: PreTrainedTokenizerFast
) -> dict[str, Any]:
    """Return the `probability` of a piece, and the `likeliest` tokens in the place of its first.

    Each of the latter is (text, probability, whether it was chosen); the chosen is among them.
    """
    chosen, logprobs = row.new[part], row.logprobs[part]
    probability = math.exp(sum(logprob for logprob, _ in logprobs))
    likeliest = [
        (tokenizer.decode([token], skip_special_tokens=True), math.exp(logprob), [token] == chosen)
        for token, logprob in (logprobs[0][1] if logprobs else {}).items()
    ]
    if not any(is_chosen for _, _, is_chosen in likeliest):
        likeliest.append((text, probability, True))
    return {"probability": probability, "likeliest": likeliest}
