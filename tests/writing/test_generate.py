"""What step 10 writes, prints and answers."""

import json

import pytest
import torch

import generate
from load_gpt2 import read_gpt2
from tests.conftest import library_model, shell
from toolkit.model.kernels import PLAIN
from toolkit.report.markdown import fenced
from toolkit.run.run_directory import RunDirectory
from toolkit.writing.generator import Generator
from toolkit.writing.openings import openings
from toolkit.writing.sampling import Sampling, prompt_ids
from toolkit.writing.talks import continue_prompts
from train_model import read_tuned
from train_test_split import read_splits

GREEDY = Sampling(max_new_tokens=12, temperature=0, top_p=1, top_k=0, num_samples=1)


@pytest.fixture(scope="module")
def run(finished):
    return RunDirectory(finished.path, seed=7, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def tuned(run):
    return read_tuned(run)


@pytest.fixture(scope="module")
def tokenizer(run):
    return read_gpt2(run)[1]


def continue_prompt(model, tokenizer, prompt, sampling, seed):
    [talks] = continue_prompts(Generator(model, tokenizer), [(prompt,)], sampling, seed)
    return [talk.text for talk in talks]


def greedy_by_hand(model, tokenizer, prompt, count):
    """The likeliest token, again and again, by full forward passes without a cache."""
    ids, model = tokenizer(prompt)["input_ids"], library_model(model)
    new = []
    with torch.no_grad():
        while len(new) < count:
            new.append(int(model(torch.tensor([ids + new])).logits[0, -1].argmax()))
            if new[-1] == tokenizer.eos_token_id:
                break
    return tokenizer.decode(new, skip_special_tokens=True)


@pytest.mark.parametrize("prompt", ["The bailiff", "Ballast, the cat, ", "é"])
def test_greedy_takes_the_likeliest_token_each_time(tuned, tokenizer, prompt):
    expected = greedy_by_hand(tuned, tokenizer, prompt, GREEDY.max_new_tokens)
    assert continue_prompt(tuned, tokenizer, prompt, GREEDY, seed=1) == [expected]


def test_the_seed_decides_the_sample(tuned, tokenizer):
    bold = Sampling(max_new_tokens=12, temperature=1.0, top_p=1, top_k=0, num_samples=3)
    one, same, other = (continue_prompt(tuned, tokenizer, "The", bold, seed) for seed in (1, 1, 2))
    assert one == same != other
    assert len(set(one)) > 1


def test_a_prompt_beyond_the_context_keeps_its_end(tuned, tokenizer):
    text = "one two three four " * 30
    ids = prompt_ids(text, tokenizer, positions=64, new_tokens=12)
    assert len(ids) == 52 and text.endswith(tokenizer.decode(ids))
    assert continue_prompt(tuned, tokenizer, text, GREEDY, seed=1)


def test_an_empty_prompt_starts_a_document(tuned, tokenizer):
    assert prompt_ids("", tokenizer, 64, 12) == [tokenizer.eos_token_id]
    assert continue_prompt(tuned, tokenizer, "", GREEDY, seed=1)


def test_a_sample_ends_at_end_of_text(tuned, tokenizer):
    with torch.no_grad():
        head = tuned.lm_head.weight.clone()
        tuned.lm_head.weight[tokenizer.eos_token_id] += 1000 * torch.sign(
            tuned.transformer(torch.tensor(tokenizer("The")["input_ids"]), PLAIN)[-1]
        )
        try:
            assert continue_prompt(tuned, tokenizer, "The", GREEDY, seed=1) == [""]
        finally:
            tuned.lm_head.weight.copy_(head)


def test_the_default_prompts_open_documents_of_the_test_split(run, tokenizer, corpus):
    starts = [path.read_text() for path in corpus.iterdir()]
    prompts = openings(read_splits(run)["test"], tokenizer).prompts
    assert prompts and all(any(text.startswith(prompt) for text in starts) for (prompt,) in prompts)


def test_samples_show_both_models_on_the_same_prompts(finished, run):
    samples = generate.read_samples(run)
    page = (finished.path / "samples.md").read_text()
    assert page.count("**Before training**") == page.count("**After training**") == len(samples)
    assert all(entry["base"] != entry["tuned"] for entry in samples)
    assert all(entry["prompt"] in page for entry in samples)


def test_text_cannot_break_out_of_the_samples_page():
    lines = fenced("~~~\n# heading\n~~~~")
    assert lines[0] == "~~~~~text" and lines[-1] == "~~~~~"


def test_prompts_from_flags_and_from_a_file(run_copy, tmp_path, capsys):
    words = ["--run_dir", str(run_copy), "--max_new_tokens", "4"]
    generate.main([*words, "--prompt", "The lamp", "--prompt", "The sea", "--num_samples", "2"])
    out = capsys.readouterr().out
    assert out.count("\nThe lamp") == out.count("\nThe sea") == 2
    file = tmp_path / "prompts.txt"
    file.write_text("One\n\nTwo\n")
    generate.main([*words, "--prompts_file", str(file)])
    record = json.loads((run_copy / "generate.json").read_text())
    assert [entry["prompt"] for entry in record["results"]["samples"]] == ["One", "Two"]


def test_what_was_sampled_stands_in_json_lines_with_settings_and_seed(run_copy, tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "One"}\n{"prompt": "Two\\nlines"}\n')
    words = ["--run_dir", str(run_copy), "--max_new_tokens", "4", "--stop", "e"]
    generate.main([*words, "--prompts_file", str(file)])
    lines = [json.loads(line) for line in (run_copy / "samples.jsonl").read_text().splitlines()]
    assert [line["prompt"] for line in lines] == ["One", "Two\nlines"]
    assert [line["seed"] for line in lines] == [7, 8]
    assert lines[0]["settings"]["stop"] == ["e"] and lines[0]["settings"]["max_new_tokens"] == 4
    assert all("e" not in text for line in lines for text in [*line["base"], *line["tuned"]])


def test_prompts_come_from_standard_input_and_long_ones_say_what_is_left_out(run_copy):
    words = ["--run_dir", str(run_copy), "--max_new_tokens", "4", "--prompts_file", "-"]
    done = shell("generate.py", *words, stdin="One\n" + "one two three four " * 30 + "\n")
    assert done.returncode == 0 and done.stderr == ""
    assert "prompt 2: its first " in done.stdout and "prompt 1:" not in done.stdout
    assert done.stdout.count("\nOne") == 1


def test_the_runner_goes_straight_to_the_prompt_on_a_finished_run(run_copy, all_flags):
    words = ["--run_dir", str(run_copy), *all_flags, "--interactive"]
    done = shell("run_pipeline.py", *words, stdin="The lamp\n")
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.count("up to date") == 10
    assert "Ctrl-D ends" in done.stdout
