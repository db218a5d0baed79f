"""The pictures, the report and the comparison of runs."""

import json
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

import evaluate_model
import generate
import visualize_performance
from create_dataset import DatasetOptions
from tests.conftest import chain_main, shell
from tests.faults.harm import DAMAGES, cut_in_half
from toolkit.report.markdown import fenced
from toolkit.report.plots import MEASURED, PANELS, Story, draw_together, panels_of, save_figure
from toolkit.run.files import sha256_of
from toolkit.run.options import as_command, as_flags, build, parse_flags
from toolkit.run.records import write_record
from toolkit.run.run_directory import RunDirectory
from toolkit.scoring.metrics import METRICS
from toolkit.training.log_history import read_log

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)


@pytest.fixture(scope="module")
def page(finished):
    return (finished.path / "report.html").read_text()


class Tags(HTMLParser):
    """Every tag with its attributes, and that tags are closed in order."""

    VOID = {"meta", "br", "img", "link", "input", "hr"}

    def __init__(self, page):
        super().__init__()
        self.open, self.seen = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_report_is_one_whole_file_that_needs_no_network(page):
    tags = Tags(page)
    assert tags.open == []
    for tag, attributes in tags.seen:
        assert tag not in ("script", "link", "img", "iframe")
        assert "src" not in attributes
        for name in ("href", "xlink:href"):
            assert attributes.get(name, "#").startswith("#")
    assert not re.search(r"url\((?!#)|@import", page)
    assert "prefers-color-scheme: dark" in page and page.count("<svg") >= 4


def test_both_reports_say_what_the_records_say(finished, page):
    markdown = (finished.path / "report.md").read_text()
    records = {p.stem: json.loads(p.read_text()) for p in finished.path.glob("*.json")}
    metrics = records["evaluate_model"]["results"]
    command = "--seed 7 --device cpu --from_scratch --n_layer 2"
    speed = f"{records['train_model']['measured']['tokens_per_second']:,} tokens/s"
    for text in (page, markdown):
        for metric in METRICS:
            assert metric.title in text
            for model in ("base", "tuned", "difference"):
                assert metric.write(metrics[model][metric.name]) in text
        assert command in text and speed in text
        assert records["import_modules"]["measured"]["versions"]["torch"] in text
        assert "windows of 50 characters that training also has" in text
        assert (
            f"{records['train_test_split']['results']['splits']['train']['tokens_read']:,}" in text
        )
    assert all(metric.definition in markdown for metric in METRICS)
    shown = page.count('<p class="text" ')
    samples = sum(len(s["base"]) + len(s["tuned"]) for s in metrics["samples"])
    passages = len(metrics["passages"]["best"]) + len(metrics["passages"]["worst"])
    assert passages >= 2 and shown == samples + passages


def command_in(folder):
    """The words of the command in a run's report.md, as a shell takes them."""
    command = (folder / "report.md").read_text().split("To do it again:\n\n~~~text\n")[1]
    line, end = command.split("\n")[:2]
    assert end == "~~~"
    words = shell_words(line)
    assert words[:2] == ["python3", "run_pipeline.py"]
    return words[2:]


def shell_words(line):
    """What bash makes of a line that is pasted."""
    printed = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True)
    return printed.stdout.decode().split("\0")[:-1]


def test_the_command_in_the_reports_pasted_repeats_the_run(finished, page, capsys):
    command = command_in(finished.path)
    assert f"<pre>python3 run_pipeline.py {' '.join(command)}</pre>" in page
    chain_main(*command, "--to_step", "9")
    lines = [line for line in capsys.readouterr().out.splitlines() if "/10]" in line]
    assert len(lines) == 9 and all("up to date" in line for line in lines)


def test_a_command_is_one_line_that_a_shell_takes_apart_again():
    words = [
        "--corpus",
        "a b",
        "it's",
        "$HOME",
        "--document_separator=---",
        '{"a": 1}',
        "\n\\n\x1b'é*",
    ]
    line = as_command("file.py", words)
    assert line.isprintable() and shell_words(line) == ["python3", "file.py", *words]


def test_a_value_that_begins_with_a_dash_is_given_back_as_it_was_taken():
    given = as_flags(DatasetOptions(document_separator="---", corpus=["-a", "b"]))
    assert given == ["--corpus=-a", "--corpus=b", "--document_separator=---"]
    assert build(DatasetOptions, parse_flags(given, "", DatasetOptions)).corpus == ["-a", "b"]


