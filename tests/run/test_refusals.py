"""Every flag refuses bad values; every bad input ends with exit code 2, one line, nothing lost."""

import dataclasses
import gzip
import json
import lzma
import os
import shutil
import time
from fractions import Fraction

import pytest
import torch
import zstandard

import configure_trainer
import create_dataset
import evaluate_model
import generate
import import_modules
import install_libraries
import load_gpt2
import run_pipeline
import train_model
import train_test_split
import visualize_performance
from tests.conftest import PROJECT, shell
from toolkit.model import gpt2
from toolkit.run.records import write_record
from toolkit.run.run_directory import RunDirectory

MAINS = {
    "install_libraries": install_libraries.main,
    "import_modules": import_modules.main,
    "load_gpt2": load_gpt2.main,
    "create_dataset": create_dataset.main,
    "train_test_split": train_test_split.main,
    "configure_trainer": configure_trainer.main,
    "train_model": train_model.main,
    "evaluate_model": evaluate_model.main,
    "visualize_performance": visualize_performance.main,
    "generate": generate.main,
    "run_pipeline": run_pipeline.main,
}

# step, flags, what the refusal must name. `{tmp}` is an empty folder.
BAD_VALUES = [
    ("install_libraries", "--cpu=yes", "--cpu"),
    ("import_modules", "--run_dir /dev/null/x", "--run_dir /dev/null/x: cannot be written"),
    ("import_modules", "--run_dir", "--run_dir"),
    ("import_modules", "--seed one", "--seed: must be a whole number, got one"),
    ("import_modules", "--seed -1", "--seed must lie between"),
    ("import_modules", "--device gpu", "--device: must be one of auto, cpu, cuda, mps, got gpu"),
    ("import_modules", "--device mps", "--device mps: "),
    ("import_modules", "--precision int8", "--precision: must be one of"),
    ("import_modules", "--device cpu --precision fp16", "--precision fp16 needs a CUDA card"),
    ("load_gpt2", "--model {tmp}", "is no model folder: it holds no config.json"),
    ("load_gpt2", "--model ./mistyped", "--model ./mistyped: no such folder"),
    ("load_gpt2", "--model a/b/c", "--model a/b/c: no such folder"),
    ("load_gpt2", "--model README.md", "--model README.md: no such folder"),
    (
        "load_gpt2",
        "--model no-such-model",
        "--model no-such-model: no such folder, not in the cache",
    ),
    ("load_gpt2", "--model=", "--model must name"),
    ("load_gpt2", "--model {tmp} --model_revision main", "--model_revision main"),
    ("load_gpt2", "--model_revision main", "--model_revision main: gpt2 is not cached"),
    ("load_gpt2", "--from_scratch --model gpt2", "--from_scratch"),
    ("load_gpt2", "--n_layer 2", "--n_layer shapes a new model: add --from_scratch"),
    ("load_gpt2", "--from_scratch --n_layer 0", "--n_layer must be above 0, got 0"),
    ("load_gpt2", "--from_scratch --dropout 1", "--dropout must lie from 0 to below 1, got 1.0"),
    ("load_gpt2", "--dropout 0.2", "--dropout shapes a new model: add --from_scratch"),
    ("load_gpt2", "--from_scratch --n_head 3", "--n_embd 256 must be a multiple of --n_head 3"),
    ("load_gpt2", "--from_scratch --n_head -1", "--n_head must be above 0"),
    ("load_gpt2", "--from_scratch --n_layer 1001", "n_layer must be at most 1,000, got 1,001"),
    ("load_gpt2", "--from_scratch --n_embd 400000", "GB, this machine has"),
    ("load_gpt2", "--from_scratch --n_embd x", "--n_embd: must be a whole number, got x"),
    ("load_gpt2", "--from_scratch --n_positions 4", "--n_positions must be at least 8, got 4"),
    ("load_gpt2", "--from_scratch --vocab_size 100", "--vocab_size must be at least 257, got 100"),
    ("load_gpt2", "--from_scratch --tokenizer {tmp}", "holds no tokenizer"),
    (
        "load_gpt2",
        "--from_scratch --resize_embeddings",
        "--resize_embeddings is for a model that is",
    ),
    ("load_gpt2", "--from_scratch --eos_token x", "--eos_token is for a ready tokenizer"),
    ("load_gpt2", "--eos_token=", "--eos_token must name an entry of the tokenizer"),
    (
        "load_gpt2",
        "--model data/gpt2-mini --eos_token qqzz",
        "--eos_token qqzz: no entry of the tokenizer",
    ),
    ("load_gpt2", "--from_scratch --tokenizer ./none", "--tokenizer ./none: no such folder"),
    ("load_gpt2", "--from_scratch --tokenizer x --vocab_size 300", "--tokenizer takes a ready"),
    ("load_gpt2", "--from_scratch --tokenizer_corpus none.txt", "--tokenizer_corpus none.txt: no"),
    ("create_dataset", "--corpus none.txt", "--corpus none.txt: no such file or folder"),
    ("create_dataset", "--corpus nothing-*.txt", "--corpus nothing-*.txt: no such file"),
    ("create_dataset", "--corpus {tmp}", "holds no file that can be read"),
    (
        "create_dataset",
        "--corpus hub:no/such",
        "--corpus hub:no/such: not in the cache, and the Hub",
    ),
    ("create_dataset", "--corpus hub:a README.md", "--corpus takes one Hub dataset alone"),
    ("create_dataset", "--corpus", "--corpus"),
    ("create_dataset", "--document_separator=", "--document_separator must not be empty"),
    ("create_dataset", "--document_separator x --corpus hub:a", "--document_separator is for text"),
    ("create_dataset", "--text_column a --prompt_column b --completion_column c", "--text_column"),
    ("create_dataset", "--prompt_column a", "--prompt_column and --completion_column go together"),
    ("create_dataset", "--completion_column a", "--prompt_column and --completion_column go"),
    ("create_dataset", "--prompt_column a --completion_column b", "plain text has no columns"),
    ("create_dataset", "--messages_column a", "plain text has no column of messages; give"),
    ("create_dataset", "--messages_column a --text_column b", "--text_column cannot go with"),
    ("create_dataset", "--messages_column a --speaker b", "cannot go with --speaker: give one"),
    ("create_dataset", "--speaker :", "--speaker must be a name"),
    ("create_dataset", "--completion_separator", "--completion_separator"),
    ("create_dataset", "--encoding klingon", "--encoding klingon: Python knows no such encoding"),
    ("create_dataset", "--encoding rot13", "--encoding rot13: Python knows no such encoding of"),
    ("create_dataset", "--corpus hub:", "--corpus hub:: must be hub:NAME"),
    ("create_dataset", "--corpus ~nobody-here/x", "--corpus ~nobody-here/x: no such file"),
    ("create_dataset", "--sample_fraction 0", "--sample_fraction must lie above 0 and up to 1"),
    ("create_dataset", "--sample_fraction 1e-9", "holds no text"),
    ("create_dataset", "--max_documents 0", "--max_documents must be above 0, got 0"),
    ("create_dataset", "--num_proc 0", "--num_proc must be above 0, got 0"),
    ("create_dataset", "--streaming=yes", "--streaming"),
    (
        "create_dataset",
        "--streaming --sample_fraction 0.5",
        "--sample_fraction does not go with --streaming",
    ),
    (
        "create_dataset",
        "--streaming --max_documents 5",
        "--max_documents does not go with --streaming",
    ),
    ("create_dataset", "--streaming --corpus none.txt", "--corpus none.txt: no such file"),
    ("create_dataset", "--streaming --corpus hub:no/such", "does not answer, and --streaming"),
    ("create_dataset", "--rows sentence", "--rows: must be one of auto, document, line"),
    ("create_dataset", "--normalize nfd", "--normalize: must be one of none, nfc"),
    (
        "train_test_split",
        "--validation_fraction 0",
        "--validation_fraction must lie between 0 and 1",
    ),
    ("train_test_split", "--validation_fraction nan", "--validation_fraction: must be a number"),
    (
        "train_test_split",
        "--test_fraction 1.5",
        "--test_fraction must lie between 0 and 1, got 1.5",
    ),
    ("train_test_split", "--test_fraction 0.95", "leave nothing to train on"),
    (
        "train_test_split",
        "--hold_out_by order",
        "--hold_out_by: must be one of auto, shuffle, hash",
    ),
    ("train_test_split", "--hold_out_by hash --test_fraction 1e-9", "none falls to test by its"),
    ("train_test_split", "--block_size 1", "--block_size must be above 1, got 1"),
    ("train_test_split", "--block_size 65", "--block_size 65 is beyond the model's 64 positions"),
    ("configure_trainer", "--num_train_epochs 0", "--num_train_epochs must be above 0"),
    ("configure_trainer", "--max_minutes 0", "--max_minutes must be above 0"),
    ("configure_trainer", "--max_steps -1", "--max_steps must be above 0"),
    ("configure_trainer", "--max_steps 2 --num_train_epochs 2", "give one"),
    ("configure_trainer", "--per_device_train_batch_size 0", "--per_device_train_batch_size"),
    ("configure_trainer", "--gradient_accumulation_steps 0", "--gradient_accumulation_steps"),
    ("configure_trainer", "--learning_rate 0", "--learning_rate must be above 0"),
    ("configure_trainer", "--learning_rate inf", "--learning_rate: must be a number or auto"),
    ("configure_trainer", "--warmup_steps -2", "--warmup_steps must be at least 0"),
    ("configure_trainer", "--warmup_steps 50 --max_steps 20", "--warmup_steps 50: training has 20"),
    ("configure_trainer", "--lr_scheduler_type sine", "--lr_scheduler_type: must be one of linear"),
    ("configure_trainer", "--weight_decay -1", "--weight_decay must be at least 0"),
    ("configure_trainer", "--early_stopping_patience 0", "--early_stopping_patience"),
    (
        "configure_trainer",
        "--early_stopping_patience 3 --max_steps 6 --eval_steps 3",
        "only 1 validation comes before the end of 6 steps, so that training would never stop "
        "early; give --eval_steps 1 or less, or leave it out",
    ),
    ("configure_trainer", "--early_stopping_patience 3 --max_steps 2", "stop early; leave it out"),
    ("configure_trainer", "--eval_steps 0", "--eval_steps must be above 0"),
    ("configure_trainer", "--save_steps 0", "--save_steps must be above 0"),
    ("configure_trainer", "--logging_steps 0", "--logging_steps must be above 0"),
    ("configure_trainer", "--trainer max_grad_norm", "--trainer max_grad_norm: must be KEY=VALUE"),
    (
        "configure_trainer",
        "--trainer dataloader_num_workers=-1",
        "dataloader_num_workers=-1: must not be below 0",
    ),
    ("configure_trainer", "--trainer max_norm=1", "--trainer max_norm=1: must be KEY=VALUE"),
    ("configure_trainer", "--trainer max_grad_norm=big", "--trainer: --max_grad_norm"),
    ("configure_trainer", "--trainer hub_token=abc", "--trainer hub_token=...: not here: log in"),
    ("configure_trainer", "--trainer run_name=hf_abcdefghijklmnopqrst", "looks like a secret"),
    (
        "configure_trainer",
        "--per_device_train_batch_size many",
        "--per_device_train_batch_size: must be a whole number or auto, got many",
    ),
    ("configure_trainer", "--learning_rate fast", "--learning_rate: must be a number or auto"),
    ("configure_trainer", "--trainable_blocks 0", "--trainable_blocks must be above 0"),
    ("configure_trainer", "--trainable_blocks 9", "--trainable_blocks 9: the model has 2 blocks"),
    ("configure_trainer", "--lora_rank 0", "--lora_rank must be above 0"),
    ("configure_trainer", "--lora_rank 4 --trainable_blocks 1", "choose one of the two"),
    ("configure_trainer", "--torch_compile", "--torch_compile is for CUDA: on cpu"),
    ("configure_trainer", "--report_to mlflow", "--report_to: must be one of none, tensorboard"),
    ("train_model", "--resume {tmp}/none", "--resume {tmp}/none: no such checkpoint folder"),
    ("train_model", "--resume {tmp}", "--resume {tmp}: it has no manifest.json"),
    ("train_model", "--resume=", "--resume must be auto, never or a checkpoint folder"),
    ("evaluate_model", "--evaluate_base=maybe", "--evaluate_base"),
    ("evaluate_model", "--stride 0", "--stride must be above 0, got 0"),
    ("evaluate_model", "--stride 33", "--stride 33 is beyond the blocks of 32 tokens"),
    ("visualize_performance", "--compare {tmp}/a {tmp}/b", "--compare {tmp}/a: no such folder"),
    (
        "visualize_performance",
        "--compare {tmp} {tmp}",
        "--compare {tmp}: no training has run there",
    ),
    ("visualize_performance", "--compare {tmp}", "--compare takes two run folders or more"),
    (
        "generate",
        "--prompts_file none.txt",
        "--prompts_file none.txt: cannot be read (No such file",
    ),
    ("generate", "--prompt a --prompts_file b", "--prompt and --prompts_file"),
    ("generate", "--interactive=1", "--interactive"),
    ("generate", "--max_new_tokens 0", "--max_new_tokens must be at least 1, got 0"),
    ("generate", "--max_new_tokens 64", "--max_new_tokens 64: the model has 64 positions"),
    ("generate", "--temperature -0.1", "--temperature must be at least 0, got -0.1"),
    ("generate", "--temperature 1e-9", "--temperature must be 0 (greedy) or at least 1e-05"),
    ("generate", "--top_p 0", "--top_p must lie above 0 and up to 1, got 0.0"),
    ("generate", "--top_p 1.1", "--top_p must lie above 0 and up to 1, got 1.1"),
    ("generate", "--top_k -1", "--top_k must be at least 0, got -1"),
    (
        "generate",
        "--temperature 0 --num_samples 3",
        "--temperature 0 is greedy: it has one answer, so --num_samples must be 1, got 3",
    ),
    ("generate", "--sample_seed -1", "--sample_seed must lie between 0 and 4294967295, got -1"),
    ("generate", "--num_samples 0", "--num_samples must be at least 1, got 0"),
    ("generate", "--num_samples 100000", "--num_samples must be at most 1000, got 100000"),
    ("generate", "--serve --interactive", "--serve and --interactive exclude each other"),
    ("generate", "--host=", "--host must not be empty"),
    ("generate", "--push_to_hub a/b/c", "--push_to_hub must be OWNER/NAME or NAME, got a/b/c"),
    ("generate", "--push_to_hub=", "--push_to_hub must be OWNER/NAME or NAME"),
    ("generate", "--push_to_hub a/b", "--push_to_hub a/b: HF_HUB_OFFLINE forbids the network"),
    ("generate", "--push_to_hub a/b --serve", "--push_to_hub ends by itself"),
    ("generate", "--port 70000", "--port must lie between 0 and 65535, got 70000"),
    ("generate", "--allow_origin a.example", "--allow_origin a.example: write it as browsers do"),
    ("generate", "--min_p 1.5", "--min_p must be at most 1, got 1.5"),
    ("generate", "--repetition_penalty 0", "--repetition_penalty must be at least 0.01, got 0.0"),
    ("generate", "--stop=", "--stop must not be empty"),
    ("generate", "--prompt=", "--prompt must not be empty"),
    ("run_pipeline", "--config none.yaml", "--config none.yaml: cannot be read"),
    ("run_pipeline", "--from_step 0", "--from_step must lie between 1 and 10"),
    ("run_pipeline", "--to_step 11", "--to_step must lie between 1 and 10"),
    ("run_pipeline", "--from_step 5 --to_step 4", "--from_step 5 comes after --to_step 4"),
    ("run_pipeline", "--to_step 9 --serve", "--serve comes after step 10: drop --to_step"),
    ("run_pipeline", "--force=1", "--force"),
]


