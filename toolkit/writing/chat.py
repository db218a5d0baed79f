"""A conversation to be answered, in the very form that training used."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from transformers import PreTrainedTokenizerFast

from toolkit.blocks.examples import fit
from toolkit.corpus.conversations import USER, Message, as_prompt
from toolkit.corpus.tokenizing import encode_text
from toolkit.run.command import UserError
from toolkit.writing.sampling import Sampling

# A model that has not learned where an answer ends would go on as the one who asks.
STOP = f"\n{USER.rstrip()}"


def as_asked(text: str) -> str:
    """Return what a model is given to answer a first message."""
    return as_prompt([Message("user", text)])[-1]


def answering(sampling: Sampling) -> Sampling:
    """Return the same sampling, which ends where somebody else speaks."""
    return replace(sampling, stop=(*sampling.stop, STOP))


def chat_ids(
    messages: Iterable[Message], tokenizer: PreTrainedTokenizerFast, room: int
) -> tuple[list[int], int]:
    """Return a conversation's token ids, up to the answer to come, and how many answers are lost.

    It loses its oldest turns until it fits `room` tokens; what the system says at the beginning
    stays. Raises UserError if the last message alone does not fit.
    """
    ids: list[int] = []
    stops = []
    for number, part in enumerate(as_prompt(messages)):
        ids += encode_text(part, tokenizer)
        if part and number % 2:
            ids.append(tokenizer.eos_token_id)
        stops.append(len(ids))
    kept, left_out = fit(np.array([*stops, len(ids)]), room)  # the answer to come: no token yet
    if not len(kept):
        raise UserError(
            f"the message is too long: with what must stay it has more than the {room} tokens that "
            "the model has room for beside the answer; say it in fewer words, or ask for fewer new "
            "tokens"
        )
    return [ids[place] for place in kept], left_out
