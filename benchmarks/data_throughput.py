"""How fast, and in how much memory, steps 4 and 5 turn a corpus into blocks.

    python3 benchmarks/data_throughput.py --tokenizer gpt2 --repeat 3 corpus-*.parquet

For growing numbers of the given files it runs, in turn and each in a process of its own, the
pipeline's steps 4 and 5, and the bare yardstick: one `encode_batch_fast` call of the `tokenizers`
library a file, over texts that are in memory already, its result thrown away. Printed are medians:
MB of text a second and tokens a second of step 4 (reading, tokenizing and writing), its share of
the yardstick's speed, the seconds of step 5, and the peak of resident memory.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    __import__("install_libraries").enter_environment()

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent


def ours(files: list[str], tokenizer: str) -> dict[str, float]:
    """Run steps 2 to 5 in an empty run directory and return what steps 4 and 5 took."""
    from create_dataset import DatasetOptions, create_dataset
    from import_modules import RunOptions, import_modules, read_run
    from load_gpt2 import LoadOptions, load_gpt2
    from toolkit.memory import peak_memory_bytes
    from train_test_split import SplitOptions, train_test_split

    with tempfile.TemporaryDirectory() as folder:
        options = RunOptions(run_dir=f"{folder}/run", device="cpu")
        run = read_run(options)
        import_modules(options, run)
        _, tokenizer = load_gpt2(LoadOptions(from_scratch=True, tokenizer=tokenizer), run)
        begin = time.perf_counter()
        documents = create_dataset(tokenizer, DatasetOptions(corpus=files), run)
        tokenized = time.perf_counter()
        train_test_split(documents, SplitOptions(), run)
        packed = time.perf_counter()
        account = run.results("create_dataset")["splits"]["train"]
    return {
        "seconds": tokenized - begin,
        "split_seconds": packed - tokenized,
        "characters": account["characters"],
        "tokens": account["tokens"],
        "peak_bytes": peak_memory_bytes(),
    }


def bare(files: list[str], tokenizer: str) -> dict[str, float]:
    """Tokenize each file's texts with one call of the `tokenizers` library."""
    from toolkit import gpt2, hub
    from toolkit.corpus import PLAIN, read_corpus

    encode = gpt2.open_tokenizer(hub.find_folder(tokenizer, weights=False)).backend_tokenizer
    seconds = characters = 0.0
    for file in files:
        texts = [document.text for document in read_corpus([file], PLAIN, "corpus")["train"]]
        begin = time.perf_counter()
        encode.encode_batch_fast(texts, add_special_tokens=False)
        seconds += time.perf_counter() - begin
        characters += sum(map(len, texts))
    return {"seconds": seconds, "characters": characters}


def measure(kind: str, files: list[str], tokenizer: str) -> dict[str, float]:
    words = [sys.executable, __file__, "--only", kind, "--tokenizer", tokenizer, *files]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=PROJECT)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("files", nargs="+")
    parser.add_argument("--tokenizer", default="gpt2", help="Hub id or folder")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", choices=("ours", "bare"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    files = [str(Path(file).resolve()) for file in options.files]
    folder = Path(options.tokenizer)
    tokenizer = str(folder.resolve()) if folder.is_dir() else options.tokenizer
    if options.only:
        print(json.dumps({"ours": ours, "bare": bare}[options.only](files, tokenizer)))
        return
    print("files  MB text  step 4 MB/s  tokens/s  of bare call  step 5 s  peak MB")
    counts = sorted({n for n in (1, 2, 4, 8, 16, len(files)) if n <= len(files)})
    for count in counts:
        runs: dict[str, list[dict[str, float]]] = {"ours": [], "bare": []}
        for _ in range(options.repeat):
            for kind, measured in runs.items():
                measured.append(measure(kind, files[:count], tokenizer))
        seconds = {k: statistics.median(run["seconds"] for run in v) for k, v in runs.items()}
        one = runs["ours"][0]
        print(
            f"{count:5}  {one['characters'] / 1e6:7.1f}  "
            f"{one['characters'] / 1e6 / seconds['ours']:11.2f}  "
            f"{one['tokens'] / seconds['ours']:8,.0f}  {seconds['bare'] / seconds['ours']:12.0%}  "
            f"{statistics.median(run['split_seconds'] for run in runs['ours']):8.1f}  "
            f"{max(run['peak_bytes'] for run in runs['ours']) / 1e6:7,.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
