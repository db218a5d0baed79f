"""The plot of a training that is under way: read from its log alone, without holding its folder."""

from pathlib import Path

from toolkit.report.plots import MEASURED, PANELS, Story, draw_together, panels_of, save_figure
from toolkit.run.command import UserError
from toolkit.run.files import remove
from toolkit.training.log_history import LOG, read_log

PICTURES = {kind: f"progress.{kind}" for kind in ("png", "svg")}


def is_under_way(folder: Path) -> bool:
    """Tell whether training has begun in a run directory and has not come to its end."""
    return (folder / LOG).exists() and not (folder / "train_model.json").exists()


def forget_progress(folder: Path) -> None:
    """Remove the pictures of the way once the end is drawn."""
    for name in PICTURES.values():
        remove(folder / name)


def plot_progress(folder: Path) -> str:
    """Draw what is logged so far to progress.png and progress.svg; return a line that says so."""
    history = read_log(folder / LOG)
    if not history:
        raise UserError(f"{folder / LOG}: nothing is logged yet; try again after a few steps")
    story = Story(history)
    last = max(entry["step"] for entry in history)
    panels = panels_of(story, PANELS) + panels_of(story, MEASURED)
    figure = draw_together(panels, story, f"{folder}: training, so far {last:,} steps")
    for kind, name in PICTURES.items():
        save_figure(figure, folder / name, kind)
    losses = [
        f"{title} {values[-1]:.3f}"
        for title, key in (("training loss", "loss"), ("validation loss", "eval_loss"))
        if (values := story.points(key)[1])
    ]
    return (
        f"training is not finished: step {last:,}, {', '.join(losses)}; {folder / PICTURES['png']}"
    )
