"""Continue a list of prompts, sorted by length, with results in the order of the list."""

from collections.abc import Callable

from toolkit.writing.continuation import Continuation
from toolkit.writing.generator import Generator
from toolkit.writing.sampling import Sampling


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
