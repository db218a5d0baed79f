"""The chain: what a run leaves, what is done again and what is not, and what stops it."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

import evaluate_model
import generate
import train_model
import train_test_split
from tests.conftest import PROJECT, STEP_FILES, chain_main, shell
from toolkit.run.run_directory import RunDirectory
from toolkit.training.manifest import what_is_broken

LEFT_BY_A_RUN = {
    *(name.replace(".py", ".json") for name in STEP_FILES),
    *("base_model", "documents", "splits", "checkpoints", "model"),
    *("log_history.jsonl", "base_scores.safetensors", "test_losses.parquet"),
    *("performance.png", "performance.svg", "speed.png", "speed.svg"),
    *("report.html", "report.md", "model_card.md", "samples.md", "samples.jsonl"),
}


def contents(run):
    """What identical runs share: all but `measured`, and Trainer's own checkpoints."""
    found = {}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if path.is_dir() or name.startswith("checkpoints/"):
            continue
        if path.parent == run and path.suffix == ".json":
            record = json.loads(path.read_text())
            del record["measured"]
            found[name] = record
        elif path.name == "log_history.jsonl":
            entries = map(json.loads, path.read_text().splitlines())
            found[name] = [{k: v for k, v in e.items() if k != "measured"} for e in entries]
        elif path.name.startswith("report."):
            text = path.read_text().replace(str(run), "RUN")
            assert "<!--measured-->" in text
            found[name] = re.sub("<!--measured-->.*?<!--/measured-->", "", text, flags=re.DOTALL)
        elif not path.name.startswith("speed."):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def done_again(out):
    """The numbers of the steps that a runner's output says were done, not skipped."""
    lines = [line for line in out.splitlines() if line.startswith("[")]
    done = [line for line in lines if "] up to date: " not in line and "] again: " not in line]
    return [int(line[1:].split("/")[0]) for line in done]


def test_a_run_leaves_exactly_what_the_design_lists(finished):
    assert {path.name for path in finished.path.iterdir()} == LEFT_BY_A_RUN


def test_the_runner_ends_with_plot_result_and_samples_and_no_noise(finished):
    last = finished.out.split("\n\n")[-1]
    assert str(finished.path / "performance.png") in last
    assert str(finished.path / "report.html") in last
    assert "test perplexity" in last and "->" in last
    assert "before  " in last and "after  " in last
    assert finished.err == ""


def test_steps_from_the_shell_leave_the_same_directory_as_the_runner(finished, flags, tmp_path):
    run = tmp_path / "singly"
    for name in STEP_FILES:
        done = shell(name, "--run_dir", str(run), *flags[name])
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
    assert contents(run) == contents(finished.path)


def test_a_second_run_does_nothing(finished, all_flags, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.path.rglob("*")}
    chain_main("--run_dir", finished.path, *all_flags)
    assert done_again(capsys.readouterr().out) == []
    assert {path: path.stat().st_mtime_ns for path in finished.path.rglob("*")} == before


@pytest.mark.parametrize(
    "changed, again",
    [
        (["--top_k", "3"], [10]),
        (["--no-evaluate_base"], [8, 9]),
        (["--weight_decay", "0"], [6, 7, 8, 9, 10]),
        (["--validation_fraction", "0.2"], [5, 6, 7, 8, 9, 10]),
        (["--device", "auto"], [2, 3, 4, 5, 6, 7, 8, 9, 10]),
    ],
)
def test_a_changed_option_redoes_its_step_and_what_rests_on_it(
    run_copy, all_flags, changed, again, capsys
):
    chain_main("--run_dir", run_copy, *all_flags, *changed)
    assert done_again(capsys.readouterr().out) == again


