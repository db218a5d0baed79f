"""Step 9 of 10: the plot of the run.

Reads log_history.jsonl from step 7 and the metrics of step 8. Leaves performance.png and
visualize_performance.json.
"""

if __name__ == "__main__":  # from the shell: go on where the libraries are
    __import__("install_libraries").enter_environment()

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluate_model import read_metrics
from import_modules import parse
from toolkit.command import command
from toolkit.log_history import read_log
from toolkit.plots import plot_training
from toolkit.run_directory import RunDirectory


@dataclass
class VisualizeOptions:
    """step 9, visualize_performance"""


def visualize_performance(
    metrics: dict[str, Any], options: VisualizeOptions, run: RunDirectory
) -> Path:
    """Draw losses and learning rate against steps, and return the picture's path."""
    with run.step(
        __file__, options, after=("create_dataset", "train_model", "evaluate_model")
    ) as step:
        best = run.results("train_model")["best_step"]
        history = read_log(run.path / "log_history.jsonl")
        plot_training(history, title_of(metrics, run), best, step.file("performance.png"))
        step.summary = f"plot: {run.path / 'performance.png'}"
    return read_plot(run)


def read_plot(run: RunDirectory) -> Path:
    """Return the path of step 9's picture."""
    return run.finished("visualize_performance") / "performance.png"


def title_of(metrics: dict[str, Any], run: RunDirectory) -> str:
    """Return what was trained on what, and what came of it."""
    model = run.results("load_gpt2")
    corpus = " ".join(run.record("create_dataset")["options"]["corpus"])
    after = f"test perplexity {metrics['tuned']['perplexity']:,.2f}"
    if "base" in metrics:
        after += f", before training {metrics['base']['perplexity']:,.2f}"
    return f"{model['model']} ({model['parameters'] / 1e6:.1f}M parameters) on {corpus}\n{after}"


@command
def main(argv: list[str] | None = None) -> None:
    run, options = parse(argv, VisualizeOptions, about=__doc__)
    visualize_performance(read_metrics(run), options, run)


if __name__ == "__main__":
    main()
