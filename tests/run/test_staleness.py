"""What is done again, and what may be used: rules that tell the truth."""

import json
import os
import re
import shutil

import pytest

import create_dataset
import generate
import train_test_split
from load_gpt2 import read_gpt2
from run_pipeline import Chain, options_of
from tests.conftest import PROJECT, STEP_FILES, chain_main, shell
from tests.run.test_chain import contents, done_again
from toolkit.run import files, records, source, start
from toolkit.run.options import parse_flags
from toolkit.run.run_directory import RunDirectory
from toolkit.run.steps import STEPS
from train_model import read_tuned


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of the project's code, to edit; steps are held against it."""
    copy = tmp_path / "project"
    ignore = shutil.ignore_patterns(".*", "runs", "tests", "data", "docs", "__pycache__")
    shutil.copytree(PROJECT, copy, ignore=ignore)
    monkeypatch.setattr(source, "PROJECT", copy)
    source.read_source.cache_clear()
    yield copy
    source.read_source.cache_clear()


@pytest.fixture
def edit(project):
    def replace(file, old, new):
        text = (project / file).read_text(encoding="utf-8")
        assert old in text, f"{file} does not hold {old!r} any more: mend this test"
        (project / file).write_text(text.replace(old, new, 1), encoding="utf-8")
        source.read_source.cache_clear()

    return replace


@pytest.fixture
def append(project):
    def add(file, text):
        with (project / file).open("a", encoding="utf-8") as open_file:
            open_file.write(text)
        source.read_source.cache_clear()

    return add


@pytest.fixture
def reasons(run_copy, all_flags):
    """Why steps would be done again, by step, leaving out those that would not."""
    groups = [options_of(name) for name in STEPS[1:]]
    chain = Chain(parse_flags(["--run_dir", str(run_copy), *all_flags], "", *groups))

    def find():
        why = {name: chain.run.reason_to_redo(name, chain.options[name]) for name in STEPS[1:]}
        return {name: reason for name, reason in why.items() if reason}

    yield find
    chain.run.unlock()


# Code


def test_nothing_is_done_again_while_nothing_changed(reasons, project):
    assert reasons() == {}


def test_a_bug_in_the_packing_redoes_the_split_and_what_computes_with_it(reasons, edit):
    edit("toolkit/blocks/packing.py", "whole = len(tokens) // block_size", "whole = 1")
    assert set(reasons()) == set(STEPS[STEPS.index("train_test_split") :])
    assert reasons()["train_test_split"] == "toolkit/blocks/packing.py was edited"


@pytest.mark.parametrize(
    "file, first",
    [
        ("toolkit/model/forward.py", "load_gpt2"),
        ("toolkit/corpus/tokenizing.py", "create_dataset"),
        ("toolkit/training/arguments.py", "configure_trainer"),
        ("toolkit/scoring/bootstrap.py", "evaluate_model"),
        ("toolkit/report/report.html.jinja", "visualize_performance"),
        ("train_model.py", "train_model"),
    ],
)
def test_an_edit_redoes_the_steps_that_reach_the_file_and_none_before(reasons, append, file, first):
    append(file, "ADDED = 1\n")
    assert min(map(STEPS.index, reasons())) == STEPS.index(first)
    assert reasons()[first] == f"{file} was edited"


@pytest.mark.parametrize("file", [f"{name}.py" for name in STEPS[1:]] + ["toolkit/model/gpt2.py"])
def test_comments_docstrings_and_layout_redo_nothing(reasons, edit, append, file):
    edit(file, '"""', '"""Reworded: ')
    append(file, "\n\n# a remark\n\n")
    assert reasons() == {}


@pytest.mark.parametrize(
    "file",
    [
        *("toolkit/serving/page.py", "toolkit/serving/page.js", "toolkit/serving/page.html.jinja"),
        *("toolkit/run/console.py", "toolkit/run/options.py"),
        *("run_pipeline.py", "install_libraries.py", "toolkit/training/__init__.py"),
    ],
)
def test_code_that_changes_no_result_redoes_nothing(reasons, append, file):
    append(file, "ADDED = 1\n")
    assert reasons() == {}


