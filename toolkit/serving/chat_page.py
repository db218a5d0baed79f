"""The page's chat: both models answer, each in the conversation that it has had."""

import asyncio
from typing import Any

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from toolkit.corpus.conversations import read_messages
from toolkit.serving.engine import Engine
from toolkit.serving.page import Settings, as_lines, continuation, sampling_of, submit_all
from toolkit.serving.prompt_tokens import chat_tokens
from toolkit.serving.request import Refusal
from toolkit.writing.chat import answering
from toolkit.writing.sampling import Sampling


class AskedToAnswer(Settings):
    """What the page sends: the messages of each model's conversation, and its controls' values."""

    talks: dict[str, list[dict[str, Any]]]


def add_chat_page(app: FastAPI, engine: Engine, sampling: Sampling) -> None:
    """Serve what the page asks when its models have learned from conversations."""

    @app.post("/answer")
    async def answer_both(asked: AskedToAnswer) -> StreamingResponse:
        answers: asyncio.Queue = asyncio.Queue()
        if asked.talks.keys() != engine.generators.keys():
            raise Refusal(f"talks must hold those of {', '.join(engine.generators)}")
        positions, rows, lost = engine.generators["tuned"].positions, {}, 0
        settings = answering(sampling_of(asked, sampling, positions))
        for name, generator in engine.generators.items():
            messages = read_messages(asked.talks[name], f"talks.{name}")
            if not (messages and messages[-1].content.strip()):
                raise Refusal("prompt is empty: say something")
            room = generator.positions - settings.max_new_tokens
            ids, left_out = await chat_tokens(messages, generator.tokenizer, room)
            rows[name] = continuation(name, ids, settings, asked.seed, answers)
            lost = max(lost, left_out)
        submit_all(engine, rows)
        note = f"{lost} of the oldest answers do not fit the context and are left out"
        tokenizer = engine.generators["tuned"].tokenizer
        lines = as_lines(rows, answers, tokenizer, note if lost else None)
        return StreamingResponse(lines, media_type="application/x-ndjson")
