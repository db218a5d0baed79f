"""Continue many prompts at once, in one batch that continuations join and leave at every token.

transformers' `generate` takes a batch whole, draws all its rows from one random generator, and goes
on until the last row has ended. Here each continuation has its own random numbers, so that what it
says does not depend on what else is in the batch, and the next one takes its place when it ends.
"""

from collections import deque
from collections.abc import Iterable
from itertools import accumulate

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from toolkit.model.forward import GPT2LMHeadModel
from toolkit.writing.continuation import Continuation, conclude, token_logprobs
from toolkit.writing.decoder import Decoder
from toolkit.writing.sampling import Sampling
from toolkit.writing.text_stream import TextStream
from toolkit.writing.token_choice import choose

MOST_ROWS = 64
MOST_CACHE_BYTES = 12 * 10**8  # GPT-2 in float32: 16 rows of 1,024 tokens
MOST_READ = 2048  # tokens of prompts between two tokens of the rows that are there
MOST_TOGETHER = 64  # tokens of prompts in one pass: no more rows than a step has
DRAWS = 2**32  # a random number is one of so many


class Generator:
    """A model that continues whatever is submitted, one token of every row at each `step`."""

    def __init__(
        self, model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, precision: str = "fp32"
    ):
        self.model, self.tokenizer = model, tokenizer
        self.decoder = Decoder(model, precision)
        self.cache = self.decoder.empty_cache()
        self.waiting: deque[deque[Continuation]] = deque()  # by request, in turn
        self.rows: list[Continuation] = []

    def submit(self, *continuations: Continuation) -> None:
        """Queue the continuations of one request. May be called from another thread."""
        request = deque(continuations)
        for row in continuations:
            row.request = request
            row.stream = TextStream(self.tokenizer, row.sampling.stop, row.prompt)
            row.random = np.random.default_rng([row.seed, row.sample])
        self.waiting.append(request)

    def finish_all(self, continuations: Iterable[Continuation]) -> None:
        """Submit these, each on its own, and generate until all have ended."""
        for continuation in continuations:
            self.submit(continuation)
        while self.busy:
            self.step()

    @property
    def positions(self) -> int:
        """The longest context of the model, in tokens."""
        return self.model.config.n_positions

    @property
    def busy(self) -> bool:
        return bool(self.rows or self.waiting)

    @property
    def waiting_rows(self) -> int:
        """How many wait that have not been cancelled. May be asked from another thread."""
        requests = [tuple(request) for request in tuple(self.waiting)]
        return sum(not row.cancelled for request in requests for row in request)

    @torch.inference_mode()
    def step(self) -> None:
        """Let waiting continuations join where there is room; give every row its next token."""
        if self.rows:
            self.advance()
        if joining := self.admit():
            self.read_prompts(joining)

    def most_rows(self, columns: int) -> int:
        """Return how many rows the cache may have if it has so many columns."""
        config = self.model.config
        bytes_a_row = 2 * config.n_layer * config.n_embd * self.decoder.dtype.itemsize * columns
        return max(1, min(MOST_ROWS, MOST_CACHE_BYTES // bytes_a_row))

    def drop_all(self) -> list[Continuation]:
        """Forget everything under way and waiting, and return it."""
        dropped = [*self.rows, *(row for request in self.waiting for row in request)]
        self.waiting.clear()
        self.rows, self.cache = [], self.decoder.empty_cache()
        return dropped

    def admit(self) -> list[Continuation]:
        """Return who joins: requests take turns, and none takes more places than it leaves free."""
        joining: list[Continuation] = []
        columns = max((row.columns for row in self.rows), default=0)
        passed = 0  # requests, one after the other, that have their share
        while passed < len(self.waiting):
            request = self.waiting.popleft()
            if request[0].cancelled:
                conclude(request.popleft(), "length")
            else:
                there, wide = self.rows + joining, max(columns, request[0].columns)
                free = self.most_rows(wide) - len(there)
                read = sum(len(row.prompt) for row in [*joining, request[0]])
                # Nobody overtakes it: else one that needs much would never join.
                if free < 1 or (joining and read > MOST_READ):
                    self.waiting.appendleft(request)
                    break
                if sum(row.request is request for row in there) >= free:
                    self.waiting.append(request)
                    passed += 1
                    continue
                columns, passed = wide, 0
                joining.append(request.popleft())
            if request:
                self.waiting.append(request)
        return joining

    def read_prompts(self, joining: list[Continuation]) -> None:
        """Add rows to the batch, and run their prompts through the model, short ones together."""
        first = len(self.rows)
        self.rows += joining
        columns = max(row.columns for row in self.rows)
        self.cache.make_room(len(self.rows), columns, self.most_rows(columns))
        last = []
        while joining[len(last) :]:
            together = fitting(joining[len(last) :])
            prompts = [row.prompt for row in together]
            found = self.decoder.read(prompts, self.cache, first + len(last))
            for row, states in zip(together, found, strict=True):
                last.append(states[-1:])
                if row.score_prompt:
                    self.score_prompt(row, states)
        self.take(joining, self.decoder.logits(torch.cat(last)))

    def score_prompt(self, row: Continuation, hidden: torch.Tensor) -> None:
        row.prompt_logprobs.append(None)  # nothing foretells the first
        following = torch.tensor(row.prompt[1:])
        for states, tokens in zip(hidden[:-1].split(64), following.split(64), strict=True):
            logits = self.decoder.logits(states)[:, : len(self.tokenizer)]
            for scores, token in zip(logits, tokens.tolist(), strict=True):
                row.prompt_logprobs.append(token_logprobs(scores, token, row.likeliest))

    def advance(self) -> None:
        """Run the newest token of every row through the model."""
        lengths = [len(row.prompt) + len(row.new) - 1 for row in self.rows]
        newest = [row.new[-1] for row in self.rows]
        self.take(list(self.rows), self.decoder.step(newest, lengths, self.cache))

    def take(self, rows: list[Continuation], logits: torch.Tensor) -> None:
        """Choose each row's token, and let rows go that have ended."""
        # Entries that the tokenizer does not have (a padded vocabulary) are no tokens.
        logits = logits[:, : len(self.tokenizer)]
        for row, token in zip(rows, self.choose_all(rows, logits), strict=True):
            self.receive(row, token)
        for number in reversed(range(len(self.rows))):
            if self.rows[number].finish:
                self.remove(number)
        if not self.rows:
            self.cache = self.decoder.empty_cache()

    def remove(self, number: int) -> None:
        """Take a row out of the batch; the last one moves to its place."""
        last = self.rows.pop()
        if number < len(self.rows):
            self.rows[number] = last
            self.cache.move(len(self.rows), number)

    def choose_all(self, rows: list[Continuation], logits: torch.Tensor) -> list[int]:
        """Return a token for each row; rows of the same settings are chosen for together."""
        groups: dict[Sampling, list[int]] = {}
        for number, row in enumerate(rows):
            groups.setdefault(row.sampling, []).append(number)
        chosen = [0] * len(rows)
        for sampling, numbers in groups.items():
            seen = []
            if sampling.repetition_penalty != 1:  # else nobody asks, and it grows with every token
                seen = [rows[number].prompt + rows[number].new for number in numbers]
            draws = [int(rows[number].random.integers(DRAWS)) / DRAWS for number in numbers]
            part = logits if len(numbers) == len(rows) else logits[numbers]
            for number, token in zip(
                numbers, choose(part, sampling, seen, draws).tolist(), strict=True
            ):
                chosen[number] = token
        for number, row in enumerate(rows):
            if row.likeliest is not None:
                row.logprobs.append(token_logprobs(logits[number], chosen[number], row.likeliest))
        return chosen

    def receive(self, row: Continuation, token: int) -> None:
        ends = token == self.tokenizer.eos_token_id
        if ends or not row.sampling.max_new_tokens:
            if row.likeliest is not None:
                row.logprobs.pop()
            return conclude(row, "stop" if ends and row.sampling.max_new_tokens else "length")
        row.new.append(token)
        row.stream.add(token)
        if row.stream.stopped:
            conclude(row, "stop")
        elif len(row.new) == row.sampling.max_new_tokens or row.cancelled:
            conclude(row, "length")
        elif row.progress:
            row.progress(row)


def fitting(rows: list[Continuation]) -> list[Continuation]:
    """Return the first rows, at least one, whose prompts go through the model together."""
    ends = accumulate(len(row.prompt) for row in rows)
    return rows[: max(1, sum(end <= MOST_TOGETHER for end in ends))]
