"""One prompt being continued: what was asked for, what has come so far, and how it ended."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from toolkit.writing.sampling import Sampling
from toolkit.writing.text_stream import TextStream


@dataclass(eq=False)
class Continuation:
    """One prompt being continued. Its result is in `new`, `text` and `finish`.

    `sample` tells continuations of one prompt and seed apart. `likeliest`: keep each token's log
    probability, and this many of the likeliest in its place; `score_prompt`: those of the prompt
    too. `progress` is called, in the thread that generates, after each token and at the end.
    `cancelled` may be set at any time.
    """

    prompt: list[int]
    sampling: Sampling
    seed: int
    sample: int = 0
    likeliest: int | None = None
    score_prompt: bool = False
    progress: Callable[["Continuation"], None] | None = None
    cancelled: bool = False
    new: list[int] = field(default_factory=list)  # token ids, without end-of-text
    logprobs: list[tuple[float, dict[int, float]]] = field(default_factory=list)
    prompt_logprobs: list[tuple[float, dict[int, float]] | None] = field(default_factory=list)
    finish: str | None = None  # "stop" or "length" when it has ended
    request: object = None  # the same for all that were submitted together
    stream: TextStream | None = None
    random: np.random.Generator | None = None

    @property
    def text(self) -> str:
        return self.stream.text if self.stream else ""

    @property
    def ending(self) -> str:
        """How it ended, in words: by itself, or cut off by its limit."""
        if self.finish == "stop":
            return "ended by itself" if self.text.strip() else "ended at once: no text"
        return f"cut at {len(self.new)} tokens"

    @property
    def columns(self) -> int:
        """Columns of the cache that it may come to need."""
        return len(self.prompt) + self.sampling.max_new_tokens


def conclude(row: Continuation, finish: str) -> None:
    row.stream.end()
    # The last characters may complete a stop string that could still have grown.
    row.finish = "stop" if row.stream.stopped else finish
    if row.progress:
        row.progress(row)


def token_logprobs(logits: torch.Tensor, token: int, count: int) -> tuple[float, dict[int, float]]:
    """Return a token's log probability, and the `count` likeliest tokens with theirs."""
    logprobs = logits.log_softmax(-1)
    best = logprobs.topk(min(count, len(logprobs)))
    found = dict(zip(best.indices.tolist(), best.values.tolist(), strict=True))
    return float(logprobs[token]), found
