"""Step 9: plots and the report; of a training under way, the plot so far.

Reads log_history.jsonl from step 7 and the records of steps 2 to 8. Leaves performance.png, .svg,
report.html, report.md, model_card.md and visualize_performance.json; with --compare,
comparison.png, .svg, .md in the first of the folders.
"""

from __future__ import annotations

if __name__ == "__main__":  # from the shell: go on where the libraries are
    __import__("install_libraries").enter_environment()

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluate_model import read_metrics, summarize
from toolkit.run.command import command
from toolkit.run.console import say
from toolkit.run.lazily import lazily
from toolkit.run.options import build, flag, parse_flags
from toolkit.run.run_directory import RunDirectory
from toolkit.run.start import RunOptions, parse
from toolkit.training.log_history import LOG

with lazily():
    from toolkit.report import plots
    from toolkit.report.comparison import compare_runs, find_runs
    from toolkit.report.model_card import model_card
    from toolkit.report.progress import forget_progress, is_under_way, plot_progress
    from toolkit.report.report import facts_of, for_page, render
    from toolkit.training.log_history import read_log


@dataclass
class VisualizeOptions:
    """step 9, visualize_performance"""

    compare: list[str] | None = flag(
        None, "run folders: overlay their curves, and list what differs", recorded=False
    )

    def __post_init__(self) -> None:
        if self.compare is not None:
            find_runs(self.compare)


def visualize_performance(
    metrics: dict[str, Any], options: VisualizeOptions, run: RunDirectory
) -> Path:
    """Draw the training and the test figures, write the report, and return the report's path."""
    after = ("load_gpt2", "create_dataset", "train_test_split", "train_model", "evaluate_model")
    with run.step(__file__, options, after, seeded=False) as step:
        story = read_story(metrics, run)
        facts = facts_of(run, metrics)
        title = f"{facts['title']}\n{summarize(metrics)}"
        figure = plots.draw_together(plots.panels_of(story, plots.PANELS), story, title)
        for kind in ("png", "svg"):
            plots.save_figure(figure, step.file(f"performance.{kind}"), kind)
        if speed := plots.panels_of(story, plots.MEASURED):
            figure = plots.draw_together(speed, story, facts["title"])
            for kind in ("png", "svg"):
                plots.save_figure(figure, step.file(f"speed.{kind}", measured=True), kind)
        drawn = {
            draw: for_page(plots.draw_alone(draw, story))
            for panels in (plots.PANELS, plots.MEASURED)
            for draw in plots.panels_of(story, panels)
        }
        facts["plots"] = [drawn.pop(draw) for draw in plots.FIRST if draw in drawn]
        measured = [draw for draw in drawn if draw in plots.MEASURED.values()]
        facts["measured_plots"] = [drawn.pop(draw) for draw in measured]
        facts["more_plots"] = list(drawn.values())
        for kind in ("html", "md"):
            text = render(f"report.{kind}", facts)
            step.file(f"report.{kind}", measured=True).write_text(text, encoding="utf-8")
        card = step.file("model_card.md", measured=True)
        card.write_text(model_card(run, metrics), encoding="utf-8")
        forget_progress(run.path)
        step.summary = f"report: {run.path / 'report.html'}"
    return read_report(run)


def read_report(run: RunDirectory) -> Path:
    """Return the path of step 9's report."""
    return run.finished("visualize_performance") / "report.html"


def read_story(metrics: dict[str, Any], run: RunDirectory) -> plots.Story:
    trained = run.results("train_model")
    history = read_log(run.path / LOG)
    return plots.Story(history, trained["best_step"], trained["stopped_early"], metrics)


@command
def main(argv: list[str] | None = None) -> None:
    given = parse_flags(argv, __doc__, RunOptions, VisualizeOptions)
    options, folder = build(VisualizeOptions, given), Path(build(RunOptions, given).run_dir)
    if options.compare:
        return say(compare_runs(options.compare))
    if is_under_way(folder):
        return say(plot_progress(folder))
    run, options = parse(argv, VisualizeOptions, about=__doc__)
    visualize_performance(read_metrics(run), options, run)


if __name__ == "__main__":
    main()
