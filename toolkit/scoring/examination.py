"""What base and tuned model both go through on the test split, and what comes of it."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from toolkit.corpus.tokenizing import encode_text
from toolkit.model.forward import GPT2LMHeadModel
from toolkit.run.files import write_atomically
from toolkit.scoring.losses import score_pieces
from toolkit.scoring.windows import Collate, Pieces
from toolkit.writing.continue_prompts import continue_all
from toolkit.writing.generator import Generator
from toolkit.writing.openings import Openings, openings
from toolkit.writing.sampling import EXAMINED, Sampling, shortened
from toolkit.writing.talks import continue_prompts
from toolkit.writing.text_stream import text_after

MOST_COMPLETIONS = 50  # examples that are completed for ROUGE


@dataclass(frozen=True)
class Examination:
    """The same for both models: what is scored, and what is to be continued.

    `window`: tokens of a window by which copying is found; None where it is not looked for.
    """

    test: Dataset
    tokenizer: PreTrainedTokenizerFast
    collate: Collate
    pieces: Pieces
    stride: int
    precision: str
    seed: int
    sampling: Sampling = EXAMINED
    window: int | None = None

    def openings(self) -> Openings:
        return openings(self.test, self.tokenizer)

    def lengthened(self, positions: int) -> Sampling:
        """Return how to continue them: long enough to hold a few windows, if the model has room."""
        longest = max(self.sampling.max_new_tokens, 2 * (self.window or 0))
        return shortened(replace(self.sampling, max_new_tokens=longest), positions * 3 // 4)

    def sampled(self, positions: int) -> dict[str, str | int]:
        """Return what the report says of the samples: where the prompts are from, and how long."""
        tokens = self.lengthened(positions).max_new_tokens
        return {"from": self.openings().source, "tokens": tokens}

    def examples(self) -> list[tuple[list[int], str]]:
        """Return prompt ids and reference text of the examples to complete; none of plain text.

        A conversation's reference is its last answer.
        """
        if "length" not in self.test.column_names:
            return []
        found = []
        for row in self.test.select(range(min(MOST_COMPLETIONS, len(self.test)))):
            ids, start = row["input_ids"][: int(row["length"])].tolist(), int(row["learned"][-2])
            found.append((ids[:start], text_after(ids[:start], ids[start:], self.tokenizer)))
        return found

    def as_texts(self, outcomes: dict[str, "Outcome"]) -> list[dict[str, Any]]:
        """Return prompts, each with both models' continuations and how these ended."""
        entries: list[dict[str, Any]] = [
            {"prompt": prompt, "endings": {}} for prompt, *_ in self.openings().prompts
        ]
        for name, outcome in outcomes.items():
            for number, entry in enumerate(entries):
                entry[name] = outcome.texts[number]
                entry["endings"][name] = outcome.endings[number]
        return entries


@dataclass(frozen=True)
class Outcome:
    """Of one model: `sums` by piece (see `score_pieces`), `samples` and greedy `completions`.

    `samples`: token ids, by prompt and continuation; `texts`, what they say, and `endings`, how
    they ended, in words. `completions`: text, by example.
    """

    sums: dict[str, np.ndarray]
    samples: list[list[list[int]]]
    completions: list[str]
    texts: list[list[str]]
    endings: list[list[str]]


def examine(model: GPT2LMHeadModel, exam: Examination, label: str) -> Outcome:
    """Score the test split, continue the prompts, and complete the examples."""
    sums = score_pieces(
        model, exam.test, exam.collate, exam.pieces, exam.stride, exam.precision, label
    )
    positions = model.config.n_positions
    generator = Generator(model, exam.tokenizer, exam.precision)
    sampling = exam.lengthened(positions)
    continued = continue_prompts(generator, exam.openings().prompts, sampling, exam.seed)
    samples = [[talk.new for talk in group] for group in continued]
    examples = exam.examples()
    longest = max((len(encode_text(text, exam.tokenizer)) for _, text in examples), default=0)
    greedy = Sampling(longest + 1, 0.0, 1.0, 0, 1, stop=exam.sampling.stop)
    settings = [shortened(greedy, positions - len(ids)) for ids, _ in examples]
    bar = tqdm(desc=f"{label}: completions", total=len(examples), leave=False)
    completed = continue_all(
        generator, [ids for ids, _ in examples], settings, exam.seed, bar.update
    )
    bar.close()
    completions = [group[0].text for group in completed]
    texts = [[talk.text for talk in group] for group in continued]
    endings = [[talk.ending for talk in group] for group in continued]
    return Outcome(sums, samples, completions, texts, endings)


def read_outcome(path: Path, key: str) -> Outcome | None:
    """Return an outcome that was kept under this key, or None."""
    try:
        with safe_open(path, "np") as file:
            rest = json.loads(file.metadata()["rest"])
            if rest.pop("key") != key:
                return None
            sums = {name: file.get_tensor(name) for name in ("nats", "correct", "tokens")}
        return Outcome(sums, **rest)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None


def keep_outcome(path: Path, key: str, outcome: Outcome) -> None:
    """Write an outcome with its key.

    One text holds all but the sums: of several, the order in the file differs from time to time.
    """
    rest = {"key": key, "samples": outcome.samples, "completions": outcome.completions}
    rest |= {"texts": outcome.texts, "endings": outcome.endings}
    write_atomically(path, save(outcome.sums, {"rest": json.dumps(rest)}))
