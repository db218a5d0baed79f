"""Requests' prompts as token ids, without making other clients wait for a long one."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

from transformers import PreTrainedTokenizerFast

from toolkit.corpus.conversations import Message
from toolkit.corpus.token_text import spells
from toolkit.corpus.tokenizing import PIECE_CHARACTERS
from toolkit.serving.request import Refusal
from toolkit.writing.chat import chat_ids
from toolkit.writing.generator import Generator
from toolkit.writing.sampling import all_prompt_ids

LONG = ThreadPoolExecutor(1, "long-prompts")
Result = TypeVar("Result")
TOO_LONG = {"code": "context_length_exceeded", "param": "prompt"}


async def prompt_tokens(prompt: str | list[int], generator: Generator) -> list[int]:
    """Return the token ids; refuse those that are none, or more than the model has positions."""
    tokenizer, positions = generator.tokenizer, generator.positions
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
    """Return all of a text's token ids."""
    return await unhurried(len(text), all_prompt_ids, text, tokenizer)


async def chat_tokens(
    messages: list[Message], tokenizer: PreTrainedTokenizerFast, room: int
) -> tuple[list[int], int]:
    """Return what `chat_ids` does."""
    length = sum(len(message.content) for message in messages)
    return await unhurried(length, chat_ids, messages, tokenizer, room)


async def unhurried(characters: int, work: Callable[..., Result], *given: Any) -> Result:
    """Do what takes long of a long text. Long ones wait for each other, and nobody for them."""
    if characters <= PIECE_CHARACTERS:
        return work(*given)
    return await asyncio.get_running_loop().run_in_executor(LONG, work, *given)


def too_long(length: str, positions: int) -> Refusal:
    return Refusal(f"the prompt has {length} the model's {positions} positions", **TOO_LONG)


@cache
def longest_entry(tokenizer: PreTrainedTokenizerFast) -> float:
    """Return a length in characters that no token of a text exceeds; infinity if none is known."""
    return max(map(len, tokenizer.get_vocab())) if spells(tokenizer) else float("inf")
