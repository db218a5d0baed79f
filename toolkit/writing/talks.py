"""Samples: prompts continued, and conversations in which the model answers turn after turn."""

from collections.abc import Callable, Sequence

from transformers import PreTrainedTokenizerFast

from toolkit.corpus.tokenizing import encode_text
from toolkit.writing.continuation import Continuation
from toolkit.writing.generator import Generator
from toolkit.writing.sampling import Sampling, prompt_ids


class Talk:
    """A prompt and its continuation; or a conversation, in which others' turns are given.

    `text`: what comes after the first of the `given`; `new`: the token ids of what the model says
    of it; `ending`: how its last answer ended, in words.
    """

    def __init__(self, given: Sequence[str]):
        self.given, self.answers = given, 0
        self.text, self.ending = "", ""
        self.ids: list[int] = []  # all that was said
        self.new: list[int] = []

    def to_be_answered(self, generator: Generator, most: int) -> list[int] | None:
        """Return the token ids of what is to be answered next, None if nothing is.

        A prompt too long for the context keeps its end; a conversation ends there.
        """
        if self.answers == len(self.given):
            return None
        part, positions = self.given[self.answers], generator.positions
        if not self.answers:
            return prompt_ids(part, generator.tokenizer, positions, most)
        ids = [*self.ids, *encode_text(part, generator.tokenizer)]
        return ids if len(ids) + most <= positions else None

    def take(self, row: Continuation, tokenizer: PreTrainedTokenizerFast) -> None:
        """Take over an answer."""
        self.text += (f"\n{self.given[self.answers]}" if self.answers else "") + row.text
        self.new += row.new
        self.ids = [*row.prompt, *encode_text(row.text, tokenizer), tokenizer.eos_token_id]
        self.ending, self.answers = row.ending, self.answers + 1


def continue_prompts(
    generator: Generator,
    given: Sequence[Sequence[str]],
    sampling: Sampling,
    seed: int,
    done: Callable[[], object] = lambda: None,
) -> list[list[Talk]]:
    """Return `num_samples` continuations of each prompt, or of each conversation.

    `given`: of a prompt it alone, of a conversation what others say in turn. An empty prompt starts
    a document. Number n is continued from seed + n, alone as among others. `done` is called at each
    one's end.
    """
    talks = [[Talk(parts) for _ in range(sampling.num_samples)] for parts in given]
    going = [
        (talk, seed + number, sample)
        for number, group in enumerate(talks)
        for sample, talk in enumerate(group)
    ]
    while going:
        asked = []
        for talk, own_seed, sample in going:
            ids = talk.to_be_answered(generator, sampling.max_new_tokens)
            if ids is None:
                done()
            else:
                asked.append((talk, Continuation(ids, sampling, own_seed, sample)))
        rows = [row for _, row in asked]
        generator.finish_all(sorted(rows, key=lambda row: row.columns, reverse=True))
        for talk, row in asked:
            talk.take(row, generator.tokenizer)
        going = [(talk, row.seed, row.sample) for talk, row in asked]
    return talks
