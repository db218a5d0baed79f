"""Continue a list of prompts, sorted by length, with results in the order of the list."""

from collections.abc import Callable

from transformers import PreTrainedTokenizerFast

from toolkit.model.forward import GPT2LMHeadModel
from toolkit.writing.continuation import Continuation
from toolkit.writing.generator import Generator
from toolkit.writing.sampling import Sampling, prompt_ids


def continue_prompts(
    model: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: list[str],
    sampling: Sampling,
    seed: int,
    precision: str = "fp32",
    done: Callable[[], object] = lambda: None,
) -> list[list[Continuation]]:
    """Return `num_samples` continuations of each prompt, each up to its end-of-text.

    An empty prompt starts a document. One too long for the context keeps its end. Prompt number n
    is continued from seed + n, alone as among others. `done` is called at each one's end.
    """
    positions, most = model.config.n_positions, sampling.max_new_tokens
    given = [prompt_ids(prompt, tokenizer, positions, most) for prompt in prompts]
    generator = Generator(model, tokenizer, precision)
    return continue_all(generator, given, [sampling] * len(given), seed, done)


def continue_all(
    generator: Generator,
    prompts: list[list[int]],
    samplings: list[Sampling],
    seed: int,
    done: Callable[[], object] = lambda: None,
) -> list[list[Continuation]]:
    """Return the ended continuations of each prompt (token ids). The longest go first."""

    def progress(row: Continuation) -> None:
        if row.finish:
            done()

    groups = [
        [
            Continuation(ids, sampling, seed + number, sample, progress=progress)
            for sample in range(sampling.num_samples)
        ]
        for number, (ids, sampling) in enumerate(zip(prompts, samplings, strict=True))
    ]
    rows = [row for group in groups for row in group]
    generator.finish_all(sorted(rows, key=lambda row: row.columns, reverse=True))
    return groups
