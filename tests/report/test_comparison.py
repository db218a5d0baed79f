"""Several runs side by side: --compare."""

import copy
import json
import shutil

import pytest
from PIL import Image

import visualize_performance
from tests.conftest import chain_main, shell
from toolkit.report.comparable import why_not_comparable
from toolkit.report.comparison import different_options, read_records, short_names
from toolkit.report.overlay import draw_overlay, run_styles


def test_runs_are_compared_by_curves_options_and_outcomes(finished, run_copy, tmp_path, all_flags):
    chain_main("--run_dir", run_copy, *all_flags, "--learning_rate", "0.01", "--to_step", "8")
    other = shutil.copytree(finished.path, tmp_path / "other")
    (other / "train_model.json").unlink()  # still training
    (tmp_path / "empty").mkdir()
    folders = map(str, (run_copy, finished.path, tmp_path / "empty", other))
    done = shell("visualize_performance.py", "--compare", *folders)
    assert done.returncode == 0, done.stderr
    lines = [[cell for cell in line.split("  ") if cell] for line in done.stdout.splitlines()]
    rows = {line[0]: [cell.strip() for cell in line[1:]] for line in lines if line}
    assert rows["--learning_rate"] == ["0.01", "0.001 (default)", "0.001 (default)"]
    assert "--max_steps" not in rows and "--seed" not in rows
    perplexity = json.loads((run_copy / "evaluate_model.json").read_text())["results"]["tuned"]
    assert f"{perplexity['perplexity']:,.2f}" == rows["test perplexity"][0]
    assert rows["steps"] == ["6", "6", "-"] and rows["peak memory"][0].endswith((" MB", " GB"))
    assert f"left out: {tmp_path / 'empty'}: no training has run there" in done.stdout
    assert "cannot be compared" not in done.stdout
    with Image.open(run_copy / "comparison.png") as picture:
        assert picture.width >= 1400
    table = (run_copy / "comparison.md").read_text()
    assert "| --learning_rate | 0.01 |" in table and "left out: " in table
    assert not (finished.path / "comparison.png").exists()


@pytest.mark.parametrize("content", ['{"options": {', "[]", "{}", '"text"'])
def test_a_damaged_record_cannot_be_compared(finished, run_copy, refusal, content):
    (run_copy / "train_model.json").write_text(content)
    error = refusal(visualize_performance.main, "--compare", run_copy, finished.path)
    assert "train_model.json cannot be read" in error


def test_one_trained_run_has_nothing_to_be_compared_with(finished, tmp_path, refusal):
    error = refusal(visualize_performance.main, "--compare", finished.path, tmp_path)
    assert f"--compare {tmp_path}: no training has run there" in error and "two trained" in error


CHANGES = [
    # of a run's records: step, keys, another value, and what is then said (None: nothing)
    ("train_test_split", ("results", "block_size"), 8, "block sizes differ (32, 8)"),
    ("create_dataset", ("inputs",), "other", "different corpora: their losses, perplexities"),
    ("create_dataset", ("options", "max_documents"), 9, "hold out different documents"),
    ("import_modules", ("options", "seed"), 8, "hold out different documents"),
    ("load_gpt2", ("results", "vocab_size"), 400, "tokenizers differ (300, 400 tokens)"),
    ("evaluate_model", ("options", "stride"), 4, "strides (as long as the block, 4)"),
    ("configure_trainer", ("options", "learning_rate"), 4, None),
]


@pytest.mark.parametrize("step, keys, value, says", CHANGES, ids=[str(c[3]) for c in CHANGES])
def test_what_keeps_figures_from_being_compared_is_said(finished, step, keys, value, says):
    known = read_records(finished.path)
    other = copy.deepcopy(known)
    place = other[step]
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    reasons = why_not_comparable([known, known, other, {}])  # the last has only begun
    assert len(reasons) == (says is not None)
    assert all("cannot be compared" in why and says in why for why in reasons)


def test_an_option_counts_by_what_it_came_to(finished):
    """A rate given and the same by default differ in nothing; what follows is not listed."""
    known = read_records(finished.path)
    given, longer = copy.deepcopy(known), copy.deepcopy(known)
    given["configure_trainer"]["options"]["learning_rate"] = 1e-3
    longer["configure_trainer"]["options"]["max_steps"] = None
    longer["configure_trainer"]["results"] |= {"steps": 12, "save_steps": 9, "epochs": 3.0}
    assert different_options({"a": known, "b": given}) == []
    assert [row for row in different_options({"a": known, "b": longer}) if "epochs" not in row[0]]
    rows = {row[0]: row[1:] for row in different_options({"a": known, "b": longer})}
    assert rows["--max_steps"] == ["6", "12 (default)"] and "--save_steps" not in rows


def test_twenty_runs_look_different_and_long_names_leave_the_curves_free(tmp_path):
    looks = run_styles(20)
    assert len({look["color"] for look in looks}) == len({str(look) for look in looks}) == 20
    names = short_names([tmp_path / "runs" / f"{'a long name ' * 9}{n}" for n in range(20)])
    assert len(set(names)) == 20 and max(map(len, names)) < 50
    history = [{"step": n, "loss": 1.0, "eval_loss": 1.0} for n in range(3)]
    figure = draw_overlay({name: history for name in names}, ["a note"])
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.x1 <= figure.bbox.x1 and box.y0 >= 0
    assert not any(box.overlaps(axes.get_tightbbox()) for axes in figure.axes)
    assert figure.axes[0].get_window_extent().height > 250
