"""Every form of a GPT-2 folder is taken exactly as transformers has it, or refused in a line."""

import json

import pytest
import torch
import transformers
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

import load_gpt2
from tests.model.checkpoint_forms import as_pickle, edit_json, edit_weights, write_form
from tests.model.tokenizer_forms import CHINESE, ENGLISH, KINDS, KOREAN, bert, kogpt2, unigram
from toolkit.blocks.collator import collate
from toolkit.corpus.document import Document
from toolkit.corpus.tokenized_documents import tokenize_documents
from toolkit.corpus.tokenizing import encode_text
from toolkit.model import gpt2
from toolkit.model.kernels import choose_kernels
from toolkit.model.tokenizer_files import fit_tokenizer, open_tokenizer, save_tokenizer
from toolkit.model.trainable import train_last_blocks
from toolkit.run.command import UserError
from toolkit.run.run_directory import RunDirectory
from toolkit.scoring.losses import score_blocks
from toolkit.writing.generator import Generator
from toolkit.writing.sampling import Sampling
from toolkit.writing.talks import continue_prompts

PROMPT = "the lamp was lit"
GREEDY = Sampling(max_new_tokens=12, temperature=0, top_p=1, top_k=0, num_samples=1)


def taken(folder, **how):
    """What step 3 makes of a folder: model, tokenizer, and what it says."""
    model, found = gpt2.open_model(folder), open_tokenizer(folder)
    tokenizer, notes = fit_tokenizer(found, model.config, str(folder), **how)
    return gpt2.fit_model(model, tokenizer).eval(), tokenizer, " ".join(notes)


def two_heads(folder):
    edit_weights(folder, **{"lm_head.weight": 0.1 * torch.randn(320, 64)})


def with_pad(folder):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)


