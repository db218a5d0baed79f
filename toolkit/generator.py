"""Continue many prompts at once, in one batch that continuations join and leave at every token.

transformers' `generate` takes a batch whole, draws all its rows from one random generator, and goes
on until the last row has ended. Here each continuation has its own random numbers, so that what it
says does not depend on what else is in the batch, and the next one takes its place when it ends.
"""

import copy
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from toolkit.key_value_cache import KeyValueCache
from toolkit.precision import DTYPES
from toolkit.sampling import Sampling
from toolkit.text_stream import TextStream
from toolkit.token_choice import choose

MOST_ROWS = 64
MOST_CELLS = 16_384  # rows x columns of the cache: 1.2 GB for GPT-2 in float32
DRAWS = 2**32  # a random number is one of so many


@dataclass(eq=False)
class Continuation:
    """One prompt being continued. Its result is in `new`, `text` and `finish`.

    `sample` tells continuations of one prompt and seed apart. `likeliest`: keep each token's log
    probability, and this many of the likeliest in its place. `progress` is called, in the thread
    that generates, after each token and at the end. `cancelled` may be set at any time.
    """

    prompt: list[int]
    sampling: Sampling
    seed: int
    sample: int = 0
    likeliest: int | None = None
    progress: Callable[["Continuation"], None] | None = None
    cancelled: bool = False
    new: list[int] = field(default_factory=list)  # token ids, without end-of-text
    logprobs: list[tuple[float, dict[int, float]]] = field(default_factory=list)
    finish: str | None = None  # "stop" or "length" when it has ended
    stream: TextStream | None = None
    random: np.random.Generator | None = None

    @property
    def text(self) -> str:
        return self.stream.text if self.stream else ""

    @property
    def columns(self) -> int:
        """Columns of the cache that it may come to need."""
        return len(self.prompt) + self.sampling.max_new_tokens


