"""The scripts of benchmarks/ run, at a toy size; and what documents print are commands that exist.

Speeds are not judged here: two threads and a busy machine would decide. What is judged is that each
script ends well, and that the table it prints is whole.
"""

import ast
import functools
import math
import re
import shlex

import pyarrow
import pyarrow.parquet
import pytest

from benchmarks import data_throughput, evaluate_throughput, train_throughput
from install_libraries import InstallOptions
from run_pipeline import RunnerOptions, options_of
from tests.conftest import FLAGS, PROJECT, shell
from toolkit.run.devices import cpu_has_bf16
from toolkit.run.options import parse_flags
from toolkit.run.start import RunOptions, read_run
from toolkit.run.steps import STEPS

TOKENIZER = "data/gpt2-mini"
CONTENDERS = ("ours", "stock_bf16", "stock_fp32", "last_block")
TINY_RUN = [*FLAGS["load_gpt2.py"], *FLAGS["train_test_split.py"], *FLAGS["configure_trainer.py"]]
NUMBER = re.compile(r"-?(?:\d[\d,]*(?:\.\d+)?|nan|inf)")


def printed_by(script, *words):
    """Run a script of benchmarks/, expect exit code 0, and return the lines it printed."""
    done = shell(f"benchmarks/{script}.py", *map(str, words), TQDM_DISABLE="1")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def numbers_of(text):
    """Return the numbers in a line, all of which must be finite and not below zero."""
    numbers = [float(found.replace(",", "")) for found in NUMBER.findall(text)]
    assert all(math.isfinite(number) and number >= 0 for number in numbers), text
    return numbers


@pytest.fixture(scope="module")
def shards(tmp_path_factory, corpus):
    """Two tables: the corpus, and the corpus again with other words."""
    folder = tmp_path_factory.mktemp("shards")
    texts = [path.read_text() for path in sorted(corpus.glob("*.txt"))]
    for number, column in enumerate([texts, [f"Again: {text}" for text in texts]]):
        path = folder / f"corpus-{number}.parquet"
        pyarrow.parquet.write_table(pyarrow.table({"text": column}), path)
    return sorted(folder.glob("*.parquet"))


def check_training(lines, contenders, steps):
    heading, columns, *rest = lines
    assert heading.startswith("a toy GPT-2, 2 x 32 tokens") and columns.startswith("contender ")
    assert len(rest) == 2 * len(contenders)
    rows, losses = rest[: len(contenders)], rest[len(contenders) :]
    for name, row, curve in zip(contenders, rows, losses, strict=True):
        word, *cells = row.split()
        speed, times, _, memory, share = [numbers_of(cell)[0] for cell in cells]
        assert word == name and min(speed, times, memory, share) > 0
        assert curve.startswith(f"losses {name}: ")
        curve = numbers_of(curve.partition(": ")[2])
        assert len(curve) == steps and min(curve) > 1


def train_toy(*contenders):
    words = ["--shape", "toy", "--blocks", 2, "--steps", 4, "--rounds", 1, "--contenders"]
    check_training(printed_by("train_throughput", *words, *contenders), contenders, steps=4)


needs_bf16 = pytest.mark.skipif(
    not cpu_has_bf16(), reason="bf16 is emulated here: its yardstick alone takes minutes"
)


@needs_bf16
def test_training_is_measured():
    train_toy("ours")


@needs_bf16
def test_training_on_examples_is_measured():
    words = ["--shape", "mini", "--blocks", 1, "--steps", 3, "--rounds", 1]
    heading, *rest = printed_by(
        "train_throughput", *words, "--examples", "--contenders", "stock_bf16"
    )
    assert "1 x 256 tokens (padded examples)" in heading and len(rest) == 3


@needs_bf16
@pytest.mark.slow
def test_every_contender_is_trained():
    train_toy(*CONTENDERS)