def as_vocab_txt(folder):
    held = bert().get_vocab()
    lines = "".join(f"{entry}\n" for entry in sorted(held, key=held.get))
    (folder / "vocab.txt").write_text(lines, encoding="utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()


def as_vocab_and_merges(folder):
    held = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    (folder / "vocab.json").write_text(json.dumps(held["vocab"]), encoding="utf-8")
    merges = "\n".join(["#version: 0.2", *map(" ".join, held["merges"])])
    (folder / "merges.txt").write_text(merges, encoding="utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()


def config(remove=(), **changes):
    return lambda folder: edit_json(folder / "config.json", remove, **changes)


def tokenizer_config(**changes):
    return lambda folder: edit_json(folder / "tokenizer_config.json", **changes)


SEP = {"tokenizer": bert(), "end": None, "eos_token_id": 50256}
KO = {"tokenizer": kogpt2(), "end": "</s>"}
# name -> how `write_form` writes it, what is done to the folder then, what step 3 says of it
FORMS = {
    "as usual": ({}, None, ""),
    "untied": ({"tie_word_embeddings": False}, None, ""),
    "two heads, tied by config": ({}, two_heads, ""),
    "Mistral's scaling": (
        {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True},
        None,
        "",
    ),
    "Cerebras's activation": ({"activation_function": "gelu", "n_inner": 96}, None, ""),
    "padded vocabulary": ({"rows": 64}, None, ""),
    "pickled": ({}, as_pickle, ""),
    "end of GPT-2's": ({"eos_token_id": 50256}, None, "end-of-text is <|endoftext|> (0), as the"),
    "several ends": ({}, config(eos_token_id=[0, 5]), "config.json says 0, 5"),
    "no end": ({}, config(eos_token_id=None), "config.json says none of its entries"),
    "whole epsilon": ({"layer_norm_epsilon": 1.0}, config(layer_norm_epsilon=1), ""),
    "numbers as texts": ({}, config(layer_norm_epsilon="1e-5", n_layer=2.0), ""),
    "code of its own": ({}, config(auto_map={"AutoModelForCausalLM": "m.M"}), ""),
    "flash attention": ({}, config(attn_implementation="flash_attention_2"), ""),
    "of 2019": ({}, config(remove=("model_type", "architectures")), ""),
    "KoGPT2": (KO, None, ""),
    "KoGPT2 of another class": (KO, tokenizer_config(tokenizer_class="GPT2Tokenizer"), ""),
    "BERT's, no end": (SEP, None, "end-of-text is [SEP] (3): the tokenizer names none"),
    "BERT's vocab.txt": (SEP, as_vocab_txt, "end-of-text is [SEP] (3)"),
    "sentencepiece": ({"tokenizer": unigram(), "end": "</s>"}, None, ""),
    "vocab.json, merges.txt": ({}, as_vocab_and_merges, ""),
    "a pad without a row": ({}, with_pad, "the model has no row for [PAD]"),
    "begins texts itself": ({}, tokenizer_config(add_bos_token=True), ""),
    "settings of the sampler": (
        {},
        lambda f: edit_json(f / "generation_config.json", do_sample=True, max_length=5, top_k=3),
        "",
    ),
}


@pytest.fixture(params=FORMS)
def form(request, tmp_path):
    """A folder of this form, and transformers' own model of the weights."""
    how, change, says = FORMS[request.param]
    folder = write_form(tmp_path / "form", **how)
    if request.param == "two heads, tied by config":
        change(folder)
    reference = transformers.GPT2LMHeadModel.from_pretrained(folder, attn_implementation="eager")
    if change and request.param != "two heads, tied by config":
        change(folder)
    return folder, reference.eval(), says


@pytest.mark.filterwarnings("ignore")
def test_a_form_is_taken_as_transformers_has_it(form, tmp_path):
    folder, reference, says = form
    model, tokenizer, said = taken(folder)
    assert says in said and bool(says) == bool(said)
    ids = torch.tensor([encode_text(PROMPT + " at four. Rain, and no ship;", tokenizer)])
    assert 6 < ids.shape[1] < 60
    with torch.no_grad():
        logits = reference(ids).logits
        nats = torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:]).item()
        torch.testing.assert_close(model(ids), logits, atol=1e-5, rtol=1e-5)
        trained = model(ids, labels=ids, kernels=choose_kernels("cpu", "fp32", "training"))
    assert trained.item() == pytest.approx(nats, abs=1e-5)
    blocks = Dataset.from_dict({"input_ids": ids.numpy()}).with_format("numpy")
    sums = score_blocks(model, blocks, collate, "fp32", "")
    assert sums["nats"] / sums["tokens"] == pytest.approx(nats, abs=1e-5)
    reference.generation_config = transformers.GenerationConfig(pad_token_id=0)
    # Rows that belong to no entry are no tokens: they are not written.
    padding = list(range(len(tokenizer), model.config.vocab_size)) or None
    end = tokenizer.eos_token_id
    expected = greedy_text(reference, tokenizer, suppress_tokens=padding, eos_token_id=end)
    [[talk]] = continue_prompts(Generator(model, tokenizer), [(PROMPT,)], GREEDY, seed=0)
    assert talk.text == expected
    save_and_compare(model, tokenizer, ids, logits, expected, tmp_path / "saved")


def greedy_text(model, tokenizer, **settings):
    """What transformers writes, decoded with its prompt."""
    ids = torch.tensor([encode_text(PROMPT, tokenizer)])
    length = {"max_new_tokens": GREEDY.max_new_tokens, "do_sample": False}
    written = model.generate(ids, attention_mask=torch.ones_like(ids), **length, **settings)[0]
    before = tokenizer.decode(ids[0], skip_special_tokens=True)
    return tokenizer.decode(written, skip_special_tokens=True)[len(before) :]


def save_and_compare(model, tokenizer, ids, logits, expected, folder):
    """The saved folder says the same in transformers, which knows nothing of ours."""
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    words = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, logits, atol=1e-5, rtol=1e-5)
    assert words(PROMPT)["input_ids"] == encode_text(PROMPT, tokenizer)
    assert words.eos_token_id == theirs.config.eos_token_id == tokenizer.eos_token_id
    assert greedy_text(theirs, words) == expected
    said = json.loads((folder / "generation_config.json").read_text())
    assert said["max_length"] == 64 and not {"do_sample", "top_k"} & said.keys()


def test_a_sentencepiece_file_cuts_texts_as_its_own_program_does(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    path = tmp_path / "spiece.model"
    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter((ENGLISH + KOREAN + CHINESE).split("\n") * 9),
            model_writer=file,
            vocab_size=75,
            pad_id=3,
            minloglevel=2,
        )
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer"}')
    tokenizer = open_tokenizer(tmp_path)
    own = sentencepiece.SentencePieceProcessor(model_file=str(path))
    for text in (ENGLISH, f"  {KOREAN} ", CHINESE, "Ｎｏ ship; 灯 and  ტ", " a"):
        assert encode_text(text, tokenizer) == own.encode(text)
        assert tokenizer.decode(own.encode(text)).replace("<unk>", " ⁇ ") == own.decode(
            own.encode(text)
        )
    assert (tokenizer.eos_token, tokenizer.unk_token) == ("</s>", "<unk>")