@pytest.mark.parametrize(
    "step, words, says", BAD_VALUES, ids=[f"{s} {w}" for s, w, _ in BAD_VALUES]
)
def test_a_bad_value_is_refused(finished, refusal, tmp_path, step, words, says):
    before = {path: path.stat().st_mtime_ns for path in finished.path.rglob("*")}
    words = words.replace("{tmp}", str(tmp_path)).split()
    if step != "install_libraries" and "--run_dir" not in words:
        words += ["--run_dir", str(finished.path)]
    assert says.replace("{tmp}", str(tmp_path)) in refusal(MAINS[step], *words)
    lasting = {path for path in finished.path.rglob("*") if not path.name.startswith(".lock")}
    assert lasting == set(before)
    assert RunDirectory(finished.path).record("generate"), "the earlier records must survive"


def test_every_flag_has_a_refusal():
    tested = {word.split("=")[0] for _, words, _ in BAD_VALUES for word in words.split()}
    for name, main in MAINS.items():
        module = __import__(name)
        for thing in vars(module).values():
            if dataclasses.is_dataclass(thing) and thing.__module__ == name:
                missing = {f"--{field.name}" for field in dataclasses.fields(thing)} - tested
                assert not missing, (name, missing, main)


@pytest.mark.parametrize("name", MAINS)
def test_help_lists_every_flag_with_its_step(name, capsys):
    with pytest.raises(SystemExit) as end:
        MAINS[name](["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    for thing in vars(__import__(name)).values():
        if dataclasses.is_dataclass(thing) and thing.__module__ == name:
            assert all(f"--{field.name}" in text for field in dataclasses.fields(thing))
            assert not dataclasses.fields(thing) or thing.__doc__ in text


@pytest.mark.parametrize("name", MAINS)
def test_an_unknown_flag_is_refused_with_the_nearest_one(name, refusal):
    assert "unknown flag --" in refusal(MAINS[name], "--no_such_flag", "1")
    if name == "train_test_split":
        assert "did you mean --block_size?" in refusal(MAINS[name], "--blok_size", "8")
    if name == "configure_trainer":  # all words of the name count for more than its spelling
        assert "did you mean --num_train_epochs?" in refusal(MAINS[name], "--num_epochs", "8")
        assert "did you mean --per_device_train_b" in refusal(MAINS[name], "--batch_size=8")
    if name == "generate":
        assert "unknown flag stray" in refusal(MAINS[name], "stray")


CONFIGS = [
    ("learning_rat: 1", "unknown key learning_rat; did you mean learning_rate?"),
    ("seed: true", "seed must be a whole number, got True"),
    ("seed: 1.5", "seed must be a whole number, got 1.5"),
    ("from_scratch: 'false'", "from_scratch must be true or false, got 'false'"),
    ("corpus: 5", "corpus must be a list of texts, got 5"),
    ("corpus: [a, 5]", "corpus must be a list of texts"),
    ("model: [gpt2]", "model must be text, got ['gpt2']"),
    ("learning_rate: fast", "learning_rate must be a number or auto, got 'fast'"),
    ("device: gpu", "device must be one of auto, cpu, cuda, mps, got 'gpu'"),
    ("seed: null", "seed must be a whole number, got None"),
    ("- a\n- b", "must hold flags as `name: value`"),
    ("a: b: c", "cannot be read"),
    ("config: other.yaml", "unknown key config"),
    ("seed: 0x" + "f" * 5000, "seed must be a whole number, got a number without end"),
    ("top_p: 3", "--top_p must lie above 0 and up to 1, got 3.0"),
]


@pytest.mark.parametrize("text, says", CONFIGS)
def test_a_bad_config_file_is_refused(tmp_path, refusal, text, says):
    config = tmp_path / "flags.yaml"
    config.write_text(text)
    run = tmp_path / "run"
    assert says in refusal(run_pipeline.main, "--config", config, "--run_dir", run)
    assert not run.exists()


def test_a_json_config_file_is_read_as_strictly(tmp_path, refusal):
    config = tmp_path / "flags.json"
    config.write_text(json.dumps({"max_steps": "many"}))
    error = refusal(run_pipeline.main, "--config", config)
    assert "max_steps must be a whole number, got 'many'" in error
    config.write_text('{"max_steps": 1')
    assert "cannot be read" in refusal(run_pipeline.main, "--config", config)


# Records


FORGED = [
    ("results", []),
    ("after", {"generate": "a step that comes later"}),
    ("options", None),
    ("inputs", 5),
    ("measured", {"flags": [], "summary": "", "signatures": "x"}),
    ("measured", {"flags": [5], "summary": "", "signatures": {}}),
    ("results", {"artifacts": {"../elsewhere": {"bytes": 1, "sha256": "x"}}}),
    ("results", {"artifacts": {"model": {"bytes": "x"}}}),
]


@pytest.mark.parametrize("part, value", FORGED)
def test_a_record_of_another_shape_is_no_record_though_its_seal_is_right(run_copy, part, value):
    path = run_copy / "train_test_split.json"
    write_record(path, json.loads(path.read_text()) | {part: value})
    assert RunDirectory(run_copy).record("train_test_split") is None


# Corpora


CORPORA = [
    ("empty", b"", "holds no text, only white space"),
    ("white", b" \n\t \n\n", "holds no text, only white space"),
    ("binary", b"GIF89a\x00\x01\x02", "is no text (a zero byte at offset 6)"),
    ("latin1", b"caf\xe9 society\n", "byte 0xe9 at offset 3 is not utf-8"),
    ("cut", "naïve€".encode()[:-1], "at offset 6 is not utf-8"),
]


@pytest.mark.parametrize("name, content, says", CORPORA, ids=[name for name, _, _ in CORPORA])
def test_a_corpus_that_is_no_text_is_refused(run_copy, tmp_path, refusal, name, content, says):
    file = tmp_path / f"{name}.txt"
    file.write_bytes(content)
    error = refusal(create_dataset.main, "--run_dir", run_copy, "--corpus", file)
    assert says in error and str(file) in error
    evaluate_model.read_splits(RunDirectory(run_copy))  # what was there still holds


ROW = b'{"text": "A row of words."}\n'
TABLE_FAULTS = [
    # file, content, flags, what the refusal says
    ("x.pdf", b"%PDF", "", ".pdf is not read; convert it to text"),
    ("x.docx", b"PK", "", ".docx is not read; convert it to text"),
    ("x.jsonl", b"", "", "x.jsonl"),
    ("x.jsonl", b'{"text": "cut', "", "x.jsonl: is not JSON at line 1 column 10"),
    ("x.jsonl", ROW + b"not json\n", "", "x.jsonl: line 2 is not JSON at column 1"),
    (
        "x.jsonl",
        b'{"text": {"deep": "er"}}\n',
        "--text_column text",
        "--text_column text: no such column; there are: text.deep",
    ),
    (
        "x.jsonl",
        b'{"text": ["a", "list"]}\n',
        "--text_column text",
        "--text_column text holds a list, not text",
    ),
    (
        "x.jsonl",
        b'{"a": "x", "b": "y"}\n',
        "",
        "say with --text_column which column is the text: a, b",
    ),
    ("x.jsonl", b'{"n": 1}\n', "", "say with --text_column which column is the text: n"),
    ("x.jsonl", ROW, "--text_column body", "--text_column body: no such column; there are: text"),
    (
        "x.jsonl",
        ROW,
        "--prompt_column text --completion_column y",
        "--completion_column y: no such",
    ),
    ("x.jsonl", b'{"text": null}\n' * 3, "--text_column text", "holds no text, only white space"),
    ("x.jsonl", b'{"text": " "}\n{"text": ""}\n', "", "holds no text, only white space"),
    ("x.jsonl", '{"text": "café"}\n'.encode("latin-1"), "", "x.jsonl"),
    ("x.json", b"[]", "", "x.json"),
    ("x.json", b"[1, 2]", "", "x.json"),
    ("x.json", b"{", "", "x.json: is not JSON at line 1 column 2"),
    ("x.csv", b"", "", "x.csv"),
    ("x.csv", b"text,n\na,1\nb,2,3,4\n", "", "x.csv: row 2 (line 3) has 4 cells"),
    ("x.csv", b"a,b\nx,y\n", "", "say with --text_column which column is the text: a, b"),
    ("x.csv", "text\ncafé\n".encode("latin-1"), "", "is not utf-8; name the file's encoding"),
    ("x.tsv", b'text\tn\n"open\t1\n2\n', "", "x.tsv: row 1 (line 2): a quote does not close"),
    ("x.parquet", b"no parquet", "", "x.parquet: cannot be read as .parquet"),
    ("x.parquet", b"", "", "x.parquet"),
    ("x.arrow", b"no arrow", "", "x.arrow: cannot be read as .arrow"),
    ("x.txt.gz", b"no gzip", "", "x.txt.gz: "),
    ("x.txt.gz", gzip.compress(b"words " * 9999)[:-20], "", "x.txt.gz: is cut short or damaged"),
    ("x.txt.xz", lzma.compress(b"words " * 9999)[:-20], "", "x.txt.xz: is cut short or damaged"),
    ("x.txt.zst", b"no zstd", "", "x.txt.zst: is cut short or damaged"),
    ("x.jsonl.gz", gzip.compress(ROW * 999)[:-20], "", "x.jsonl.gz: is cut short or damaged"),
    ("x.txt.gz", gzip.compress(b"\x00\x01"), "", "x.txt.gz: is no text (a zero byte at offset 0)"),
    ("x.txt", b"a" * 2_000_000 + b"\xff", "", "byte 0xff at offset 2,000,000 is not utf-8"),
    ("x.txt", b"a" * ((1 << 20) - 1) + "é".encode()[:1], "", "at offset 1,048,575 is not utf-8"),
    ("x.txt", b"caf\xe9", "--encoding ascii", "is not ascii"),
    ("x.txt", "café\n".encode() + "café\n".encode("latin-1"), "", "byte 0xe9 at offset 9 is"),
    ("x.txt", "café".encode("utf-16-le"), "", "x.txt: looks like UTF-16 without its mark; give"),
    ("x.txt.zst", zstandard.compress(b"words " * 9999)[:-9], "", "is cut short or damaged"),
    ("x.txt", b"odd", "--encoding utf-16", "is not utf-16"),
    ("x.jsonl", b'{"text": "a"}\n{"text": {"b": 1}}\n', "", "line 2: text holds an object, not"),
    (
        "x.csv.gz",
        gzip.compress(b"text\nwords\n" * 999)[:-20],
        "",
        "x.csv.gz: is cut short",
    ),
    (
        "x.jsonl.zst",
        zstandard.compress(ROW * 999)[:-20],
        "",
        "x.jsonl.zst: is cut short",
    ),
    ("x.txt", b"text", "--prompt_column a --completion_column b", "plain text has no columns"),
    ("x", b"\x7fELF\x00", "", "is no text (a zero byte at offset 4)"),
    ("x.txt", b"---\n---\n", "--document_separator=---", "holds no text, only white space"),
    ("x/dataset_info.json", b"{}", "", "is no whole saved dataset"),
    ("x/notes.log", b"{}", "", "holds no file that can be read"),
]


@pytest.mark.parametrize(
    "name, content, more, says",
    TABLE_FAULTS,
    ids=[f"{n}: {s[:40]}" for n, _, _, s in TABLE_FAULTS],
)
@pytest.mark.parametrize("streaming", [[], ["--streaming"]], ids=["whole", "stream"])
def test_a_file_that_cannot_be_a_corpus_is_refused_by_name(
    finished, tmp_path, refusal, name, content, more, says, streaming
):
    before = {path: path.stat().st_mtime_ns for path in finished.path.rglob("*")}
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    corpus = tmp_path / name.split("/")[0]
    words = ["--run_dir", finished.path, "--corpus", corpus, *more.split(), *streaming]
    error = refusal(create_dataset.main, *words)
    assert says in error and corpus.name in error
    assert {path for path in finished.path.rglob("*") if ".lock" not in path.name} == set(before)


@pytest.mark.parametrize("streaming", [[], ["--streaming"]], ids=["whole", "stream"])
@pytest.mark.parametrize(
    "good, bad, says",
    [
        ("a.txt", "b.txt", "byte 0xe9 at offset 3 is not utf-8"),
        ("a.csv", "b.csv", "byte 0xe9 at offset 8 is not utf-8"),
        ("a.jsonl", "b.jsonl", "b.jsonl"),
    ],
)
def test_one_file_in_another_encoding_is_refused_by_name(
    finished, tmp_path, refusal, good, bad, says, streaming
):
    """Mixed encodings: there is no encoding that is right for all files, so none is guessed."""
    for name, encoding in ((good, "utf-8"), (bad, "latin-1")):
        text = {"csv": "text\ncafé\n", "jsonl": '{"text": "café"}\n'}.get(name[2:], "café\n")
        (tmp_path / name).write_bytes(text.encode(encoding))
    words = ["--run_dir", finished.path, "--corpus", tmp_path, *streaming]
    error = refusal(create_dataset.main, *words)
    assert says in error and bad in error and good not in error


def test_a_cut_parquet_file_is_refused(finished, tmp_path, refusal):
    import pyarrow as pa
    import pyarrow.parquet as parquet

    path = tmp_path / "x.parquet"
    parquet.write_table(pa.table({"text": ["some words"] * 9999}), path)
    os.truncate(path, path.stat().st_size // 2)
    error = refusal(create_dataset.main, "--run_dir", finished.path, "--corpus", path)
    assert "x.parquet: cannot be read as .parquet" in error


def test_folders_that_loop_are_read_once(finished, run_copy, tmp_path):
    folder = tmp_path / "loop"
    folder.mkdir()
    (folder / "again").symlink_to(folder)
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text("Some words.")
    create_dataset.main(["--run_dir", str(run_copy), "--corpus", str(folder)])
    results = RunDirectory(run_copy).results("create_dataset")
    assert results["splits"]["train"]["documents"] == 2


def test_an_example_longer_than_every_block_is_refused(run_copy, tmp_path, refusal):
    rows = [{"q": "why " * 30, "a": "because " * 30}] * 2
    rows += [{"q": f"why {n} " * 30, "a": f"because {n} " * 30} for n in range(9)]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--prompt_column", "q", "--completion_column", "a"]
    create_dataset.main(["--run_dir", str(run_copy), "--corpus", str(tmp_path / "x.jsonl"), *words])
    error = refusal(train_test_split.main, "--run_dir", run_copy)
    assert "example is longer than that" in error


def test_an_unreadable_file_is_refused(finished, tmp_path, refusal):
    link = tmp_path / "dangling.txt"
    link.symlink_to(tmp_path / "gone.txt")
    words = ["--run_dir", finished.path, "--corpus"]
    assert "dangling.txt: cannot be read (No" in refusal(create_dataset.main, *words, link)
    loop = tmp_path / "loop.txt"
    loop.symlink_to(loop)
    assert "error: " in refusal(create_dataset.main, *words, loop)


def test_a_corpus_too_small_for_one_block_says_what_would_do(run_copy, tmp_path, refusal):
    file = tmp_path / "short.txt"
    file.write_text("A short text of a few words, and nothing more than that.")
    create_dataset.main(["--run_dir", str(run_copy), "--corpus", str(file)])
    error = refusal(train_test_split.main, "--run_dir", run_copy, "--block_size", "64")
    assert "the corpus has" in error and "tokens" in error
    size = int(error.split("--block_size ")[2].split()[0])
    train_test_split.main(["--run_dir", str(run_copy), "--block_size", str(size)])
    assert "less than one block" in refusal(
        train_test_split.main, "--run_dir", run_copy, "--block_size", str(size + 1)
    )


def test_a_tiny_corpus_cannot_be_split(run_copy, tmp_path, refusal):
    file = tmp_path / "tiny.txt"
    file.write_text("Hi.")
    create_dataset.main(["--run_dir", str(run_copy), "--corpus", str(file)])
    assert "tokens" in refusal(train_test_split.main, "--run_dir", run_copy)


def test_two_documents_cannot_fill_three_splits(run_copy, tmp_path, refusal):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("Some words. " * 50)
    create_dataset.main(["--run_dir", str(run_copy), "--corpus", f"{tmp_path}/*.txt"])
    error = refusal(train_test_split.main, "--run_dir", run_copy)
    assert "2 documents cannot fill train, validation and test" in error
    assert "--document_separator" in error


# Models


@pytest.fixture
def model_folder(finished, tmp_path):
    return shutil.copytree(finished.path / "model", tmp_path / "model")


def edit_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def without_a_layer(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if ".h.1." not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def with_code(folder):
    import torch

    (folder / "model.safetensors").unlink()
    torch.save({"transformer.wte.weight": Fraction(1, 2)}, folder / "pytorch_model.bin")


def with_more_merges(folder):
    path = folder / "tokenizer.json"
    held = json.loads(path.read_text(encoding="utf-8"))
    held["model"]["vocab"]["zq"] = 300
    held["model"]["merges"].append("z q")
    path.write_text(json.dumps(held), encoding="utf-8")


def without_end_of_text(folder):
    path = folder / "tokenizer.json"
    path.write_text(path.read_text(encoding="utf-8").replace("<|endoftext|>", "<|start|>"))
    (folder / "tokenizer_config.json").write_text("{}")
    edit_config(folder, eos_token_id=None)


def with_index(folder, name):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index = {"metadata": {}, "weight_map": {"transformer.wte.weight": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


MODELS = [
    (lambda f: edit_config(f, model_type="llama"), "holds a llama model"),
    (lambda f: edit_config(f, model_type=None), "holds no GPT-2"),
    (lambda f: edit_config(f, n_layer=1), "its weights have 2 blocks, config.json says n_layer 1"),
    (lambda f: edit_config(f, n_layer=-1), "its config.json says n_layer -1"),
    (lambda f: edit_config(f, n_layer="two"), "expected int, got str"),
    (lambda f: edit_config(f, n_head=5), "which is no multiple of n_head 5"),
    (lambda f: edit_config(f, activation_function="golu"), "names the activation golu"),
    (lambda f: edit_config(f, activation_function="prelu"), "prelu, which has weights of its own"),
    (lambda f: edit_config(f, quantization_config={"quant_method": "gptq"}), "quantized weights"),
    (lambda f: (f / "config.json").write_text("{"), "config.json cannot be read"),
    (without_a_layer, "its weights lack 12 tensors, the first is transformer.h.1."),
    (lambda f: edit_config(f, n_embd=64), "does not have the shape that config.json says"),
    (lambda f: os.truncate(f / "model.safetensors", 5000), "its weights cannot be read"),
    (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        "its pytorch_model.bin is cut short, or holds more than tensors",
    ),
    (with_code, "which could run code: it is not opened; where the Hub has a pull request"),
    (lambda f: (f / "model.safetensors").unlink(), "holds no weights (model.safetensors or"),
    (lambda f: edit_config(f, num_labels=10**9), "its config.json says num_labels 1000000000"),
    (lambda f: os.truncate(f / "config.json", 2 << 20), "it has more than 1,048,576 bytes"),
    (lambda f: with_index(f, "../elsewhere.safetensors"), "which is not in the folder"),
    (lambda f: with_index(f, "pytorch_model.bin"), "names no *.safetensors files"),
    (lambda f: (f / "adapter_config.json").write_text("{}"), "holds an adapter beside a model"),
    (lambda f: (f / "tokenizer.json").unlink(), "holds no tokenizer"),
    (lambda f: (f / "tokenizer.json").write_text("{}"), "its tokenizer.json cannot be read"),
    (with_more_merges, "its tokenizer has 301 entries, the model only 300"),
    (without_end_of_text, "no token that ends a text; name one of its entries with --eos_token"),
]


@pytest.mark.parametrize("damage, says", MODELS, ids=[says[:30] for _, says in MODELS])
def test_a_model_that_is_not_whole_or_not_gpt2_is_refused(
    finished, model_folder, refusal, damage, says
):
    damage(model_folder)
    words = ["--run_dir", finished.path, "--model", model_folder]
    assert says in refusal(load_gpt2.main, *words)


def test_what_else_a_folder_says_is_not_obeyed(model_folder):
    """Kernels to fetch, number types, settings to sample by: what shapes the model is taken."""
    edit_config(model_folder, _attn_implementation="owner/kernel", dtype="float1024", use_kernels=1)
    (model_folder / "generation_config.json").write_text("null")
    assert gpt2.open_model(model_folder).dtype == torch.float32


def test_a_good_folder_loads_and_trains(finished, model_folder, tmp_path):
    import_modules.main(["--run_dir", str(tmp_path / "run"), "--device", "cpu"])
    load_gpt2.main(["--run_dir", str(tmp_path / "run"), "--model", str(model_folder)])
    run = RunDirectory(tmp_path / "run")
    model, tokenizer = load_gpt2.read_gpt2(run)
    tuned = train_model.read_tuned(RunDirectory(finished.path))
    assert all((a == b).all() for a, b in zip(model.parameters(), tuned.parameters(), strict=True))
    assert not (tmp_path / "run/base_model").exists()


# Time and noise


@pytest.mark.parametrize("words", [["--model", "gpt2"], ["--model", "./gtp2"], ["--model", "auto"]])
@pytest.mark.parametrize("network", ["closed", "silent"])
def test_an_unreachable_hub_answers_within_ten_seconds(finished, tmp_path, words, network):
    import socket

    with socket.socket() as server:  # closed: refuses; silent: accepts and never answers
        server.bind(("127.0.0.1", 0))
        if network == "silent":
            server.listen()
        environment = {
            "HF_HUB_OFFLINE": "0",
            "HF_ENDPOINT": f"http://127.0.0.1:{server.getsockname()[1]}",
            "HF_HOME": str(tmp_path),
        }
        run = tmp_path / "run"
        shutil.copytree(finished.path, run)
        started = time.monotonic()
        done = shell("load_gpt2.py", "--run_dir", str(run), *words, **environment)
        assert time.monotonic() - started < 10 + 5  # five for starting Python and its libraries
    if words[1] == "auto":
        assert done.returncode == 0 and "does not answer" in done.stdout
    else:
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr


def test_a_defect_of_ours_is_a_traceback_and_exit_code_1(tmp_path):
    code = "from toolkit.run.command import command\n@command\ndef main(): 1 / 0\nmain()"
    done = shell("-c", code)
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr


def test_a_full_disk_is_the_users_to_mend(tmp_path):
    code = (
        "import errno\nfrom toolkit.run.command import command\n@command\n"
        "def main(): raise OSError(errno.ENOSPC, 'No space left on device', 'x.arrow')\nmain()"
    )
    done = shell("-c", code)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: x.arrow: No space left on device; free some space")


def test_importing_a_step_does_nothing():
    names = ", ".join(name for name in MAINS)
    done = shell("-c", f"import {names}", cwd=PROJECT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "content, complaint",
    [
        (b'{"prompt": "a"}\n{"prompt": \n', "line 2 is no JSON"),
        (b'{"prompt": "a"}\n\n{"text": "a"}\n', "line 3 must be an object like"),
        (b'{"prompt": " "}\n', "line 1 has an empty prompt"),
        (b"\n", "holds no prompt"),
        (b'{"prompt": "\xff"}\n', "is not utf-8"),
    ],
)
def test_a_broken_file_of_prompts_is_refused(content, complaint, finished, tmp_path, refusal):
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(content)
    words = ["--run_dir", finished.path, "--prompts_file", path]
    assert complaint in refusal(generate.main, *words)


def test_standard_input_without_a_prompt_is_refused(finished):
    done = shell("generate.py", "--run_dir", str(finished.path), "--prompts_file", "-", stdin="\n")
    assert done.returncode == 2
    assert done.stderr == "error: --prompts_file -: standard input holds no prompt\n"