@needs_bf16
@pytest.mark.slow
@pytest.mark.parametrize("contender, package", [("lora", "peft"), ("trl_bf16", "trl")])
def test_a_contender_of_another_package_is_trained(contender, package):
    pytest.importorskip(package)
    train_toy("ours", contender)


@pytest.mark.parametrize(
    "words, complaint",
    [
        (["--steps", "2"], "--steps must be above 2"),
        (["--shape", "toy", "--block_size", "65"], "--block_size 65 is more than the 64 positions"),
    ],
)
def test_what_cannot_be_measured_is_refused(words, complaint, refusal):
    assert complaint in refusal(train_throughput.main, *words)


def test_generation_is_measured():
    words = ["--shape", "toy", "--prompts", 4, "--repetitions", 1]
    heading, empty, columns, line, *rows = printed_by("generate_throughput", *words)
    assert heading.startswith("toy, 4 prompts x 16 tokens") and not empty
    assert columns == "| | tokens/s | times the loop | texts as the loop's |"
    assert line == "|---|---|---|---|"
    names = ["model.generate, one by one, fp32", "one batch, fp32", "ours, one by one, fp32"]
    if cpu_has_bf16():
        names += ["one batch, bf16", "ours, one by one, bf16"]
    for name, row in zip(names, rows, strict=True):
        _, first, speed, times, same, _ = [cell.strip() for cell in row.split("|")]
        assert first == name
        assert min(*numbers_of(speed), *numbers_of(times)) > 0
        assert same == "4 of 4" or "bf16" in name


def test_a_corpus_is_measured_in_every_way(shards):
    files, tokenizer = [str(path) for path in shards], str(PROJECT / TOKENIZER)
    runs = {kind: [of(files, tokenizer)] for kind, of in data_throughput.KINDS.items()}
    assert all(value > 0 for (run,) in runs.values() for value in run.values())
    check_data(data_throughput.as_row(2, runs), files=2)


@pytest.mark.slow
def test_growing_corpora_are_measured(shards):
    heading, *rows = printed_by("data_throughput", "--tokenizer", TOKENIZER, "--repeat", 1, *shards)
    assert heading == data_throughput.HEADING and len(rows) == 2
    for files, row in enumerate(rows, start=1):
        check_data(row, files)


def check_data(row, files):
    # MB of text and seconds of step 5: of a toy too small for the digits shown
    first, _, speed, tokens, share, _, *more = numbers_of(row)
    assert first == files and min(speed, tokens, share, *more) > 0
    assert len(more) == 5


def test_scoring_is_measured(run_copy):
    run = read_run(RunOptions(run_dir=str(run_copy)))
    once = evaluate_throughput.score(run, 2)
    assert set(once) == {"scoring", "peak_bytes"}
    assert all(math.isfinite(value) and value > 0 for value in once.values())


@pytest.mark.slow
def test_scoring_is_measured_against_training(corpus):
    words = ["--repeat", 2, "--corpus", corpus, f"--flags={shlex.join(TINY_RUN)}"]
    *pairs, median, one, four, sixteen = printed_by("evaluate_throughput", *words)
    assert len(pairs) == 2
    for line in pairs:
        training, scoring, ratio = numbers_of(line)
        assert training > 0 and ratio == pytest.approx(scoring / training, abs=0.01)
    assert median.startswith("median: ") and numbers_of(median)[0] > 0
    for times, line in zip((1, 4, 16), (one, four, sixteen), strict=True):
        number, peak = numbers_of(line)
        assert number == times and 50 < peak < 50_000


@pytest.mark.slow
def test_lm_eval_says_what_we_say(finished, corpus, tmp_path):
    pytest.importorskip("lm_eval")
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(path.read_text() for path in sorted(corpus.glob("*"))[:3]))
    words = [finished.path / "model", text, "--block_size", 32]
    lines = printed_by("lm_eval_check", *words)[-2:]
    for name, line in zip(("word_perplexity", "bits_per_byte"), lines, strict=True):
        assert line.startswith(f"{name}: ours ")
        ours, theirs, ratio = numbers_of(line)
        assert ours == pytest.approx(theirs, rel=1e-4) and ratio == pytest.approx(1, abs=1e-4)