def test_a_step_file_reaches_the_code_it_computes_with():
    reached = source.source_of("train_test_split.py")
    assert {"train_test_split.py", "create_dataset.py", "toolkit/blocks/packing.py"} <= set(reached)
    assert not any(name.startswith(("toolkit/run/", "toolkit/serving/")) for name in reached)
    assert "toolkit/report/report.md.jinja" in source.source_of("visualize_performance.py")
    assert "toolkit/training/trainer.py" not in reached


def test_using_what_is_finished_never_asks_whether_code_changed(run_copy, append):
    append("create_dataset.py", "ADDED = 1\n")
    run = RunDirectory(run_copy)
    assert all(run.finished(name) == run_copy for name in STEPS[1:])


def test_the_runner_says_why_a_step_is_done_again(run_copy, all_flags, capsys):
    chain_main("--run_dir", run_copy, *all_flags, "--top_k", "3")
    assert "[10/10] again: --top_k was 50\n[10/10] " in capsys.readouterr().out


def test_other_versions_redo_step_2_alone_and_are_said(run_copy, all_flags, capsys, monkeypatch):
    known = start.library_versions()
    monkeypatch.setattr(start, "library_versions", lambda: known | {"torch": "99.1"})
    generate.main(["--run_dir", str(run_copy), "--prompt", "a", "--max_new_tokens", "2"])
    assert f"torch {known['torch']} -> 99.1 since step 2" in capsys.readouterr().out
    chain_main("--run_dir", run_copy, *all_flags, "--to_step", "9")
    out = capsys.readouterr().out
    assert f"[2/10] again: torch {known['torch']} -> 99.1\n" in out and done_again(out) == [2]


# Input files


def hashed(monkeypatch):
    """The list of what is hashed from here on."""
    seen = []
    for name in ("sha256_of", "sha256_of_ends"):
        plain = getattr(files, name)
        spy = lambda paths, plain=plain: (seen.extend(paths), plain(paths))[1]  # noqa: E731
        monkeypatch.setattr(records, name, spy)
    return seen


def test_neither_using_nor_deciding_reads_an_untouched_corpus(
    run_copy, all_flags, flags, monkeypatch
):
    corpus = flags["create_dataset.py"][1]
    seen = hashed(monkeypatch)
    generate.main(["--run_dir", str(run_copy), "--prompt", "a", "--max_new_tokens", "2"])
    chain_main("--run_dir", run_copy, *all_flags, "--to_step", "9")
    assert corpus not in map(str, seen)


def test_a_touched_corpus_is_hashed_once_and_not_read_again(tmp_path, flags, monkeypatch, capsys):
    corpus, run = tmp_path / "text", tmp_path / "run"
    shutil.copytree(flags["create_dataset.py"][1], corpus)
    words = [w for name in STEP_FILES[:3] for w in flags[name] if name != "create_dataset.py"]
    words += ["--corpus", corpus, "--to_step", "4", "--run_dir", run]
    chain_main(*words)
    for file in corpus.iterdir():
        os.utime(file)
    seen = hashed(monkeypatch)
    chain_main(*words)
    assert seen.count(corpus) == 1
    chain_main(*words)
    assert seen.count(corpus) == 1 and done_again(capsys.readouterr().out) == [2, 3, 4]


# Artifacts


def flip(path):
    """Change a byte of a file; its size and times stay."""
    stamp, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


def test_a_small_artifact_is_known_by_its_content(run_copy, refusal):
    flip(run_copy / "splits/test.arrow")
    error = refusal(generate.main, "--run_dir", run_copy)
    assert "train_test_split is stale (splits was changed or removed since)" in error
    assert "run: python3 run_pipeline.py" in error


