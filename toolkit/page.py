"""The web page of `--serve`: prompts for both models, and what the run's records say of them.

Written by hand, not with Gradio: that is 16 more packages, wants an older Pillow than ours, and
shows no alternatives to a token. The page's policy forbids the browser to ask any other host.
"""

import asyncio
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

from toolkit.command import UserError
from toolkit.completion_request import Refusal
from toolkit.engine import Busy, Engine, reporting_to
from toolkit.generator import Continuation
from toolkit.log_history import read_log
from toolkit.metrics_table import table_of
from toolkit.plots import PANELS, Story, draw_alone, draw_losses, draw_perplexities, panels_of
from toolkit.records import STEPS
from toolkit.report import data_facts, for_page, render, title_of
from toolkit.run_directory import RunDirectory
from toolkit.sampling import Sampling, encode, require_possible
from toolkit.trial import shortened

HERE = Path(__file__).parent
MOST_PROMPTS = 9  # of the run's, to choose from
LIKELIEST = 5  # tokens shown in the place of each
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}
CONTROLS = {  # setting: title, step of the arrows, least
    "temperature": ("temperature", 0.1, 0),
    "top_p": ("top-p", 0.05, 0),
    "top_k": ("top-k", 1, 0),
    "max_new_tokens": ("new tokens", 10, 1),
    "repetition_penalty": ("repetition penalty", 0.05, 0),
    "seed": ("seed", 1, 0),
}


class Asked(BaseModel):
    """What the page sends: a prompt, and the values of its controls."""

    model_config = ConfigDict(extra="forbid")
    prompt: str
    temperature: float
    top_p: float
    top_k: int
    max_new_tokens: int
    repetition_penalty: float
    seed: int


def add_page(app: FastAPI, engine: Engine, run: RunDirectory, sampling: Sampling) -> None:
    """Serve the page at /. `sampling`: what its controls begin with."""
    tuned = engine.generators["tuned"]
    facts = page_facts(run, shortened(sampling, tuned.model.config.n_positions // 2))
    page = render("page.html", facts)

    @app.get("/")
    def index() -> HTMLResponse:
        return HTMLResponse(page, headers=HEADERS)

    @app.get("/page.js")
    def script() -> FileResponse:
        return FileResponse(HERE / "page.js", media_type="text/javascript", headers=HEADERS)

    @app.get("/report.html")
    def report() -> FileResponse:
        if not (run.path / "report.html").exists():
            raise Refusal("this run has no report; run step 9", 404)
        return FileResponse(run.path / "report.html", headers=HEADERS)

    @app.post("/continue")
    async def continue_both(asked: Asked) -> StreamingResponse:
        answers: asyncio.Queue = asyncio.Queue()
        rows = rows_of(asked, sampling, engine, answers)
        try:
            for name, row in rows.items():
                engine.submit(name, [row])
        except Busy:
            cancel(rows)
            raise
        lines = pieces(rows, answers, tuned.tokenizer)
        return StreamingResponse(lines, media_type="application/x-ndjson")


def rows_of(
    asked: Asked, sampling: Sampling, engine: Engine, answers: asyncio.Queue
) -> dict[str, Continuation]:
    """Return a continuation for each model; each reports to `answers` under its name."""
    if not asked.prompt.strip():
        raise Refusal("prompt is empty: type the beginning of a text")
    if not 0 <= asked.seed < 2**32:
        raise Refusal(f"seed must lie between 0 and 2**32 - 1, got {asked.seed}")
    wanted = asked.model_dump(exclude={"prompt", "seed"})
    sampling = dataclasses.replace(sampling, num_samples=1, **wanted)
    try:
        require_possible(sampling)
    except ValueError as error:
        raise Refusal(str(error)) from None
    rows = {}
    for name, generator in engine.generators.items():
        ids = encode(asked.prompt, generator.tokenizer)
        positions = generator.model.config.n_positions
        room, most = positions - len(ids), sampling.max_new_tokens
        if room < 1:
            raise Refusal(f"prompt has {len(ids)} tokens, the model {positions} positions")
        if most > room:
            raise Refusal(
                f"max_new_tokens must be at most {room} after this prompt of {len(ids)} tokens, "
                f"got {most}"
            )
        progress = reporting_to(answers, name)
        rows[name] = Continuation(ids, sampling, asked.seed, likeliest=LIKELIEST, progress=progress)
    return rows


async def pieces(
    rows: dict[str, Continuation], answers: asyncio.Queue, tokenizer: PreTrainedTokenizerFast
) -> AsyncIterator[str]:
    """Yield a line of JSON for each piece of text a model adds, until all have ended.

    A piece is one token, or the few that make up one character. A listener who leaves early
    cancels what is not done.
    """
    told = dict.fromkeys(rows, (0, 0))  # characters and tokens
    open_rows = len(rows)
    try:
        while open_rows:
            name, length, count, finish = await answers.get()
            open_rows -= finish is not None
            characters, tokens = told[name]
            piece = rows[name].text[characters:length]
            event = {"model": name, "text": piece, "finish": finish, "tokens": count}
            if piece:
                told[name] = (length, count)
                event |= explain(rows[name], slice(tokens, count), piece, tokenizer)
            if piece or finish:
                yield json.dumps(event) + "\n"
    finally:
        cancel(rows)


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


def cancel(rows: dict[str, Continuation]) -> None:
    for row in rows.values():
        row.cancelled = True


def page_facts(run: RunDirectory, sampling: Sampling) -> dict[str, Any]:
    """Return what the page says, out of the records of the run; steps 8 and 9 may be missing."""
    records = {name: run.record(name) for name in STEPS[1 : STEPS.index("train_model") + 1]}
    results = {name: record["results"] for name, record in records.items()}
    metrics, no_figures = results_of("evaluate_model", run)
    _, no_report = results_of("visualize_performance", run)
    samples = results_of("generate", run)[0].get("samples") or metrics.get("samples", [])
    trained = results["train_model"]
    history = read_log(run.path / "log_history.jsonl")
    story = Story(history, trained["best_step"], trained["stopped_early"], metrics)
    panels = [draw for draw in panels_of(story, PANELS) if draw in (draw_losses, draw_perplexities)]
    missing = {"No test figures": no_figures, "No report": no_report}
    values = dataclasses.asdict(sampling) | {"seed": run.seed}
    return {
        "title": title_of(records),
        "run": run.path.name,
        "has_report": no_report is None,
        "prompts": [sample["prompt"] for sample in samples[:MOST_PROMPTS]],
        "controls": [
            {"name": name, "title": title, "step": step, "least": least, "value": values[name]}
            for name, (title, step, least) in CONTROLS.items()
        ],
        "plots": [for_page(draw_alone(draw, story)) for draw in panels],
        "missing": [
            f"{what}; do this, then serve again: {why}" for what, why in missing.items() if why
        ],
        **(table_of(metrics) if metrics else {"rows": []}),
        **data_facts(results, results["train_test_split"]["test_13_token_windows_in_train"]),
    }


def results_of(step: str, run: RunDirectory) -> tuple[dict[str, Any], str | None]:
    """Return a step's results and None; or nothing, and why not and what to run."""
    try:
        return run.results(step), None
    except UserError as error:
        return {}, str(error)
