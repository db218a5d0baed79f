"""What generated text takes from the training split word for word, and how it repeats itself."""

from collections.abc import Iterable, Iterator

import numpy as np
from datasets import Dataset

from toolkit.blocks.window_hash import grow

BLOCKS_AT_ONCE = 2048
DISTINCT = (1, 2, 3)


def copied_runs(
    samples: list[list[int]], train: Iterable[np.ndarray], longest: int, window: int
) -> list[dict[str, int]]:
    """Return for each sample what of it stands in the training tokens word for word.

    `train`: stretches of token ids that overlap by `longest`, the length of the longest sample.
    Each entry: `longest_run`, the tokens of the sample's longest run that training also has;
    `windows`, its windows of `window` tokens; `copied_windows`, how many of them training also has.
    Runs are grown a token at a time from the places where all shorter ones matched.
    """
    hashes_of = [run_hashes_by_length(sample, longest) for sample in samples]
    known = [np.unique(np.concatenate(runs)) for runs in zip(*hashes_of, strict=True)]
    found = [np.zeros(len(hashes), bool) for hashes in known]
    for tokens in train:
        tokens = tokens.astype(np.uint64)
        places, hashes = np.arange(len(tokens)), np.zeros(len(tokens), np.uint64)
        for length in range(1, longest + 1):
            inside = places + length <= len(tokens)
            places = places[inside]
            hashes = grow(hashes[inside], tokens[places + length - 1])
            where = np.searchsorted(known[length - 1], hashes)
            where[where == len(known[length - 1])] = 0
            matched = known[length - 1][where] == hashes if len(known[length - 1]) else []
            found[length - 1][where[matched]] = True
            places, hashes = places[matched], hashes[matched]
            if not len(places):
                break
    return [measure_sample(runs, known, found, window) for runs in hashes_of]


def measure_sample(
    runs: list[np.ndarray], known: list[np.ndarray], found: list[np.ndarray], window: int
) -> dict[str, int]:
    """Return the figures of one sample. `runs`: hashes of its runs, by length."""
    copied = [
        was_found[np.searchsorted(hashes, own)] if len(own) else own
        for own, hashes, was_found in zip(runs, known, found, strict=True)
    ]
    longest = max((length for length, own in enumerate(copied, 1) if own.any()), default=0)
    windows = copied[window - 1] if window <= len(copied) else ()
    taken = int(np.sum(windows))
    return {"longest_run": longest, "windows": len(windows), "copied_windows": taken}


def run_hashes_by_length(sample: list[int], longest: int) -> list[np.ndarray]:
    """Return the hashes of a sample's runs of 1, 2, ... up to `longest` tokens."""
    tokens, hashes, found = np.array(sample, np.uint64), np.zeros(len(sample), np.uint64), []
    for length in range(1, longest + 1):
        count = max(0, len(tokens) - length + 1)
        hashes = grow(hashes[:count], tokens[length - 1 :])
        found.append(hashes)
    return found


def training_stretches(blocks: Dataset, overlap: int) -> Iterator[np.ndarray]:
    """Yield the tokens of a split, each stretch beginning with the end of the one before.

    Of a prompt/completion example its padding is left out.
    """
    before = np.empty(0, np.int64)
    for first in range(0, len(blocks), BLOCKS_AT_ONCE):
        columns = blocks[first : first + BLOCKS_AT_ONCE]
        rows = columns["input_ids"].astype(np.int64)
        if "length" in columns:
            whole = np.arange(rows.shape[1]) < np.asarray(columns["length"])[:, None]
            rows = rows[whole]
        stretch = np.concatenate([before, rows.reshape(-1)])
        yield stretch
        before = stretch[len(stretch) - min(overlap, len(stretch)) :]


def repetition(samples: list[list[int]]) -> dict[str, float | int]:
    """Return how much samples repeat themselves.

    `distinct_1`, `_2`, `_3`: different runs of so many tokens / all of them, over the samples
    together (Li et al. 2016). `longest_loop`: the most tokens in a row that are one unit, of any
    length, said twice or more on end.
    """
    result: dict[str, float | int] = {}
    for length in DISTINCT:
        runs = [
            tuple(sample[start : start + length])
            for sample in samples
            for start in range(len(sample) - length + 1)
        ]
        result[f"distinct_{length}"] = len(set(runs)) / len(runs) if runs else 1.0
    result["longest_loop"] = max(longest_loop(sample) for sample in samples)
    return result


def longest_loop(sample: list[int]) -> int:
    """Return the tokens of the longest stretch that is one unit, said at least twice on end."""
    tokens, longest = np.array(sample), 0
    for period in range(1, len(tokens) // 2 + 1):
        same = np.flatnonzero(np.append(tokens[period:] == tokens[:-period], False) == 0)
        run = int(np.diff(same, prepend=-1).max()) - 1
        if run >= period:
            longest = max(longest, run + period)
    return longest


def judge_samples(
    samples: dict[str, list[list[list[int]]]], train: Dataset | None, window: int | None
) -> dict[str, dict[str, dict[str, float | int | None]]]:
    """Return `copying` and `repetition` of each model's samples; training is read once for all.

    `samples`: token ids by model, prompt and continuation. `copied_share` is the share of all
    windows (of `window` tokens) that training also has; None where no sample is that long. Without
    a training split to look in (a stream's is not kept), all of `copying` is None.
    """
    flat = {name: [ids for many in prompts for ids in many] for name, prompts in samples.items()}
    together = [sample for many in flat.values() for sample in many]
    if train is None or window is None:
        unknown = dict.fromkeys(("longest_run", "windows", "copied_windows", "copied_share"))
        return {k: {"copying": unknown, "repetition": repetition(v)} for k, v in flat.items()}
    longest = max(1, *map(len, together))
    keys = ("windows", "copied_windows")
    found = iter(copied_runs(together, training_stretches(train, longest), longest, window))
    judged = {}
    for name, many in flat.items():
        parts = [next(found) for _ in many]
        windows, copied = (sum(part[key] for part in parts) for key in keys)
        judged[name] = {
            "copying": {
                "longest_run": max(part["longest_run"] for part in parts),
                "windows": windows,
                "copied_windows": copied,
                "copied_share": copied / windows if windows else None,
            },
            "repetition": repetition(many),
        }
    return judged