class Generator:
    """A model that continues whatever is submitted, one token of every row at each `step`."""

    def __init__(
        self, model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, precision: str = "fp32"
    ):
        if precision != "fp32":
            model = copy.deepcopy(model).to(DTYPES[precision])
        self.model, self.tokenizer = model.eval(), tokenizer
        self.waiting: deque[Continuation] = deque()
        self.rows: list[Continuation] = []
        self.cache: KeyValueCache | None = None

    def submit(self, continuation: Continuation) -> None:
        """Queue a continuation: first come, first served. May be called from another thread."""
        continuation.stream = TextStream(self.tokenizer, continuation.sampling.stop)
        continuation.random = np.random.default_rng([continuation.seed, continuation.sample])
        self.waiting.append(continuation)

    def finish_all(self, continuations: Iterable[Continuation]) -> None:
        """Submit these, and generate until all have ended."""
        for continuation in continuations:
            self.submit(continuation)
        while self.busy:
            self.step()

    @property
    def busy(self) -> bool:
        return bool(self.rows or self.waiting)

    @torch.inference_mode()
    def step(self) -> None:
        """Let waiting continuations join where there is room; give every row its next token."""
        if self.rows:
            self.advance()
        if joining := self.admit():
            self.read_prompts(joining)

    def drop_all(self) -> list[Continuation]:
        """Forget everything under way and waiting, and return it."""
        dropped = [*self.rows, *self.waiting]
        self.waiting.clear()
        self.rows, self.cache = [], None
        return dropped

    def admit(self) -> list[Continuation]:
        joining: list[Continuation] = []
        columns = max((row.columns for row in self.rows), default=0)
        while self.waiting:
            count = len(self.rows) + len(joining) + 1
            columns = max(columns, self.waiting[0].columns)
            if count > 1 and (count > MOST_ROWS or count * columns > MOST_CELLS):
                break
            joining.append(self.waiting.popleft())
        return joining

    def read_prompts(self, joining: list[Continuation]) -> None:
        """Run the prompts through the model, padded on the left, and add them to the batch."""
        ids, real = pad_left([row.prompt for row in joining], self.model.device)
        fresh = KeyValueCache(real, self.model.config.n_layer)
        width = ids.shape[1]
        # Padding attends to itself: attention over nothing is not a number, and would spread.
        itself = torch.eye(width, dtype=torch.bool, device=ids.device)
        causal = torch.ones_like(itself).tril()
        mask = (causal & real[:, None, :] | itself)[:, None]
        logits = self.forward(ids, (real.cumsum(1) - 1).clamp(min=0), mask, fresh)
        if self.cache is None:
            self.cache = fresh
        else:
            self.cache.join(fresh)
        self.rows += joining
        self.take(joining, logits)

    def advance(self) -> None:
        """Run the newest token of every row through the model."""
        self.cache.add_column()
        real = self.cache.real
        newest = torch.tensor([[row.new[-1]] for row in self.rows], device=real.device)
        positions = real.sum(1, keepdim=True) - 1
        logits = self.forward(newest, positions, real[:, None, None, :], self.cache)
        self.take(list(self.rows), logits)

    def forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        mask: torch.Tensor,
        cache: KeyValueCache,
    ) -> torch.Tensor:
        """Return the logits after each row's last token: (rows, vocabulary), float32."""
        output: Any = self.model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        # Entries that the tokenizer does not have (a padded vocabulary) are no tokens.
        return output.logits[:, -1, : len(self.tokenizer)].float()

    def take(self, rows: list[Continuation], logits: torch.Tensor) -> None:
        """Choose each row's token, and let rows go that have ended."""
        for row, token in zip(rows, self.choose_all(rows, logits), strict=True):
            self.receive(row, token)
        kept = [number for number, row in enumerate(self.rows) if row.finish is None]
        if len(kept) < len(self.rows):
            self.rows = [self.rows[number] for number in kept]
            if self.rows:
                self.cache.keep(kept)
            else:
                self.cache = None

    def choose_all(self, rows: list[Continuation], logits: torch.Tensor) -> list[int]:
        """Return a token for each row; rows of the same settings are chosen for together."""
        groups: dict[Sampling, list[int]] = {}
        for number, row in enumerate(rows):
            groups.setdefault(row.sampling, []).append(number)
        chosen = [0] * len(rows)
        for sampling, numbers in groups.items():
            seen = [rows[number].prompt + rows[number].new for number in numbers]
            draws = [int(rows[number].random.integers(DRAWS)) / DRAWS for number in numbers]
            part = logits if len(numbers) == len(rows) else logits[numbers]
            for number, token in zip(
                numbers, choose(part, sampling, seen, draws).tolist(), strict=True
            ):
                chosen[number] = token
        for number, row in enumerate(rows):
            if row.likeliest is not None:
                row.logprobs.append(describe(logits[number], chosen[number], row.likeliest))
        return chosen

    def receive(self, row: Continuation, token: int) -> None:
        if token == self.tokenizer.eos_token_id:
            if row.likeliest is not None:
                row.logprobs.pop()
            return conclude(row, "stop")
        row.new.append(token)
        row.stream.add(token)
        if row.stream.stopped:
            conclude(row, "stop")
        elif len(row.new) == row.sampling.max_new_tokens or row.cancelled:
            conclude(row, "length")
        elif row.progress:
            row.progress(row)


def conclude(row: Continuation, finish: str) -> None:
    row.stream.end()
    # The last characters may complete a stop string that could still have grown.
    row.finish = "stop" if row.stream.stopped else finish
    if row.progress:
        row.progress(row)


def describe(logits: torch.Tensor, token: int, count: int) -> tuple[float, dict[int, float]]:
    """Return a token's log probability, and the `count` likeliest tokens with theirs."""
    logprobs = logits.log_softmax(-1)
    best = logprobs.topk(min(count, len(logprobs)))
    found = dict(zip(best.indices.tolist(), best.values.tolist(), strict=True))
    return float(logprobs[token]), found


def pad_left(rows: list[list[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids (rows, longest row), 0 where a row is shorter, and a mask of the real."""
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=device)
    real = torch.tensor([[False] * (width - len(row)) + [True] * len(row) for row in rows])
    return ids, real.to(device)