@pytest.mark.parametrize(
    "file, read, step",
    [
        ("base_model/model.safetensors", read_gpt2, "load_gpt2"),
        ("documents/train.arrow", create_dataset.read_documents, "create_dataset"),
        ("splits/train.arrow", train_test_split.read_splits, "train_test_split"),
        ("model/model.safetensors", read_tuned, "train_model"),
    ],
)
def test_damage_that_keeps_size_and_times_is_named_by_who_opens_it(
    run_copy, monkeypatch, file, read, step
):
    monkeypatch.setattr(records, "SMALL", 0)
    flip(run_copy / file)
    run, name = RunDirectory(run_copy), file.split("/")[0]
    assert run.problem(step) is None  # nobody has opened it
    expected = f"{run_copy}/{name}: damaged: not what {step} left there; run: python3 {step}.py"
    with pytest.raises(records.Damaged, match=re.escape(expected)):
        read(run)
    assert run.problem(step) == f"is stale ({name} was changed or removed since)"


def test_the_runner_makes_again_what_it_finds_damaged(run_copy, monkeypatch, all_flags, capsys):
    monkeypatch.setattr(records, "SMALL", 0)
    whole = (run_copy / "documents/train.arrow").read_bytes()
    flip(run_copy / "documents/train.arrow")
    chain_main("--run_dir", run_copy, *all_flags, "--block_size", "16", "--to_step", "5")
    said = capsys.readouterr().out
    assert "[4/10] again: is stale (documents was changed or removed since)" in said
    assert said.count("[5/10] again: --block_size was 32") == 2
    assert (run_copy / "documents/train.arrow").read_bytes() == whole


def test_what_is_opened_is_hashed_once_a_process_and_not_after_it_was_written(
    run_copy, monkeypatch
):
    monkeypatch.setattr(records, "SMALL", 0)
    run, seen = RunDirectory(run_copy, seed=7), hashed(monkeypatch)
    for _ in range(2):
        documents = create_dataset.read_documents(run)
    assert seen.count(run_copy / "documents") == 1
    train_test_split.train_test_split(documents, train_test_split.SplitOptions(), run)
    train_test_split.read_splits(run)
    assert run_copy / "splits" not in seen


def test_a_large_artifact_is_hashed_once_its_times_moved(run_copy, monkeypatch):
    monkeypatch.setattr(records, "SMALL", 0)
    model, seen = run_copy / "model", hashed(monkeypatch)
    RunDirectory(run_copy).finished("train_model")
    assert model not in seen or seen.count(model) == 1  # the copy may have moved the times
    for file in model.iterdir():
        os.utime(file)
    run = RunDirectory(run_copy)
    run.lock()
    before = seen.count(model)
    assert run.finished("train_model") and seen.count(model) == before + 1
    run.unlock()
    assert RunDirectory(run_copy).finished("train_model") and seen.count(model) == before + 1


def test_an_error_between_two_artifacts_leaves_no_record_to_trust(run_copy, monkeypatch, flags):
    plain, count = records.Path.rename, 0

    def rename(path, home):
        nonlocal count
        count += path.parent == run_copy
        if count == 2:
            raise OSError(5, "Input/output error")
        return plain(path, home)

    monkeypatch.setattr(records.Path, "rename", rename)
    with pytest.raises(SystemExit):
        generate.main(["--run_dir", str(run_copy), "--prompt", "else", "--max_new_tokens", "2"])
    monkeypatch.undo()
    assert RunDirectory(run_copy).problem("generate") == records.NOT_RUN
    assert not list(run_copy.glob(".*.unfinished"))


def test_an_error_before_publishing_changes_nothing(run_copy, monkeypatch):
    before = contents(run_copy)

    def full(path, record):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("toolkit.run.run_directory.write_record", full)
    with pytest.raises(SystemExit):
        generate.main(["--run_dir", str(run_copy), "--prompt", "else", "--max_new_tokens", "2"])
    assert contents(run_copy) == before


# Records


def spoil(change):
    def spoiled(text):
        record = json.loads(text)
        change(record)
        return json.dumps(record, indent=2)

    return spoiled