def test_an_edited_step_redoes_itself_and_the_rest_and_nothing_before(
    run_copy, all_flags, tmp_path
):
    project = tmp_path / "project"
    ignore = shutil.ignore_patterns(".*", "runs", "tests", "__pycache__")
    shutil.copytree(PROJECT, project, ignore=ignore)
    step = project / "create_dataset.py"
    default = "document_separator: str | None = flag(\n        None,"
    assert default in step.read_text()
    step.write_text(step.read_text().replace(default, default.replace("None,", '"\\n\\n",')))
    done = shell("run_pipeline.py", "--run_dir", str(run_copy), *all_flags, cwd=project)
    assert done.returncode == 0, done.stderr
    assert done_again(done.stdout) == [4, 5, 6, 7, 8, 9, 10]
    alone = shell("generate.py", "--run_dir", str(run_copy), "--max_new_tokens", "8")
    assert alone.returncode == 0, alone.stderr  # using what is there asks for no training


def test_changed_corpus_content_is_noticed_with_the_same_time_stamp(tmp_path, flags, capsys):
    corpus, run = tmp_path / "text", tmp_path / "run"
    shutil.copytree(flags["create_dataset.py"][1], corpus)
    words = [w for name in STEP_FILES[:4] for w in flags[name] if name != "create_dataset.py"]
    words += ["--corpus", corpus, "--to_step", "5", "--run_dir", run]
    chain_main(*words)
    file = next(corpus.glob("*.txt"))
    stamp = file.stat()
    file.write_text(file.read_text().swapcase())
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    capsys.readouterr()
    chain_main(*words)
    assert done_again(capsys.readouterr().out) == [4, 5]


def test_an_identical_rerun_of_a_step_invalidates_nothing(run_copy, flags, all_flags, capsys):
    train_test_split.main(["--run_dir", str(run_copy), *flags["train_test_split.py"]])
    capsys.readouterr()
    chain_main("--run_dir", run_copy, *all_flags)
    assert done_again(capsys.readouterr().out) == []


def test_a_run_directory_can_be_moved(run_copy, all_flags, tmp_path, capsys):
    moved = run_copy.rename(tmp_path / "elsewhere")
    chain_main("--run_dir", moved, *all_flags)
    assert done_again(capsys.readouterr().out) == []


def test_from_step_to_step_and_force(run_copy, all_flags, capsys, refusal):
    from run_pipeline import main

    chain_main("--run_dir", run_copy, *all_flags, "--force", "--from_step", "4", "--to_step", "5")
    assert done_again(capsys.readouterr().out) == [4, 5]
    words = ["--run_dir", run_copy, *all_flags, "--from_step", "6"]
    assert "--block_size is for step 5" in refusal(main, *words, "--block_size", "16")


def test_a_config_file_sets_flags_and_flags_win(tmp_path, capsys):
    config = tmp_path / "flags.yaml"
    config.write_text("seed: 3\nlearning_rate: 1e-3\nprompt: [one, two]\nto_step: 2\n")
    words = ["--run_dir", tmp_path / "run", "--config", config]
    chain_main(*words)
    chain_main(*words, "--seed", "4")
    assert done_again(capsys.readouterr().out) == [2, 2]
    assert json.loads((tmp_path / "run/import_modules.json").read_text())["options"]["seed"] == 4


# Reading back


