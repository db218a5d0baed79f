"""Measure how fast step 8 scores, against how fast step 7 trains in the same run, and its memory.

    python3 benchmarks/evaluate_throughput.py
    python3 benchmarks/evaluate_throughput.py --corpus book.txt --flags "--model gpt2 --max_steps 8"
    python3 benchmarks/evaluate_throughput.py --repeat 1 --flags "--from_scratch --max_steps 9"

Each repetition trains anew in a fresh process, then scores the training blocks, so that both rates
come from the same minute. Memory: peaks of processes that score 1, 4 and 16 times the same blocks.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    __import__("install_libraries").enter_environment()

import argparse
import json
import shlex
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.fresh_process import measure_alone
from toolkit.run.command import command


def train_and_score(folder: str, words: list[str]) -> dict[str, float]:
    """Run steps 2 to 7 in an empty run directory, then score the training blocks once."""
    import run_pipeline
    from toolkit.run.start import RunOptions, read_run

    anew = ["--to_step", "7", "--force", "--resume", "never"]
    run_pipeline.main(["--run_dir", folder, *anew, *words])
    run = read_run(RunOptions(run_dir=folder))
    return {"training": run.record("train_model")["measured"]["tokens_per_second"]} | score(run, 1)


def score(run: Any, times: int) -> dict[str, float]:
    """Return tokens/s and peak memory of scoring the training blocks `times` over."""
    from datasets import concatenate_datasets

    from toolkit.blocks.collator import collate
    from toolkit.scoring.losses import score_pieces
    from toolkit.scoring.windows import block_size_of, find_pieces
    from toolkit.training.memory import peak_memory_bytes
    from train_model import read_tuned
    from train_test_split import read_splits

    model = read_tuned(run)
    blocks = concatenate_datasets([read_splits(run)["train"]] * times).with_format("numpy")
    pieces = find_pieces(blocks, model.config.eos_token_id)
    size = block_size_of(blocks)
    given = (collate, pieces, size, run.precision, "")
    warm = blocks.select(range(min(8, len(blocks))))
    score_pieces(model, warm, *given)
    begin = time.perf_counter()
    score_pieces(model, blocks, *given)
    seconds = time.perf_counter() - begin
    return {"scoring": len(blocks) * size / seconds, "peak_bytes": peak_memory_bytes()}


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--corpus", default="data/keepers_log")
    parser.add_argument("--flags", default="--from_scratch --max_steps 40", help="for the runner")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--train", help=argparse.SUPPRESS)
    parser.add_argument("--score", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.train:
        words = ["--corpus", options.corpus, *shlex.split(options.flags)]
        print(json.dumps(train_and_score(options.train, words)))
    elif options.score:
        from toolkit.run.start import RunOptions, read_run

        run = read_run(RunOptions(run_dir=options.score[0]))
        print(json.dumps(score(run, int(options.score[1]))))
    else:
        compare(options)


def compare(options: argparse.Namespace) -> None:
    """Print both speeds of every repetition, then the memory of scoring more and more."""
    with tempfile.TemporaryDirectory() as folder:
        # A corpus is named as from here; flags with an equals sign, since they begin with a dash.
        corpus = Path(options.corpus).resolve() if Path(options.corpus).exists() else options.corpus
        again = ["--train", folder, f"--corpus={corpus}", f"--flags={options.flags}"]
        runs = [measure_alone(__file__, *again) for _ in range(options.repeat)]
        for run in runs:
            ratio = run["scoring"] / run["training"]
            print(
                f"training {run['training']:,} tokens/s, scoring {run['scoring']:,.0f} tokens/s: "
                f"{ratio:.2f} times",
                flush=True,
            )
        middle = statistics.median(run["scoring"] / run["training"] for run in runs)
        print(f"median: {middle:.2f} times")
        for times in (1, 4, 16):
            peak = measure_alone(__file__, "--score", folder, str(times))["peak_bytes"]
            print(f"{times:2} times the blocks: peak {peak / 1e6:,.0f} MB", flush=True)


if __name__ == "__main__":
    main()
