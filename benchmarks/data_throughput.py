"""How fast, and in how much memory, steps 4 and 5 turn a corpus into blocks.

    python3 benchmarks/data_throughput.py --tokenizer gpt2 --repeat 3 corpus-*.parquet

For growing numbers of the given files it runs, in turn and each in a process of its own, the
pipeline's steps 4 and 5, and the bare yardstick: one `encode_batch_fast` call of the `tokenizers`
library a file, over texts that are in memory already, its result thrown away. Printed are medians:
MB of text a second and tokens a second of step 4 (reading, tokenizing and writing), its share of
the yardstick's speed, and the seconds of step 5; then the MB of text a second of one pass over
a stream (--streaming: read, tokenized, packed and shuffled, nothing trained). Peaks of resident
memory are given for both ways, each in two parts (Linux only): what the process holds itself
(anonymous), and pages of mapped files, which the system takes back when it needs them.

The first file alone must hold enough documents for a stream to find validation and test in it: a
hundred do. With data/gpt2-mini for a tokenizer nothing is fetched.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    __import__("install_libraries").enter_environment()

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.fresh_process import measure_alone
from toolkit.run.command import command

HEADING = (
    "files  MB text  step 4 MB/s  tokens/s  of bare call  step 5 s  anonymous MB  mapped MB"
    "  stream MB/s  anonymous MB  mapped MB"
)


@contextmanager
def memory_peaks(every_seconds: float = 0.02) -> Iterator[dict[str, int]]:
    """Sample this process's anonymous and file-mapped resident memory, in bytes."""
    peaks, ended = {"RssAnon": 0, "RssFile": 0}, threading.Event()

    def sample() -> None:
        while not ended.wait(every_seconds):
            for line in Path("/proc/self/status").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in peaks:
                    peaks[name] = max(peaks[name], int(value.split()[0]) * 1024)

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield peaks
    finally:
        ended.set()
        sampler.join()


def ours(files: list[str], tokenizer: str, streaming: bool = False) -> dict[str, float]:
    """Run steps 2 to 5 in an empty run directory and return what steps 4 and 5 took."""
    from create_dataset import DatasetOptions, create_dataset
    from import_modules import import_modules
    from load_gpt2 import LoadOptions, load_gpt2
    from toolkit.run.start import RunOptions, read_run
    from train_test_split import SplitOptions, train_test_split

    with tempfile.TemporaryDirectory() as folder, memory_peaks() as peaks:
        options = RunOptions(run_dir=f"{folder}/run", device="cpu")
        run = read_run(options)
        import_modules(options, run)
        _, tokenizer = load_gpt2(LoadOptions(from_scratch=True, tokenizer=tokenizer), run)
        begin = time.perf_counter()
        options = DatasetOptions(corpus=files, streaming=streaming)
        documents = create_dataset(tokenizer, options, run)
        tokenized = time.perf_counter()
        splits = train_test_split(documents, SplitOptions(), run)
        packed = time.perf_counter()
        if streaming:
            return {**one_pass(splits["train"]), **peaks}
        account = run.results("create_dataset")["splits"]["train"]
    return {
        "seconds": tokenized - begin,
        "split_seconds": packed - tokenized,
        "characters": account["characters"],
        "tokens": account["tokens"],
        **peaks,
    }


def stream(files: list[str], tokenizer: str) -> dict[str, float]:
    """Read one pass of a stream, and return what it took and held."""
    return ours(files, tokenizer, streaming=True)


def one_pass(stream: Any) -> dict[str, float]:
    """Read a TrainingStream's first pass, and return the seconds it took and its tokens."""
    begin = time.perf_counter()
    blocks = 0
    for _ in stream:
        blocks += 1
        account = stream.account(blocks)
        if account["passes_read"] and not account["blocks_read_but_not_used"]:
            return {"seconds": time.perf_counter() - begin, "tokens": account["tokens_read"]}
    return {}


def bare(files: list[str], tokenizer: str) -> dict[str, float]:
    """Tokenize each file's texts with one call of the `tokenizers` library."""
    from toolkit.corpus.sources import Reading, read_corpus
    from toolkit.model import hub
    from toolkit.model.tokenizer_files import open_tokenizer

    encode = open_tokenizer(hub.find_folder(tokenizer, weights=False)).backend_tokenizer
    seconds = characters = 0.0
    for file in files:
        texts = [document.text for document in read_corpus([file], Reading(), "corpus")["train"]]
        begin = time.perf_counter()
        encode.encode_batch_fast(texts, add_special_tokens=False)
        seconds += time.perf_counter() - begin
        characters += sum(map(len, texts))
    return {"seconds": seconds, "characters": characters}


KINDS = {"ours": ours, "bare": bare, "stream": stream}


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("files", nargs="+")
    parser.add_argument("--tokenizer", default="gpt2", help="Hub id or folder")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", choices=tuple(KINDS), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    files = [str(Path(file).resolve()) for file in options.files]
    folder = Path(options.tokenizer)
    tokenizer = str(folder.resolve()) if folder.is_dir() else options.tokenizer
    if options.only:
        print(json.dumps(KINDS[options.only](files, tokenizer)))
        return
    print(HEADING)
    for count in sorted({n for n in (1, 2, 4, 8, 16, len(files)) if n <= len(files)}):
        runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
        words = ("--tokenizer", tokenizer, *files[:count])
        for _ in range(options.repeat):
            for kind, measured in runs.items():
                measured.append(measure_alone(__file__, "--only", kind, *words))
        print(as_row(count, runs), flush=True)


def as_row(count: int, runs: dict[str, list[dict[str, float]]]) -> str:
    """Return a row of the table. `runs`: what the processes of each kind measured."""
    seconds = {k: statistics.median(run["seconds"] for run in v) for k, v in runs.items()}
    peaks = {
        kind: [max(run[name] for run in runs[kind]) / 1e6 for name in ("RssAnon", "RssFile")]
        for kind in ("ours", "stream")
    }
    one = runs["ours"][0]
    # A stream trains on what is not held out: its speed is counted in the text of its tokens.
    streamed = one["characters"] / one["tokens"] * runs["stream"][0]["tokens"]
    return (
        f"{count:5}  {one['characters'] / 1e6:7.1f}  "
        f"{one['characters'] / 1e6 / seconds['ours']:11.2f}  "
        f"{one['tokens'] / seconds['ours']:8,.0f}  {seconds['bare'] / seconds['ours']:12.0%}  "
        f"{statistics.median(run['split_seconds'] for run in runs['ours']):8.1f}  "
        f"{peaks['ours'][0]:12,.0f}  {peaks['ours'][1]:9,.0f}  "
        f"{streamed / 1e6 / seconds['stream']:11.2f}  "
        f"{peaks['stream'][0]:12,.0f}  {peaks['stream'][1]:9,.0f}"
    )


if __name__ == "__main__":
    main()