def test_markup_in_the_corpus_is_shown_as_text(run_copy, tmp_path):
    corpus = tmp_path / "<b>corpus"
    corpus.mkdir()
    evil = '<script>document.title = "gone"</script> & <img src=x onerror=alert(1)> ~~~ '
    for number in range(30):
        (corpus / f"{number}.txt").write_text(f"{evil} {number} " * 12)
    words = ["--run_dir", run_copy, "--seed", "7", "--device", "cpu", "--corpus", corpus]
    small = "--from_scratch --n_layer 2 --n_head 2 --n_embd 32 --n_positions 64 --vocab_size 300"
    chain_main(*words, *small.split(), "--block_size", "32", "--max_steps", "2", "--to_step", "9")
    page = (run_copy / "report.html").read_text()
    tags = [tag for tag, _ in Tags(page).seen]
    assert "script" not in tags and "img" not in tags and "b" not in tags
    assert "&lt;script&gt;" in page
    assert "~~~~text" in "\n".join(fenced("~~~ of no tag"))
    chain_main(*words, *small.split(), "--block_size", "32", "--max_steps", "2", "--prompt", evil)
    for name in ("report.md", "samples.md", "model_card.md"):
        text = (run_copy / name).read_text()
        if name == "model_card.md":  # what stands before it is data, not shown as a page
            text = text.split("---\n", 2)[2]
        assert not re.search("<(script|img|b)\\b", text), name
        assert "&lt;" in text


CODES = "\x1b[31m \x07 \x08 \x7f \x9b1m \r"  # what a terminal obeys
GBK = os.fsdecode("第一章".encode("gbk"))
JOINED = "\u0646\u200c\u0646 \U0001f468\u200d\U0001f469"  # what joins characters is text


def test_nothing_that_commands_a_terminal_reaches_terminal_or_pages(run_copy, tmp_path, capfd):
    """From the corpus, its name, the prompt and the stop text. Names of its files are in GBK."""
    corpus = tmp_path / f"x{CODES}y"
    corpus.mkdir()
    for number in range(30):
        (corpus / f"{number}{CODES}{GBK}.txt").write_text(f"{CODES}{JOINED} {number} " * 12)
    words = ["--run_dir", run_copy, "--device", "cpu", "--corpus", corpus, "--seed", "7"]
    small = "--from_scratch --n_layer 2 --n_head 2 --n_embd 32 --n_positions 64 --vocab_size 300"
    words += [*small.split(), "--block_size", "32", "--max_steps", "2"]
    chain_main(*words, "--prompt", f"a{CODES}{JOINED}", "--stop", f"z{CODES}")
    generate.main(["--run_dir", str(run_copy), "--prompt", f"a{CODES}{JOINED}"])
    said = "".join(capfd.readouterr())
    pages = ["report.html", "report.md", "samples.md", "model_card.md", "performance.svg"]
    texts = {name: (run_copy / name).read_bytes().decode() for name in pages}
    for name, text in {"terminal": said, **texts}.items():
        found = re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)
        assert not found, (name, text[max(0, found.start() - 40) : found.end() + 20])
    assert JOINED in said and JOINED in texts["samples.md"]
    assert str(corpus) in command_in(run_copy)


def test_a_dollar_in_a_name_is_no_formula(run_copy, tmp_path):
    named = run_copy.rename(tmp_path / "a$b_{c$ \\frac")
    other = Path(shutil.copytree(named, tmp_path / "<b>x</b>|y"))
    evaluate_model.main(["--run_dir", str(named), "--no-evaluate_base"])
    visualize_performance.main(["--run_dir", str(named)])
    visualize_performance.main(["--compare", str(named), str(other)])
    table = (named / "comparison.md").read_text()
    assert "<b>" not in table and "&lt;b" in table and "\\|y" in table


def test_without_the_base_model_the_report_says_so(run_copy):
    evaluate_model.main(["--run_dir", str(run_copy), "--no-evaluate_base"])
    visualize_performance.main(["--run_dir", str(run_copy)])
    page = (run_copy / "report.html").read_text()
    assert "the base model was not scored" in page and ">gain<" not in page


def test_completions_are_reported_with_rouge(finished, tmp_path):
    rows = [{"q": f"Number {n}?", "a": f"It is number {n}, my friend."} for n in range(120)]
    corpus = tmp_path / "x.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = tmp_path / "run"
    words = ["--run_dir", run, "--device", "cpu", "--model", finished.path / "model"]
    words += ["--corpus", corpus, "--prompt_column", "q", "--completion_column", "a"]
    chain_main(*words, "--max_steps", "2", "--to_step", "9")
    results = json.loads((run / "evaluate_model.json").read_text())["results"]
    assert results["rouge"]["examples"] == 12
    assert 0 <= results["rouge"]["tuned"]["rouge1"] <= 1
    records = {p.stem: json.loads(p.read_text())["results"] for p in run.glob("*.json")}
    trained, train = records["train_model"], records["train_test_split"]["splits"]["train"]
    lines = (
        f"about {records['configure_trainer']['tokens_per_step']:,} of text",
        f"{trained['tokens']:,} of text, {trained['tokens_learned']:,} of them learned",
        f"{trained['padding_tokens']:,} of padding",
        f"{train['tokens_learned']:,}",
        f"{train['padding_tokens']:,}",
    )
    pages = [(run / name).read_text() for name in ("report.html", "report.md", "model_card.md")]
    assert all(line in page for line in lines for page in pages) and "ROUGE-L" in pages[0]
    error = shell("evaluate_model.py", "--run_dir", str(run), "--stride", "4")
    assert error.returncode == 2 and "scored one by one" in error.stderr


