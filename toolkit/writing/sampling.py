"""How to continue a prompt, and what may be asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from toolkit.run.command import UserError
from toolkit.run.lazily import lazily

with lazily():
    from transformers import PreTrainedTokenizerFast

    from toolkit.corpus.tokenizing import encode_text

SHORTEST_USUAL, LONGEST_USUAL = 40, 300  # new tokens, where nobody says how many
MOST_SEED = 2**32 - 1
LEAST_TEMPERATURE = 1e-5  # but for 0: below, logits over it are no numbers any more


@dataclass(frozen=True)
class Sampling:
    """How to pick the next token, and when to stop.

    `temperature` 0 is greedy; `top_k` 0, `top_p` 1, `min_p` 0 cut nothing; `repetition_penalty` 1
    leaves the tokens that were there already as likely as they are.
    """

    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    num_samples: int
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()


# How both models are sampled for copying and for the report.
EXAMINED = Sampling(max_new_tokens=60, temperature=0.8, top_p=0.95, top_k=50, num_samples=2)


def shortened(sampling: Sampling, most_tokens: int) -> Sampling:
    """Return the same sampling, its continuations at most this long."""
    tokens = max(1, min(sampling.max_new_tokens, most_tokens))
    return Sampling(**{**vars(sampling), "max_new_tokens": tokens})


def usual_new_tokens(split: dict[str, Any], positions: int) -> int:
    """Return how long a continuation may become where nobody says: half as long again as a text.

    `split`: step 5's results. Of examples what counts is all that is learned of one.
    """
    account = split["splits"]["test"]
    learned = account.get("tokens_learned", account["tokens_read"])
    suiting = math.ceil(1.5 * learned / max(1, account["documents"]) / 10) * 10
    longest = min(LONGEST_USUAL, 3 * positions // 4)
    return max(min(SHORTEST_USUAL, longest), min(suiting, longest))


def require_possible(settings: Any, prefix: str = "") -> None:
    """Raise ValueError, naming the setting, unless all settings make sense.

    `settings`: anything with attributes named like those of `Sampling`.
    """
    limits = {
        "max_new_tokens": (1, math.inf),
        "temperature": (0, 100),
        "top_k": (0, math.inf),
        "min_p": (0, 1),
        "repetition_penalty": (0.01, 100),
        "num_samples": (1, 1000),
    }
    for name, (least, most) in limits.items():
        value = getattr(settings, name)
        if value is None:  # left to us
            continue
        if not least <= value <= most:
            bound = f"at least {least}" if not value >= least else f"at most {most}"
            raise ValueError(f"{prefix}{name} must be {bound}, got {value}")
    if 0 < settings.temperature < LEAST_TEMPERATURE:
        raise ValueError(
            f"{prefix}temperature must be 0 (greedy) or at least {LEAST_TEMPERATURE:g}, "
            f"got {settings.temperature}"
        )
    if settings.temperature == 0 and settings.num_samples > 1:
        raise ValueError(
            f"{prefix}temperature 0 is greedy: it has one answer, so {prefix}num_samples must be "
            f"1, got {settings.num_samples}"
        )
    if not 0 < settings.top_p <= 1:
        raise ValueError(f"{prefix}top_p must lie above 0 and up to 1, got {settings.top_p}")
    if not all(settings.stop or ()):
        raise ValueError(f"{prefix}stop must not be empty")


def prompt_ids(
    prompt: str, tokenizer: PreTrainedTokenizerFast, positions: int, new_tokens: int
) -> list[int]:
    """Return the prompt's last tokens that leave room for the new ones."""
    require_room(new_tokens, positions)
    return all_prompt_ids(prompt, tokenizer)[new_tokens - positions :]


def require_room(new_tokens: int, positions: int, name: str = "--max_new_tokens") -> None:
    """Refuse continuations that leave no room for a prompt."""
    if new_tokens >= positions:
        raise UserError(f"{name} {new_tokens}: the model has {positions} positions; ask for fewer")


def all_prompt_ids(prompt: str, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Return the prompt's token ids; end-of-text, which comes before a document, if it is empty."""
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"the prompt is no text: half a character at {error.start}") from None
    return encode_text(prompt, tokenizer) or [tokenizer.eos_token_id]
