"""model/ has all that other programs need: transformers, vLLM and lm-eval read it without ours."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open

from configure_trainer import read_trainer
from load_gpt2 import read_gpt2
from tests.conftest import chain_main
from toolkit.run.run_directory import RunDirectory
from train_model import TrainOptions, train_model

PROMPT = "The lamp, é 🙂,\n\nwas lit"
# What a stranger's process makes of the folder, with no network and nothing of this project.
STRANGER = """
import json, socket, sys
def refuse(*_): raise SystemExit("it asked for the network")
socket.socket.connect = socket.getaddrinfo = refuse
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, pipeline
folder, prompt = sys.argv[1:]
model, loading = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
tokenizer = AutoTokenizer.from_pretrained(folder)
ids = tokenizer(prompt)["input_ids"]
with torch.no_grad():
    logits = model.eval()(torch.tensor([ids])).logits[0]
written = pipeline("text-generation", folder, device="cpu")(prompt)[0]["generated_text"]
print(json.dumps({
    "written": written,
    "class": type(model).__name__, "dtype": str(model.dtype), "cache": model.config.use_cache,
    "missing": sorted(loading["missing_keys"]), "unexpected": sorted(loading["unexpected_keys"]),
    "back": tokenizer.decode(ids), "ids": ids, "logits": logits.tolist(),
    "entries": len(tokenizer), "end": tokenizer.eos_token_id, "longest": tokenizer.model_max_length,
    "generation": GenerationConfig.from_pretrained(folder).to_diff_dict(),
    "ours": [name for name in sys.modules if name.split(".")[0] in ("toolkit", "load_gpt2")],
}))
"""


@pytest.fixture(params=["", "--trainable_blocks 1", "--lora_rank 2"])
def trained(request, run_copy, all_flags, capsys):
    """A run's `model/` folder, the model `in_memory` that was saved there, its tokenizer."""
    if "lora" in request.param:
        pytest.importorskip("peft")
    chain_main("--run_dir", run_copy, *all_flags, *request.param.split(), "--to_step", "6")
    run = RunDirectory(run_copy, seed=7)
    tokenizer = read_gpt2(run)[1]
    in_memory = train_model(read_trainer(run), tokenizer, TrainOptions(resume="never"), run)
    return SimpleNamespace(folder=run_copy / "model", in_memory=in_memory, tokenizer=tokenizer)


def read(folder, name):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def test_a_stranger_gets_the_very_model(trained, tmp_path):
    words = [sys.executable, "-I", "-c", STRANGER, str(trained.folder), PROMPT]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["class"], found["dtype"], found["cache"]) == (
        "GPT2LMHeadModel",
        "torch.float32",
        1,
    )
    assert found["missing"] == found["unexpected"] == found["ours"] == []
    tokenizer = trained.tokenizer
    assert found["ids"] == tokenizer(PROMPT)["input_ids"] and found["back"] == PROMPT
    assert (found["entries"], found["end"]) == (len(tokenizer), tokenizer.eos_token_id)
    assert found["written"].startswith(PROMPT)  # a pipeline's 256 new tokens would be too many
    assert found["longest"] == 64 and found["generation"]["eos_token_id"] == found["end"]
    with torch.no_grad():
        logits = trained.in_memory(torch.tensor([found["ids"]]))[0]
    torch.testing.assert_close(torch.tensor(found["logits"]), logits, atol=1e-6, rtol=0)


def test_config_tokenizer_and_generation_config_say_what_servers_look_for(trained):
    names = {path.name for path in trained.folder.iterdir()}
    wanted = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert names == wanted | {"model.safetensors"}
    config = read(trained.folder, "config.json")
    end = trained.tokenizer.eos_token_id
    assert config["architectures"] == ["GPT2LMHeadModel"] and config["model_type"] == "gpt2"
    assert (config["n_positions"], config["n_ctx"], config["dtype"]) == (64, 64, "float32")
    assert (config["bos_token_id"], config["eos_token_id"]) == (end, end)
    # vLLM's GPT-2 knows no other kind
    assert not config["add_cross_attention"] and not config["scale_attn_by_inverse_layer_idx"]
    assert not config["reorder_and_upcast_attn"]
    generation = read(trained.folder, "generation_config.json")
    assert generation["eos_token_id"] == end
    # servers would take these as their defaults, unasked
    assert not {"temperature", "top_p", "top_k", "max_new_tokens"} & set(generation)
    assert generation["max_length"] == 64
    settings = read(trained.folder, "tokenizer_config.json")
    assert settings["eos_token"] == "<|endoftext|>" and settings["model_max_length"] == 64


def test_the_weights_are_whole_and_each_is_there_once(trained):
    """One file needs no index; the library writes one where it cuts the weights into several."""
    held = held_tensors(trained.folder)
    expected = trained.in_memory.state_dict()
    if trained.in_memory.config.tie_word_embeddings:
        del expected["lm_head.weight"]  # the same tensor as the embedding
    assert held.keys() == expected.keys()
    assert all(torch.equal(held[name], expected[name]) for name in held)
    assert read(trained.folder, "config.json")["tie_word_embeddings"] == (
        "lm_head.weight" not in held
    )
    cut = trained.folder.parent / "cut"
    trained.in_memory.save_pretrained(cut, max_shard_size="50KB")
    assert len(list(cut.glob("*.safetensors"))) > 1 and held_tensors(cut).keys() == held.keys()


def held_tensors(folder) -> dict[str, torch.Tensor]:
    """The tensors of a folder's weight files, which are those its index lists, if it has one."""
    held, where = {}, {}
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            assert weights.metadata()["format"] == "pt"
            for name in weights.keys():
                assert name not in held
                held[name], where[name] = weights.get_tensor(name), file.name
    index = folder / "model.safetensors.index.json"
    assert index.exists() == (len(set(where.values())) > 1)
    assert not index.exists() or read(folder, index.name)["weight_map"] == where
    return held