DAMAGE = {
    "an option": spoil(lambda r: r["options"].update(block_size=16)),
    "a result": spoil(lambda r: r["results"].update(block_size=16)),
    "a measurement": spoil(lambda r: r["measured"].update(seconds_in_step=0)),
    "after null": spoil(lambda r: r.update(after=None)),
    "no measured": spoil(lambda r: r.pop("measured")),
    "measured a number": spoil(lambda r: r.update(measured=3)),
    "a number for a list": spoil(lambda r: r["measured"].update(flags=7)),
    "no seal": spoil(lambda r: r["measured"].pop("sha256")),
    "an unknown step": spoil(lambda r: r["after"].update(eleventh="0")),
    "a list": lambda text: f"[{text}]",
    "half": lambda text: text[: len(text) // 2],
    "nothing": lambda text: "",
    "no UTF-8": lambda text: text.replace("{", "{\udcff", 1),
    "deep": lambda text: "[" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_or_edited_record_is_refused_by_name_and_never_obeyed(run_copy, refusal, damage):
    path = run_copy / "train_test_split.json"
    text = DAMAGE[damage](path.read_text(encoding="utf-8"))
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    error = refusal(generate.main, "--run_dir", run_copy)
    assert "train_test_split has a record (train_test_split.json) that is damaged" in error
    assert "run: python3 run_pipeline.py --run_dir" in error
    assert "damaged" in RunDirectory(run_copy).reason_to_redo("train_test_split", None)


def test_the_command_that_the_refusal_names_mends_a_damaged_record(run_copy, refusal):
    (run_copy / "train_test_split.json").write_text("{}")
    command = refusal(generate.main, "--run_dir", run_copy).split("run: python3 ")[1].split()
    done = shell(*command)
    assert done.returncode == 0, done.stderr
    assert "[5/10] again: has a record (train_test_split.json) that is damaged" in done.stdout
    generate.main(["--run_dir", str(run_copy), "--max_new_tokens", "4"])


# An eleventh step, by the recipe in CONTRIBUTING.md

ELEVENTH = '''"""Step 11: count the different words of the samples. Leaves count_words.json."""

from __future__ import annotations

if __name__ == "__main__":
    __import__("install_libraries").enter_environment()

from dataclasses import dataclass

from generate import read_samples
from toolkit.run.command import command
from toolkit.run.options import flag
from toolkit.run.run_directory import RunDirectory
from toolkit.run.start import parse


@dataclass
class CountOptions:
    """step 11, count_words"""

    fold_case: bool = flag(False, "count Sea and sea as one")


def count_words(samples: list[dict], options: CountOptions, run: RunDirectory) -> int:
    """Return the number of different words in what the tuned model wrote."""
    with run.step(__file__, options, after="generate") as step:
        text = " ".join(text for entry in samples for text in entry["tuned"])
        words = set((text.lower() if options.fold_case else text).split())
        step.results = {"words": len(words)}
        step.summary = f"{len(words)} different words"
    return len(words)


def read_words(run: RunDirectory) -> int:
    return run.results("count_words")["words"]


@command
def main(argv: list[str] | None = None) -> None:
    run, options = parse(argv, CountOptions, about=__doc__)
    count_words(read_samples(run), options, run)


if __name__ == "__main__":
    main()
'''


def test_an_eleventh_step_is_a_file_a_line_and_its_place_in_the_chain(
    run_copy, all_flags, edit, project
):
    (project / "count_words.py").write_text(ELEVENTH)
    edit("toolkit/run/steps.py", '    "generate",\n', '    "generate",\n    "count_words",\n')
    imported = "from create_dataset import create_dataset, read_documents\n"
    added = "from count_words import count_words, read_words\n"
    edit("run_pipeline.py", imported, added + imported)
    line = "    samples = chain(generate, read_samples, tuned, tokenizer, splits)\n"
    edit("run_pipeline.py", line, f"{line}    chain(count_words, read_words, samples)\n")
    words = ["run_pipeline.py", "--run_dir", str(run_copy), *all_flags]
    done = shell(*words, cwd=project)
    assert done.returncode == 0, done.stderr
    assert "[10/11] up to date" in done.stdout and "[11/11] " in done.stdout
    assert "[11/11] up to date: " in shell(*words, cwd=project).stdout
    again = shell(*words, "--fold_case", cwd=project).stdout
    assert "[10/11] up to date" in again and "[11/11] again: --fold_case was False" in again
    alone = shell("count_words.py", "--run_dir", str(run_copy), cwd=project)
    assert alone.returncode == 0 and "[11/11] " in alone.stdout
    assert "--fold_case" in shell("run_pipeline.py", "--help", cwd=project).stdout
