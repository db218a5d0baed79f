"""The GPT-2 in data/gpt2-mini: whole, small, honest about itself, and worth starting from."""

import json
import random

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from load_gpt2 import LoadOptions, load_gpt2
from tests.conftest import PROJECT, shell
from toolkit.model.hub import bundled_folder
from toolkit.run.files import size_of
from toolkit.run.options import build
from toolkit.run.records import write_record
from toolkit.run.run_directory import RunDirectory

FOLDER = bundled_folder()


@pytest.fixture(scope="module")
def mini():
    """The model and its tokenizer, opened as anybody would: with nothing of ours."""
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype="float32")
    return model.eval(), AutoTokenizer.from_pretrained(FOLDER)


@torch.inference_mode()
def nats_per_token(mini, text):
    model, tokenizer = mini
    ids = torch.tensor([tokenizer(text)["input_ids"][:256]])
    chances = model(ids).logits[0, :-1].double().log_softmax(-1)
    return -chances.gather(1, ids[0, 1:, None]).mean().item()


def test_it_is_a_small_gpt2_in_bf16_that_fits_into_a_clone(mini):
    model, tokenizer = mini
    assert size_of(FOLDER) <= 14_000_000
    assert 3_000_000 <= model.num_parameters() <= 8_000_000
    assert model.config.n_positions >= 256
    assert 4096 <= len(tokenizer) == model.config.vocab_size <= 8192
    assert tokenizer.eos_token_id == model.config.eos_token_id == model.config.bos_token_id
    assert tokenizer.model_max_length == model.config.n_positions
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    with safe_open(FOLDER / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}
        assert file.metadata() == {"format": "pt"}


def test_its_card_gives_what_the_files_are(mini):
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n") and "license: cc0-1.0" in card
    assert f"{mini[0].num_parameters():,} parameters" in card
    assert "bits per byte" in card and "unseen books" in card and "## Limits" in card


def test_auto_takes_it_where_the_hub_is_out_of_reach_and_says_why(tmp_path, capsys):
    run = RunDirectory(tmp_path / "run")
    empty = {
        "options": {},
        "results": {},
        "source": {},
        "inputs": None,
        "after": {},
        "measured": {},
    }
    write_record(run.path / "import_modules.json", empty)
    run.finished = lambda step: run.path
    model, tokenizer = load_gpt2(build(LoadOptions, {}), run)
    assert model.config.n_embd == 256 and tokenizer("light")["input_ids"]
    line = capsys.readouterr().out
    assert "data/gpt2-mini: " in line
    assert "auto: gpt2 is not cached and the Hub does not answer, so the bundled one" in line


def test_it_has_learned_how_words_follow_each_other(mini):
    """Pages of the log, which it never saw, it finds far likelier than their words mixed up."""
    pages = sorted((PROJECT / "data/keepers_log").glob("*.txt"))[:8]
    for page in pages:
        words = page.read_text(encoding="utf-8").split()
        mixed = random.Random(0).sample(words, len(words))
        assert nats_per_token(mini, " ".join(words)) < nats_per_token(mini, " ".join(mixed)) - 1


def test_its_tokenizer_gives_back_any_text(mini):
    tokenizer = mini[1]
    for text in ("A page of the log.\n\n  Wind NW.", "naïve — 灯台 🕯", "\x00\t\r\n"):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text
        assert max(ids, default=0) < len(tokenizer)


@pytest.mark.slow
def test_the_first_command_changes_its_voice_and_beats_models_from_scratch(tmp_path):
    """From scratch at the same cost: 2.25 to 2.5 epochs take 10% longer than tuning's two."""
    shape = ["--n_layer", "5", "--n_head", "4", "--n_embd", "256", "--dropout", "0"]
    same_tokenizer = ["--tokenizer", "data/gpt2-mini"]
    runs = {
        "tuned": [],
        "scratch": ["--from_scratch", "--num_train_epochs", "2.5"],
        "same": ["--from_scratch", "--num_train_epochs", "2.25", *shape, *same_tokenizer],
    }
    metrics = {}
    for name, flags in runs.items():
        run = tmp_path / name
        done = shell("run_pipeline.py", "--run_dir", str(run), *flags)
        assert done.returncode == 0, done.stderr
        metrics[name] = json.loads((run / "evaluate_model.json").read_text())["results"]
    base, tuned = (metrics["tuned"][which] for which in ("base", "tuned"))
    assert tuned["perplexity"] < 0.65 * base["perplexity"]
    assert tuned["intervals"]["perplexity"][1] < base["intervals"]["perplexity"][0]
    assert tuned["copying"]["longest_run"] < 13
    for name in ("scratch", "same"):
        assert tuned["bits_per_byte"] < 0.78 * metrics[name]["tuned"]["bits_per_byte"]
