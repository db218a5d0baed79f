"""What a client of /v1/completions may ask for, and what it gets to hear if it may not."""

import secrets
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from toolkit.writing.sampling import LEAST_TEMPERATURE, Sampling

MOST_CHOICES = 64  # prompts x n of a request
PROMPT = "must be text, token ids, or a list of one of these, and not empty"


class Refusal(Exception):
    """A request that is answered with an error in OpenAI's shape."""

    def __init__(
        self, message: str, status: int = 400, code: str | None = None, param: str | None = None
    ):
        super().__init__(message)
        self.status, self.code, self.param = status, code, param

    def body(self) -> dict[str, Any]:
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        said = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": {name: value and sendable(value) for name, value in said.items()}}


def sendable(text: str) -> str:
    """Return text that UTF-8 can hold: a client's may have halves of characters."""
    return text.encode(errors="replace").decode()


def as_list(prompt: Any) -> list[str | list[int]]:
    """Return the prompts: texts, or token ids. Raises ValueError if it is none of what may be."""

    def is_prompt(entry: Any) -> bool:
        ids = isinstance(entry, list) and entry and all(type(token) is int for token in entry)
        return isinstance(entry, str) or bool(ids)

    prompts = [prompt] if is_prompt(prompt) else prompt
    if not isinstance(prompts, list) or not prompts or not all(map(is_prompt, prompts)):
        raise ValueError(PROMPT)
    return prompts


def only_default(value: Any) -> Any:
    """Refuse what is not done, but for the values with which it would change nothing."""
    if isinstance(value, bool) or value not in (0, "", {}):
        raise ValueError("is not supported; leave it out")
    return value


Unsupported = Annotated[Any, BeforeValidator(only_default)]


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    include_usage: bool = False
    include_obfuscation: bool = (
        False  # padding against listeners on the line, which may be left out
    )


class SamplingRequest(BaseModel):
    """What both routes take of OpenAI's fields, and top_k, min_p, repetition_penalty.

    Null is as good as left out.
    """

    model_config = ConfigDict(extra="forbid", strict=True)
    model: str
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=-1)
    min_p: float = Field(0.0, ge=0, le=1)
    repetition_penalty: float = Field(1.0, ge=0.01, le=100)
    n: int = Field(1, ge=1)
    stop: str | list[str] = []
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stream: bool = False
    stream_options: StreamOptions | None = None
    presence_penalty: Unsupported = 0
    frequency_penalty: Unsupported = 0
    logit_bias: Unsupported = {}
    user: str = ""

    @model_validator(mode="before")
    @classmethod
    def without_nulls(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        return {name: value for name, value in fields.items() if value is not None}

    @model_validator(mode="after")
    def samples_well(self) -> "SamplingRequest":
        if 0 < self.temperature < LEAST_TEMPERATURE:
            raise ValueError(f"temperature: must be 0 or at least {LEAST_TEMPERATURE:g}")
        if self.stream_options and not self.stream:
            raise ValueError("stream_options: only with stream")
        if len(self.stops) > 4 or not all(self.stops):
            raise ValueError("stop: must be up to 4 texts, none of them empty")
        return self

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop

    def seed_drawn(self) -> int:
        """Return the seed that is asked for, or one by chance."""
        return secrets.randbits(32) if self.seed is None else self.seed % 2**64

    def sampling(self, most_tokens: int) -> Sampling:
        return Sampling(
            most_tokens,
            self.temperature,
            self.top_p,
            max(0, self.top_k),  # -1 too means all, as in vLLM
            1,
            self.min_p,
            self.repetition_penalty,
            tuple(self.stops),
        )


class CompletionRequest(SamplingRequest):
    """A prompt, or several, to be continued."""

    prompt: Annotated[list[str | list[int]], BeforeValidator(as_list)]
    max_tokens: int = Field(16, ge=0)
    best_of: int = Field(1, ge=1)
    logprobs: int | None = Field(None, ge=0, le=5)
    echo: bool = False
    suffix: Unsupported = ""

    @model_validator(mode="after")
    def fits_together(self) -> "CompletionRequest":
        if self.best_of not in (1, self.n):
            raise ValueError("best_of: other than n is not supported; leave it out")
        if not self.max_tokens and not self.echo:
            raise ValueError("max_tokens: must be at least 1, or echo true")
        if len(self.prompt) * self.n > MOST_CHOICES:
            choices = f"{len(self.prompt)} x {self.n}"
            raise ValueError(f"prompt, n: {choices} is above {MOST_CHOICES} choices")
        return self
