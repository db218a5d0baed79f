"""Requests' prompts as token ids, without making other clients wait for a long one."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from transformers import PreTrainedTokenizerFast

from toolkit.corpus.token_text import spells
from toolkit.corpus.tokenizing import PIECE_CHARACTERS
from toolkit.serving.request import Refusal
from toolkit.writing.generator import Generator
from toolkit.writing.sampling import all_prompt_ids

LONG = ThreadPoolExecutor(1, "long-prompts")
TOO_LONG = {"code": "context_length_exceeded", "param": "prompt"}


async def prompt_tokens(prompt: str | list[int], generator: Generator) -> list[int]:
    """Return the token ids; refuse those that are none, or more than the model has positions."""
    tokenizer, positions = generator.tokenizer, generator.model.config.n_positions
    if isinstance(prompt, str):
        if len(prompt) > positions * longest_entry(tokenizer):
            raise too_long(f"{len(prompt)} characters, which are more tokens than", positions)
        ids = await text_tokens(prompt, tokenizer)
    else:
        ids = prompt
    if not 0 <= min(ids) <= max(ids) < len(tokenizer):
        raise Refusal(f"prompt: token ids go from 0 to {len(tokenizer) - 1}", param="prompt")
    if len(ids) > positions:
        raise too_long(f"{len(ids)} tokens,", positions)
    return ids


async def text_tokens(text: str, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Return all of a text's token ids. Long texts wait for each other, and nobody for them."""
    if len(text) <= PIECE_CHARACTERS:
        return all_prompt_ids(text, tokenizer)
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(LONG, all_prompt_ids, text, tokenizer)


def too_long(length: str, positions: int) -> Refusal:
    return Refusal(f"the prompt has {length} the model's {positions} positions", **TOO_LONG)


@cache
def longest_entry(tokenizer: PreTrainedTokenizerFast) -> float:
    """Return a length in characters that no token of a text exceeds; infinity if none is known."""
    return max(map(len, tokenizer.get_vocab())) if spells(tokenizer) else float("inf")
