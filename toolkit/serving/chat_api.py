"""OpenAI's /v1/chat/completions: conversations, answered in the form that training used."""

import asyncio
from typing import Any, Literal

from fastapi import FastAPI, Request
from pydantic import BaseModel, Field

from toolkit.corpus.conversations import Message, read_messages
from toolkit.serving.answer import Choice, give
from toolkit.serving.engine import Engine, reporting_to
from toolkit.serving.prompt_tokens import chat_tokens
from toolkit.serving.request import MOST_CHOICES, Refusal, SamplingRequest, Unsupported
from toolkit.writing.chat import answering
from toolkit.writing.continuation import Continuation
from toolkit.writing.generator import Generator

INSTEAD = (
    "this model has no chat template: it was not trained on conversations; ask /v1/completions "
    "with a prompt (client.completions.create), or train with --messages_column or --speaker"
)


class ResponseFormat(BaseModel):
    type: Literal["text"]


class ChatRequest(SamplingRequest):
    """A conversation to be answered."""

    messages: list[dict[str, Any]] = Field(min_length=1)
    n: int = Field(1, ge=1, le=MOST_CHOICES)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    response_format: ResponseFormat | None = None
    logprobs: Unsupported = None
    top_logprobs: Unsupported = None
    tools: Unsupported = None
    functions: Unsupported = None

    def most(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


class Turn(Choice):
    """What a client gets of an answer: whole as a message, or piece by piece as what is new."""

    def __init__(self, number: int, row: Continuation, generator: Generator, streamed: bool):
        super().__init__(number, row, generator.tokenizer, echo=False)
        self.streamed, self.begun = streamed, False

    def next(self, text: str, tokens: int, finish: str | None) -> dict[str, Any] | None:
        part = super().next(text.lstrip(), tokens, finish)  # it begins with the space of its form
        if part is None:
            return None
        said = {"content": part.pop("text")}
        if not self.begun:
            said = {"role": "assistant", **said}
        self.begun = True
        return {**part, "delta" if self.streamed else "message": said}


def add_chat(app: FastAPI, engine: Engine, conversations: bool) -> None:
    """Serve the route. `conversations`: whether the models have learned from such."""

    @app.post("/v1/chat/completions")
    async def chat(asked: ChatRequest, request: Request) -> Any:
        generator, answers = engine.generator(asked.model), asyncio.Queue()
        if not conversations:
            raise Refusal(INSTEAD, code="no_chat_template", param="messages")
        rows = await answers_to(asked, generator, answers)
        turns = [Turn(number, row, generator, asked.stream) for number, row in enumerate(rows)]
        engine.submit(asked.model, rows)
        kind = "chat.completion.chunk" if asked.stream else "chat.completion"
        return await give(turns, answers, asked, request, "chatcmpl", kind)


async def answers_to(
    asked: ChatRequest, generator: Generator, answers: asyncio.Queue
) -> list[Continuation]:
    """Return a continuation for each answer; a conversation too long loses its oldest turns."""
    messages: list[Message] = read_messages(asked.messages, "messages")
    positions, most = generator.positions, asked.most()
    kept_free = min(most or positions // 4, positions // 2)
    ids, _ = await chat_tokens(messages, generator.tokenizer, positions - kept_free)
    room = positions - len(ids)
    sampling = answering(asked.sampling(min(most or room, room)))
    drawn = asked.seed_drawn()
    return [
        Continuation(ids, sampling, drawn, sample, progress=reporting_to(answers, sample))
        for sample in range(asked.n)
    ]
