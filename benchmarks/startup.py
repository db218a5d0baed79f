"""How long a command takes before it does anything, and one that has nothing to do.

    python3 benchmarks/startup.py
    python3 benchmarks/startup.py --against ../older_checkout --rounds 5

Printed are medians of processor seconds (user and system) beyond `python -c pass`. `--against`
names another checkout of the project, which takes turns with this one. Both first make a tiny
finished run, so that there is something to read.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    __import__("install_libraries").enter_environment()

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from toolkit.run.command import UserError, command
from toolkit.run.console import say
from toolkit.run.steps import STEPS

PROJECT = Path(__file__).resolve().parent.parent
TINY = "--device cpu --seed 7 --from_scratch --n_layer 2 --n_head 2 --n_embd 32 --n_positions 64"
TINY += " --vocab_size 300 --block_size 32 --max_steps 4 --max_new_tokens 4"
REFUSED = {  # a value that no one may ask for
    "import_modules": "--seed -1",
    "load_gpt2": "--n_head 3",
    "create_dataset": "--max_documents 0",
    "train_test_split": "--test_fraction 2",
    "configure_trainer": "--lr_scheduler_type sine",
    "train_model": "--resume=",
    "evaluate_model": "--stride 0",
    "visualize_performance": "--compare one",
    "generate": "--top_p 3",
    "run_pipeline": "--from_step 99",
}
FLAGS = {  # of the tiny run
    "create_dataset": "--corpus {corpus}",
    "train_test_split": "--block_size 32",
    "generate": "--max_new_tokens 4",
}


def commands(run: Path, corpus: Path) -> dict[str, list[str]]:
    """Return what is timed, by what it is called in the table."""
    words = {}
    for name in (*STEPS, "run_pipeline"):
        words[f"{name}.py --help"] = [f"{name}.py", "--help"]
        words[f"{name}.py --sede 3"] = [f"{name}.py", "--sede", "3"]
        if name in REFUSED:
            refused = REFUSED[name].split()
            words[f"{name}.py {REFUSED[name]}"] = [f"{name}.py", *refused]
    here = ["--run_dir", str(run)]
    words["run_pipeline.py, all up to date"] = ["run_pipeline.py", *here, *tiny(corpus)]
    for name in ("create_dataset", "train_test_split", "visualize_performance", "generate"):
        flags = FLAGS.get(name, "").format(corpus=corpus).split()
        words[f"{name}.py, of a tiny run"] = [f"{name}.py", *here, *flags]
    return words


def tiny(corpus: Path) -> list[str]:
    return [*TINY.split(), "--corpus", str(corpus)]


def processor_seconds(words: list[str], project: Path) -> float:
    """Run a command to its end; return the processor time that it took."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, *words], cwd=project, env=environment, capture_output=True, text=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 2):
        raise UserError(f"{' '.join(words)} failed: {done.stderr.strip()[-200:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(projects: dict[str, Path], rounds: int, only: str) -> dict[str, list[float]]:
    """Return the median for each command and project, beyond that of an empty program."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for page in sorted((PROJECT / "data/keepers_log").glob("*.txt"))[:30]:
            shutil.copy(page, corpus)
        runs = {name: Path(folder) / name for name in projects}
        for name, project in projects.items():
            processor_seconds(
                ["run_pipeline.py", "--run_dir", str(runs[name]), *tiny(corpus)], project
            )
        timed = {name: commands(runs[name], corpus) for name in projects}
        titles = [title for title in timed["here"] if only in title]
        seconds = {(title, name): [] for title in ("empty", *titles) for name in projects}
        for _ in range(rounds):
            for title, name in seconds:
                words = ["-c", "pass"] if title == "empty" else timed[name][title]
                seconds[title, name].append(processor_seconds(words, projects[name]))
    median = {key: statistics.median(values) for key, values in seconds.items()}
    return {
        title: [median[title, name] - median["empty", name] for name in projects]
        for title in titles
    }


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", type=Path, help="another checkout, to compare with")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--only", default="", help="commands whose line holds this text")
    options = parser.parse_args(argv)
    projects = {"here": PROJECT}
    if options.against:
        if not (options.against / "run_pipeline.py").is_file():
            raise UserError(f"--against {options.against}: holds no run_pipeline.py")
        projects["there"] = options.against.resolve()
    say(f"| command | {' | '.join(projects)} |\n|---|{'---|' * len(projects)}")
    for title, seconds in measure(projects, options.rounds, options.only).items():
        say(f"| `{title}` | {' | '.join(f'{value:.2f}' for value in seconds)} |")


if __name__ == "__main__":
    main()