def test_every_reader_returns_what_its_step_returned(finished, tmp_path, corpus):
    import configure_trainer
    import create_dataset
    import import_modules
    import load_gpt2
    import visualize_performance
    from toolkit.run.options import build

    words = {"n_layer": 1, "n_head": 2, "n_embd": 16, "n_positions": 32, "vocab_size": 300}
    run = import_modules.read_run(
        import_modules.RunOptions(run_dir=str(tmp_path / "r"), device="cpu")
    )
    import_modules.import_modules(import_modules.RunOptions(), run)
    load_options = build(load_gpt2.LoadOptions, {"from_scratch": True, **words})
    model, tokenizer = load_gpt2.load_gpt2(load_options, run)
    again, tokenizer_again = load_gpt2.read_gpt2(run)
    assert all((a == b).all() for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert tokenizer.get_vocab() == tokenizer_again.get_vocab()

    options = create_dataset.DatasetOptions(corpus=[str(corpus)])
    documents = create_dataset.create_dataset(tokenizer, options, run)
    assert documents["train"][:] == create_dataset.read_documents(run)["train"][:]

    splits = train_test_split.train_test_split(documents, train_test_split.SplitOptions(), run)
    read = train_test_split.read_splits(run)
    assert all((splits[n][:]["input_ids"] == read[n][:]["input_ids"]).all() for n in splits)

    options = configure_trainer.TrainerOptions(max_steps=2)
    trainer = configure_trainer.configure_trainer(model, splits, options, run)
    ours, theirs = trainer.args.to_dict(), configure_trainer.read_trainer(run).args.to_dict()
    assert ours == theirs

    tokenizer = train_test_split.read_own_tokenizer(run)  # it was trained on the training text
    tuned = train_model.train_model(trainer, tokenizer, train_model.TrainOptions(), run)
    again = train_model.read_tuned(run)
    assert all((a == b).all() for a, b in zip(tuned.parameters(), again.parameters(), strict=True))

    options = evaluate_model.EvaluateOptions()
    metrics = evaluate_model.evaluate_model(tuned, tokenizer, splits, options, run)
    assert metrics == evaluate_model.read_metrics(run)

    report = visualize_performance.visualize_performance(
        metrics, visualize_performance.VisualizeOptions(), run
    )
    assert report == visualize_performance.read_report(run) and report.stat().st_size > 10_000

    options = generate.GenerateOptions(max_new_tokens=5)
    samples = generate.generate(tuned, tokenizer, splits, options, run)
    assert samples == generate.read_samples(run)


# Missing, stale, in use


def test_a_step_without_its_input_says_which_command_mends_it(tmp_path, refusal):
    error = refusal(train_test_split.main, "--run_dir", tmp_path / "none")
    assert "import_modules has not run to its end" in error
    assert f"python3 run_pipeline.py --run_dir {tmp_path / 'none'} --to_step 2" in error or (
        f"python3 import_modules.py --run_dir {tmp_path / 'none'}" in error
    )


def test_the_command_that_mends_mends(run_copy, refusal):
    (run_copy / "train_test_split.json").unlink()
    shutil.rmtree(run_copy / "splits")
    error = refusal(generate.main, "--run_dir", run_copy)
    command = error.split("run: python3 ")[1].split()
    done = shell(*command)
    assert done.returncode == 0, done.stderr
    generate.main(["--run_dir", str(run_copy), "--max_new_tokens", "4"])


@pytest.mark.parametrize(
    "file, content, says",
    [
        ("train_model.json", None, "train_model has not run to its end"),
        ("train_model.json", '{"options": {}', "train_model.json) that is damaged"),
        ("model/model.safetensors", "cut", "model was changed or removed"),
        ("evaluate_model.json", "[]", "evaluate_model.json) that is damaged"),
    ],
)
def test_stale_or_damaged_input_is_refused(run_copy, refusal, file, content, says):
    import visualize_performance

    (run_copy / file).unlink()
    if content:
        (run_copy / file).write_text(content)
    next_step = visualize_performance if file == "evaluate_model.json" else evaluate_model
    assert says in refusal(next_step.main, "--run_dir", run_copy)


def test_an_upstream_step_with_other_results_makes_the_rest_stale(run_copy, refusal):
    train_test_split.main(["--run_dir", str(run_copy), "--block_size", "16"])
    error = refusal(evaluate_model.main, "--run_dir", run_copy)
    assert "train_test_split has run again since" in error


def test_run_flags_that_contradict_the_run_are_refused(run_copy, refusal):
    error = refusal(generate.main, "--run_dir", run_copy, "--seed", "8")
    assert "--seed is 7" in error and "python3 import_modules.py" in error


def test_a_run_directory_in_use_is_refused_with_the_process_that_holds_it(run_copy):
    code = "from toolkit.run.run_directory import RunDirectory; "
    code += f"run = RunDirectory({str(run_copy)!r}); run.lock()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code + "; print('held', flush=True); input()"],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout.readline() == "held\n"
        done = shell("generate.py", "--run_dir", str(run_copy))
        assert done.returncode == 2
        assert f"in use by process {holder.pid}" in done.stderr
    finally:
        holder.communicate("\n")
    assert {path.name for path in run_copy.iterdir()} == LEFT_BY_A_RUN


def test_a_failing_step_leaves_the_earlier_artifact_and_its_record(run_copy, refusal, flags):
    before = contents(run_copy)
    words = ["--run_dir", run_copy, "--block_size", "64", "--test_fraction", "0.001"]
    (run_copy / "documents").rename(run_copy / "aside")
    assert "documents was changed or removed" in refusal(train_test_split.main, *words)
    (run_copy / "aside").rename(run_copy / "documents")
    assert "beyond the model's 64 positions" in refusal(
        train_test_split.main, "--run_dir", run_copy, "--block_size", "65"
    )
    assert contents(run_copy) == before


def test_artifacts_and_record_appear_only_when_the_step_ends_well(tmp_path):
    from dataclasses import dataclass

    @dataclass
    class NoOptions:
        pass

    run = RunDirectory(tmp_path)
    with pytest.raises(ZeroDivisionError), run.step("import_modules.py", NoOptions()) as step:
        (step.folder("thing") / "file").write_text("half")
        raise ZeroDivisionError
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith(".lock")] == []


