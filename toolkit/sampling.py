"""Continue prompts with a model: sampled or greedy, seeded, never past the model's context."""

from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset
from transformers import (
    GenerationConfig,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    TextStreamer,
    set_seed,
)

from toolkit.command import UserError


@dataclass(frozen=True)
class Sampling:
    """How to pick the next token: `temperature` 0 is greedy; `top_k` 0, `top_p` 1 cut nothing."""

    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    num_samples: int


def continue_prompt(
    model: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerFast,
    prompt: str,
    sampling: Sampling,
    seed: int,
    stream: bool = False,
) -> list[str]:
    """Return `num_samples` continuations (without the prompt), each up to its end-of-text.

    An empty prompt starts a document. A prompt too long for the context keeps its end.
    `stream` prints the one sample while it grows.
    """
    ids = prompt_ids(prompt, tokenizer, model.config.n_positions, sampling.max_new_tokens)
    streamer = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    found = continue_ids(
        model, ids, sampling, tokenizer.eos_token_id, seed, streamer if stream else None
    )
    return [tokenizer.decode(row, skip_special_tokens=True) for row in found]


def continue_ids(
    model: GPT2LMHeadModel,
    ids: list[int],
    sampling: Sampling,
    end_of_text: int,
    seed: int,
    streamer: TextStreamer | None = None,
) -> list[list[int]]:
    """Return the new token ids of `num_samples` continuations, without end-of-text."""
    tokens = torch.tensor([ids], device=model.device)
    set_seed(seed)
    with torch.inference_mode():
        output = model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            generation_config=as_generation_config(sampling, end_of_text),
            streamer=streamer,
        )
    return [[token for token in row[len(ids) :] if token != end_of_text] for row in output.tolist()]


def prompt_ids(
    prompt: str, tokenizer: PreTrainedTokenizerFast, positions: int, new_tokens: int
) -> list[int]:
    """Return the prompt's last tokens that leave room for the new ones."""
    room = positions - new_tokens
    if room < 1:
        raise UserError(
            f"--max_new_tokens {new_tokens}: the model has {positions} positions; ask for fewer"
        )
    ids = tokenizer.backend_tokenizer.encode(prompt, add_special_tokens=False).ids
    return (ids or [tokenizer.eos_token_id])[-room:]


def as_generation_config(sampling: Sampling, end_of_text: int) -> GenerationConfig:
    ends = {"eos_token_id": end_of_text, "pad_token_id": end_of_text, "bos_token_id": end_of_text}
    if sampling.temperature == 0:
        many = sampling.num_samples  # greedy has one answer; it is repeated as often as asked
        return GenerationConfig(
            max_new_tokens=sampling.max_new_tokens, num_return_sequences=many, **ends
        )
    return GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        do_sample=True,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        num_return_sequences=sampling.num_samples,
        **ends,
    )


def openings(
    blocks: Dataset, tokenizer: PreTrainedTokenizerFast, count: int, words: int
) -> list[str]:
    """Return the first words of up to `count` documents in the blocks; of examples, the prompts."""
    found = []
    for block in blocks:
        if "length" in block:
            prompt = block["input_ids"][: int(block["prompt_tokens"])]
            found += [tokenizer.decode(prompt)] if len(found) < count else []
            continue
        starts = np.flatnonzero(block["input_ids"] == tokenizer.eos_token_id) + 1
        for start in starts:
            text = tokenizer.decode(block["input_ids"][start : start + 4 * words]).lstrip()
            line, end, _ = text.partition("\n")
            opening = line.split(" ")[:words]
            whole = end or len(line.split(" ")) > words  # else the last word may be cut
            if whole and line.strip() and len(found) < count:
                found.append(" ".join(opening).rstrip())
    return found or [""]