def test_the_coverage_of_intervals_is_measured(finished):
    words = [finished.path, "--draws", 20]
    folder, heading, line, *rows = printed_by("interval_coverage", *words)
    assert folder == str(finished.path) and heading.count("|") == line.count("|") == 8
    assert rows
    for row in rows:
        what, tokens, units, *figures = [cell.strip() for cell in row.strip("|").split("|")]
        assert (what, units) == ("a stretch", "4 stretches") and numbers_of(tokens)[0] >= 500
        loss, gain, *widths = (numbers_of(figure)[0] for figure in figures)
        assert loss <= 100 and gain <= 100 and min(widths) > 0


def printed_commands():
    """Yield file and command line of every `python3 ...` that the documents and scripts print."""
    documents = [PROJECT / "benchmarks/README.md", *sorted((PROJECT / "docs").glob("*.md"))]
    for path in [*documents, *sorted((PROJECT / "benchmarks").glob("*.py"))]:
        text = path.read_text()
        text = ast.get_docstring(ast.parse(text)) if path.suffix == ".py" else text
        for line in text.replace("\\\n", " ").splitlines():
            if re.match(r"( {4})?python3 ", line):
                yield path.relative_to(PROJECT).as_posix(), line.strip()


PRINTED = list(printed_commands())
OPTIONS = {f"{step}.py": [RunOptions, options_of(step)] for step in STEPS[1:]}
OPTIONS["run_pipeline.py"] = [RunnerOptions, *map(options_of, STEPS[1:])]
OPTIONS["install_libraries.py"] = [InstallOptions]


@functools.cache
def flags_of_script(path):
    """Return the flags in a script's usage; what its docstring says of others does not count."""
    done = shell(path, "--help")
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"--\w+", done.stdout.partition("\n\n")[0]))


def check_flags(path, words):
    """Fail if the file's own parser would not take the flags."""
    if path.startswith("benchmarks/"):
        assert {word for word in words if re.fullmatch(r"--\w+", word)} <= flags_of_script(path)
        for flags in (word for word in words if re.match(r"--\w+ ", word)):
            check_flags("run_pipeline.py", shlex.split(flags))  # one word: for the runner
        return
    parse_flags(words, "", *OPTIONS[path])


@pytest.mark.parametrize("where, line", PRINTED, ids=[f"{w}: {c}"[:90] for w, c in PRINTED])
def test_a_printed_command_names_files_and_flags_that_exist(where, line):
    words = shlex.split(line.partition(" && ")[0], comments=True)[1:]
    for word in words:
        if re.match(r"(benchmarks|data|docs|toolkit|tests|requirements)\b", word):
            assert (PROJECT / word).exists(), word
    if words[0] != "-m":
        assert (PROJECT / words[0]).is_file(), words[0]
        check_flags(words[0], words[1:])


def test_every_script_is_printed_and_no_document_was_overlooked():
    scripts = {path.name for path in (PROJECT / "benchmarks").glob("*.py")}
    told = " ".join(line for where, line in PRINTED if where == "benchmarks/README.md")
    assert scripts - {"fresh_process.py"} == set(re.findall(r"benchmarks/(\w+\.py)", told))
    assert {"docs/exercises.md", "docs/serving.md"} <= {where for where, _ in PRINTED}


@pytest.mark.slow
def test_startup_is_measured():
    heading, line, *rows = printed_by("startup", "--rounds", 1, "--only", "generate.py --")
    assert heading == "| command | here |" and line == "|---|---|"
    assert [row.split("`")[1] for row in rows] == [
        *("generate.py --help", "generate.py --sede 3", "generate.py --top_p 3")
    ]
    assert all(len(row.split("|")) == 4 and float(row.split("|")[2]) < 60 for row in rows)