@pytest.mark.parametrize("heads", ["one", "two", "untied"])
def test_training_the_last_blocks_begins_with_the_head_that_is_there(tmp_path, heads):
    folder = write_form(tmp_path / "form", tie_word_embeddings=heads != "untied")
    if heads == "two":
        two_heads(folder)
    model, tokenizer, _ = taken(folder)
    ids = torch.tensor([encode_text(PROMPT, tokenizer)])
    before = model(ids)
    assert torch.equal(train_last_blocks(model, 1)(ids), before)
    model.save_pretrained(tmp_path / "checkpoint")
    torch.testing.assert_close(gpt2.open_model(tmp_path / "checkpoint")(ids), before)


@pytest.mark.parametrize("tied", [True, False])
def test_rows_are_added_on_request_as_the_mean_of_the_others(tmp_path, tied):
    folder = write_form(tmp_path / "form", tie_word_embeddings=tied)
    before = gpt2.open_model(folder)
    with_pad(folder)
    model, tokenizer, said = taken(folder, resize=True)
    assert said == "1 rows more in the model, each the mean of the others: as asked"
    assert model.config.vocab_size == len(tokenizer) == 321 and tokenizer.pad_token_id == 320
    for name in ("transformer.wte", "lm_head"):
        was, now = before.get_submodule(name).weight, model.get_submodule(name).weight
        assert torch.equal(now[:320], was)
        torch.testing.assert_close(now[320], was.mean(0))
    assert (model.lm_head.weight is model.transformer.wte.weight) == tied
    model.save_pretrained(tmp_path / "saved")
    assert transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "saved").config.vocab_size == 321


def test_what_ends_a_text_can_be_named(tmp_path):
    folder = write_form(tmp_path / "form", **SEP)
    tokenizer = taken(folder, eos_token="[PAD]")[1]
    assert tokenizer.eos_token == "[PAD]" and not taken(folder, eos_token="[PAD]")[2]


def test_a_token_without_a_row_is_text(tmp_path):
    folder = write_form(tmp_path / "form")
    with_pad(folder)
    model, tokenizer, _ = taken(folder)
    ids = encode_text("a [PAD] b", tokenizer)
    assert max(ids) < model.config.vocab_size and tokenizer.decode(ids) == "a [PAD] b"


def test_step_3_keeps_the_tokenizer_as_tokenizer_json(run_copy, tmp_path, capsys):
    """Opened once: what the folder then lacks does not matter to the next process."""
    folder = write_form(tmp_path / "form", **SEP)
    as_vocab_txt(folder)
    as_pickle(folder)
    load_gpt2.main(["--run_dir", str(run_copy), "--model", str(folder), "--eos_token", "[CLS]"])
    assert sorted(path.name for path in (run_copy / "tokenizer").iterdir()) == [
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    (folder / "vocab.txt").unlink()
    model, tokenizer = load_gpt2.read_gpt2(RunDirectory(run_copy))
    assert tokenizer.eos_token == "[CLS]" and model.config.eos_token_id == tokenizer.eos_token_id
    assert len(tokenizer) == model.config.vocab_size


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_that_loses_much_of_a_text_is_refused_and_little_is_said(kind, tmp_path):
    train, end = KINDS[kind]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=train(), eos_token=end)

    def lost(text):
        path = tmp_path / "x.arrow"
        return tokenize_documents([Document("a", text)], tokenizer, path, "train")[1]["share_lost"]

    assert lost("the lamp was lit at four. ") == 0
    little = {"BERT": 0.15, "words": 0.15, "Unigram": 0.05, "KoGPT2": 0.05}.get(kind, 0)
    assert lost("THE lamp was lit at four. ") == little
    if kind == "byte-level":
        assert lost("灯台守は夜中に起きていた") == 0
    else:
        with pytest.raises(UserError, match="train: the tokenizer loses [0-9]+% of the text"):
            lost("ღამე ზღვა და ქარი " * 3)