# Stopping and going on


def start_training(run, flags, *more):
    words = [word for name in STEP_FILES for word in flags[name]]
    words += ["--run_dir", str(run), "--max_steps", "400", "--eval_steps", "20", *more]
    return subprocess.Popen(
        [sys.executable, "run_pipeline.py", *words],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    _, error = process.communicate(timeout=200)
    assert process.returncode == 0, error
    assert "transformers" not in error and "Warning" not in error, error


def wait_for_checkpoint(run, process):
    deadline = time.monotonic() + 120
    while all(map(what_is_broken, run.glob("checkpoints/checkpoint-*"))):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, flags):
    run = tmp_path_factory.mktemp("whole") / "run"
    process = start_training(run, flags, "--to_step", "7")
    finish(process)
    return run


@pytest.mark.parametrize(
    "number, code",
    [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGKILL, -9)],
)
def test_a_stopped_training_goes_on_to_the_same_weights(
    uninterrupted, tmp_path, flags, number, code
):
    run = tmp_path / "run"
    process = start_training(run, flags, "--to_step", "7")
    wait_for_checkpoint(run, process)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code
    if number == signal.SIGINT:
        assert "saved; the same command goes on from there" in error and "Traceback" not in error
    assert not (run / "train_model.json").exists() and not (run / "model").exists()
    process = start_training(run, flags, "--to_step", "7")
    finish(process)
    record = json.loads((run / "train_model.json").read_text())
    assert record["measured"]["resumed_from"] >= 3
    weights = "model/model.safetensors"
    assert (run / weights).read_bytes() == (uninterrupted / weights).read_bytes()


def test_a_run_copied_to_a_machine_without_the_corpus_still_answers(tmp_path, flags):
    corpus, run = tmp_path / "text", tmp_path / "run"
    shutil.copytree(flags["create_dataset.py"][1], corpus)
    words = [w for name in STEP_FILES[:6] for w in flags[name] if name != "create_dataset.py"]
    chain_main(*words, "--corpus", corpus, "--to_step", "7", "--run_dir", run)
    shutil.rmtree(corpus)
    generate.main(["--run_dir", str(run), "--prompt", "The", "--max_new_tokens", "3"])


def test_the_tokens_trained_on_are_those_of_the_batches(finished):
    """Counted anew from the blocks: batches of 4, the last one of an epoch ragged."""
    blocks = json.loads((finished.path / "train_test_split.json").read_text())["results"]
    count = blocks["splits"]["train"]["blocks"]
    record = json.loads((finished.path / "train_model.json").read_text())["results"]
    batches = [min(4, count - start) for start in range(0, count, 4)]
    rounds = batches * (record["steps"] // len(batches) + 1)
    assert record["tokens"] == sum(rounds[: record["steps"]]) * blocks["block_size"]


def test_work_files_of_a_killed_step_are_removed_by_the_next(run_copy, flags):
    (run_copy / ".scratch").mkdir()
    (run_copy / ".scratch/train.arrow").write_text("left by a kill")
    train_test_split.main(["--run_dir", str(run_copy), *flags["train_test_split.py"]])
    assert not (run_copy / ".scratch").exists()
