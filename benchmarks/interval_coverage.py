"""Measure how often the 95% intervals of small test splits hold what a large one says.

    python3 run_pipeline.py --run_dir runs/large --corpus book.txt --test_fraction 0.6 --to_step 7
    python3 benchmarks/interval_coverage.py runs/large

Every token of the run's test split is scored once, by both models. From it many small test splits
are drawn, a few documents each (of one long document, a stretch of it), packed as step 5 would and
judged as step 8 would. Counted is how often the interval holds the mean of the whole: of the tuned
model's loss, and of the gain. Widths are medians, in nats a token.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    __import__("install_libraries").enter_environment()

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np

from toolkit.run.command import command

DOCUMENTS, TOKENS = (2, 3, 4, 5, 7, 8, 15, 30), (500, 1000, 2000, 4000)
HEADING = "| drawn | tokens | units | loss held | gain held | width, loss | width, gain |"


def token_losses_of(run: Any) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return nats of `base` and `tuned`, and the number of the document, of every scored token."""
    from load_gpt2 import read_gpt2
    from toolkit.blocks.collator import collate
    from toolkit.model.kernels import choose_kernels
    from toolkit.scoring.losses import score_batch
    from toolkit.scoring.windows import block_size_of, find_pieces, window_batches
    from train_model import read_tuned
    from train_test_split import read_splits

    blocks, models = read_splits(run)["test"], {"base": read_gpt2(run)[0], "tuned": read_tuned(run)}
    size, kernels = block_size_of(blocks), choose_kernels(run.device, run.precision, "scoring")
    pieces = find_pieces(blocks, models["tuned"].config.eos_token_id)
    nats, places = {}, []
    for name, model in models.items():
        model, found, places = model.to(run.device).eval(), [], []
        for starts, batch in window_batches(blocks, collate, size, at_once=16):
            found.append(score_batch(model, batch, kernels)[0])
            places += [start + np.arange(1, size) for start in starts]
        nats[name] = np.concatenate(found)
    return nats, pieces.documents[pieces.of(np.concatenate(places))]


def judge(
    nats: dict[str, np.ndarray], documents: np.ndarray, drawn: np.ndarray, longest: int, seed: int
) -> dict[str, Any]:
    """Return what step 8 says of a test split of the tokens `drawn`, in this order."""
    from toolkit.blocks.packing import choose_block_size
    from toolkit.scoring.metrics import COUNTS, compare
    from toolkit.scoring.windows import Pieces

    count = len(drawn)
    size = choose_block_size({"validation": count, "test": count}, longest)
    drawn = drawn[: count // size * size]
    own = np.cumsum(np.diff(documents[drawn], prepend=documents[drawn[0]]) != 0)
    blocks = np.arange(len(drawn)) // size
    starts = np.flatnonzero(np.diff(own * (blocks[-1] + 1) + blocks, prepend=-1))
    pieces = Pieces(starts, own[starts], blocks[starts])
    tokens = np.diff(starts, append=len(drawn)).astype(float)
    scores = {
        name: {"nats": np.add.reduceat(sums[drawn], starts), "correct": tokens, "tokens": tokens}
        for name, sums in nats.items()
    }
    return compare(scores, dict.fromkeys(COUNTS[1:], tokens), pieces, seed)


def small_splits(documents: np.ndarray, size: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    """Yield the tokens of small test splits: of `size` documents, or `size` ones of a long one."""
    random = np.random.default_rng(seed)
    spans = np.split(np.arange(len(documents)), np.flatnonzero(np.diff(documents)) + 1)
    for _ in range(draws):
        if is_one_text(documents):
            start = random.integers(len(documents) - size)
            yield np.arange(start, start + size)
        else:
            chosen = random.choice(len(spans), size, replace=False)
            yield np.concatenate([spans[number] for number in chosen])


def is_one_text(documents: np.ndarray) -> bool:
    return len(np.unique(documents)) < DOCUMENTS[-1]


def coverage(run: Any, draws: int) -> Iterator[str]:
    """Yield the table's rows for one run."""
    nats, documents = token_losses_of(run)
    longest, one = run.results("load_gpt2")["n_positions"], is_one_text(documents)
    base, tuned = (float(nats[name].mean()) for name in ("base", "tuned"))
    means, own = np.array([tuned, base - tuned]), np.zeros_like(documents) if one else documents
    for size in TOKENS if one else DOCUMENTS:
        if one and size >= len(documents):
            break
        bounds, units, counts = [], [], []
        for seed, drawn in enumerate(small_splits(documents, size, draws, run.seed)):
            said = judge(nats, own, drawn, longest, seed)
            if said["intervals"]["unit"]:
                bounds.append([said[name]["intervals"]["loss"] for name in ("tuned", "difference")])
                units.append(f"{said['intervals']['units']} {said['intervals']['unit']}")
                counts.append(len(drawn))
        if not bounds:
            continue
        low, high = np.moveaxis(np.array(bounds), 2, 0)  # each: draws, loss and gain
        loss, gain = ((low <= means) & (means <= high)).mean(0)
        wide, wide_gain = np.median(high - low, 0)
        yield (
            f"| {'a stretch' if one else f'{size} documents'} | {np.mean(counts):,.0f} | "
            f"{max(set(units), key=units.count)} | {loss:.1%} | {gain:.1%} | {wide:.3f} | "
            f"{wide_gain:.3f} |"
        )


@command
def main(argv: list[str] | None = None) -> None:
    from toolkit.run.start import RunOptions, read_run

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("run_dir", nargs="+", help="runs that are trained, with a large test split")
    parser.add_argument("--draws", type=int, default=400, help="test splits of each size")
    options = parser.parse_args(argv)
    for folder in options.run_dir:
        run = read_run(RunOptions(run_dir=folder))
        print(f"{folder}\n{HEADING}\n{'|---' * HEADING.count(' |')}|")
        for row in coverage(run, options.draws):
            print(row, flush=True)


if __name__ == "__main__":
    main()