# In a browser


def browse(page, *words):
    done = subprocess.run(
        [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", *words, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.stdout


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_sticks_out_on_a_phone_or_a_desktop(finished, tmp_path, width):
    """The page in a frame of that width: a browser's own window has a least width."""
    shutil.copy(finished.path / "report.html", tmp_path / "report.html")
    frame = f'<iframe id="f" src="report.html" style="width:{width}px;height:800px"></iframe>'
    script = """<script>onload = () => {
        const page = document.getElementById("f").contentDocument.documentElement;
        document.body.innerHTML = "<i>" + [page.scrollWidth, page.clientWidth,
            page.querySelectorAll("svg").length].join(" ") + "</i>"; }</script>"""
    (tmp_path / "outer.html").write_text(frame + script)
    text = browse(tmp_path / "outer.html", "--dump-dom", "--allow-file-access-from-files")
    content, room, pictures = map(int, re.search("<i>(.*?)</i>", text)[1].split())
    assert content <= room and room > width - 30 and pictures >= 4


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
@pytest.mark.parametrize("scheme, light", [(0, False), (1, True)], ids=["dark", "light"])
def test_the_page_follows_the_systems_light_or_dark(finished, tmp_path, scheme, light):
    shot = tmp_path / "shot.png"
    settings = [f"--blink-settings=preferredColorScheme={scheme}", "--window-size=1280,900"]
    browse(finished.path / "report.html", f"--screenshot={shot}", "--hide-scrollbars", *settings)
    with Image.open(shot) as colours:
        image = colours.convert("L")
    assert image.size == (1280, 900)
    corner, darkest, lightest = image.getpixel((3, 3)), *image.getextrema()
    assert (corner > 200) == light
    assert lightest - darkest > 150, "the letters must stand out"


# Pictures


def width_of(picture):
    with Image.open(picture) as image:
        return image.size[0]


def test_the_pictures_are_whole_and_readable_at_half_size(finished):
    assert width_of(finished.path / "performance.png") >= 1400
    svg = ElementTree.parse(finished.path / "performance.svg").getroot()
    texts = [element for element in svg.iter() if element.tag.endswith("}text")]
    sizes = [float(re.search(r"([\d.]+)px", element.get("style"))[1]) for element in texts]
    assert min(sizes) >= 10 and any("validation" in (e.text or "") for e in texts)


def history(steps, **values):
    return [{"step": s, "loss": 5 - s / 10, "grad_norm": 1.5, **values} for s in range(1, steps)]


def texts_of(figure):
    return " ".join(t.get_text() for axes in figure.axes for t in axes.get_legend().get_texts())


def test_best_and_early_stopped_steps_are_marked():
    entries = [*history(9), {"step": 4, "eval_loss": 4.25}, {"step": 8, "eval_loss": 4.5}]
    story = Story(entries, best_step=4, stopped_early=True)
    figure = draw_together(panels_of(story, PANELS)[:1], story, "title")
    assert "best, saved: 4.250 at step 4" in texts_of(figure)
    assert "stopped early at step 8" in texts_of(figure)
    plain = draw_together(panels_of(story, PANELS)[:1], Story(entries), "title")
    assert "best" not in texts_of(plain) and "stopped" not in texts_of(plain)


def test_speed_and_memory_are_drawn_where_they_are_logged(run_copy):
    assert panels_of(Story(history(5)), MEASURED) == []
    log = run_copy / "log_history.jsonl"
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    measured = {"tokens_per_second": 7000, "peak_memory_bytes": 2_500_000_000}
    log.write_text(
        "".join(json.dumps(e | (measured if "loss" in e else {})) + "\n" for e in entries)
    )
    record = json.loads((run_copy / "train_model.json").read_text())
    known = {"bytes": log.stat().st_size, "sha256": sha256_of([log])}
    record["measured"]["artifacts"]["log_history.jsonl"] = known
    write_record(run_copy / "train_model.json", record)
    visualize_performance.main(["--run_dir", str(run_copy)])
    assert (run_copy / "speed.png").stat().st_size > 10_000
    page = (run_copy / "report.html").read_text()
    assert "Training speed (tokens/s)" in page and "Memory, peak so far (GB)" in page
    record = json.loads((run_copy / "visualize_performance.json").read_text())
    assert "speed.svg" in record["measured"]["artifacts"]
    assert "speed.svg" not in record["results"]["artifacts"]


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_same_log_gives_the_same_bytes(tmp_path, kind):
    story = Story(history(9))
    for name in ("one", "two"):
        save_figure(draw_together(panels_of(story, PANELS), story, "t"), tmp_path / name, kind)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


# A training under way


def test_a_training_under_way_is_plotted_while_its_folder_is_held(run_copy, capsys):
    (run_copy / "train_model.json").unlink()
    log = run_copy / "log_history.jsonl"
    log.write_text(log.read_text() + '{"loss": 4.1, "st')  # a line that is being written
    before = {path: path.read_bytes() for path in run_copy.rglob("*") if path.is_file()}
    run = RunDirectory(run_copy)
    run.lock()
    done = shell("visualize_performance.py", "--run_dir", str(run_copy))
    run.unlock()
    assert done.returncode == 0 and "step 6" in done.stdout, done.stderr
    assert width_of(run_copy / "progress.png") >= 1400
    after = {path: path.read_bytes() for path in run_copy.rglob("*") if path.is_file()}
    assert {p.name for p in set(after) - set(before)} == {"progress.png", "progress.svg"}
    assert all(after[path] == content for path, content in before.items() if path in after)


@pytest.mark.parametrize("line", ['{"loss": 4.1, "st\n', "[1]\n", '{"loss": 1}\n'])
def test_a_damaged_log_line_is_refused_by_number(run_copy, refusal, line):
    log = run_copy / "log_history.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join([lines[0], line, *lines[1:]]))
    (run_copy / "train_model.json").unlink()
    error = refusal(visualize_performance.main, "--run_dir", run_copy)
    assert "log_history.jsonl: line 2 is no log entry" in error


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_log_that_is_missing_cut_or_empty_is_refused_and_written_anew(
    run_copy, refusal, all_flags, capsys, damage
):
    log, before = run_copy / "log_history.jsonl", read_log(run_copy / "log_history.jsonl")
    damage(log)
    error = refusal(visualize_performance.main, "--run_dir", run_copy)
    assert "train_model is stale (log_history.jsonl was changed or removed" in error
    if damage is not cut_in_half:
        return
    chain_main("--run_dir", run_copy, *all_flags, "--to_step", "7")
    assert "nothing is trained or logged again" in capsys.readouterr().out
    assert read_log(log) == before[:-1]  # but for the library's totals


def test_a_log_of_an_unfinished_training_may_be_missing_or_empty(run_copy, refusal):
    log = run_copy / "log_history.jsonl"
    (run_copy / "train_model.json").unlink()
    log.unlink()
    error = refusal(visualize_performance.main, "--run_dir", run_copy)
    assert "train_model has not run to its end" in error
    log.write_text("")
    assert "nothing is logged yet" in refusal(visualize_performance.main, "--run_dir", run_copy)


# What cannot be evaluated


def test_an_empty_test_split_is_refused(run_copy):
    run = RunDirectory(run_copy, 7, "cpu", "fp32")
    splits = evaluate_model.read_splits(run)
    splits["test"] = splits["test"].select([])
    inputs = (None, evaluate_model.read_gpt2(run)[1], splits, evaluate_model.EvaluateOptions(), run)
    with pytest.raises(evaluate_model.UserError, match="the test split is empty"):
        evaluate_model.evaluate_model(*inputs)


def test_a_run_that_never_trained_is_refused(run_copy, refusal):
    for name in ("train_model.json", "log_history.jsonl"):
        (run_copy / name).unlink()
    shutil.rmtree(run_copy / "model")
    for main in (evaluate_model.main, visualize_performance.main):
        assert "train_model has not run to its end" in refusal(main, "--run_dir", run_copy)


def test_documents_of_one_token_are_evaluated(run_copy, tmp_path, flags):
    """A letter and end-of-text each; of so few test tokens no interval is made up."""
    rows = tmp_path / "short.jsonl"
    letters = [chr(code) for code in range(97, 123)]
    rows.write_text("".join(json.dumps({"text": letter}) + "\n" for letter in letters))
    others = [
        word for name, words in flags.items() if name != "create_dataset.py" for word in words
    ]
    words = ["--corpus", rows, "--block_size", "4", "--to_step", "9"]
    chain_main("--run_dir", run_copy, *others, *words)
    results = json.loads((run_copy / "evaluate_model.json").read_text())["results"]
    assert results["tuned"]["tokens"] > 2 and results["tuned"]["perplexity"] > 1
    assert results["intervals"]["unit"] is None and "intervals" not in results["tuned"]
    assert "too small to say how sure" in (run_copy / "report.html").read_text()
