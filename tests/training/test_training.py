"""Training in practice: what is frozen, what fits, what is foreseen, and what stops it."""

import itertools
import json
import math
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GPT2Config

import configure_trainer
import train_model
from configure_trainer import TrainerOptions, build_trainer, make_trainable
from load_gpt2 import read_gpt2
from toolkit.model.gpt2 import fresh_model, open_model
from toolkit.model.trainable import train_last_blocks
from toolkit.run.command import UserError
from toolkit.run.run_directory import RunDirectory
from toolkit.training import pace as training_pace
from toolkit.training import plan, preflight
from toolkit.training.compute_rate import training_operations_per_token
from toolkit.training.log_history import read_log
from toolkit.training.manifest import what_is_broken
from toolkit.training.plan import make_plan
from toolkit.training.preflight import MemoryNeed, memory_need, settle_micro_batch
from toolkit.training.trainer import PipelineTrainer
from train_test_split import read_splits

SHAPE = {"n_layer": 3, "n_head": 2, "n_embd": 32, "n_positions": 48, "vocab_size": 131}


@pytest.fixture
def run(finished) -> RunDirectory:
    return RunDirectory(finished.path, seed=7, device="cpu", precision="fp32")


def small_model():
    torch.manual_seed(5)
    return fresh_model(GPT2Config(**SHAPE))


def trainer_for(run, folder, **flags):
    options = TrainerOptions(**{"max_steps": 4, "learning_rate": 1e-3, **flags})
    model = make_trainable(read_gpt2(run)[0], options, run.seed)
    plan, _ = make_plan(model, options, run)
    elsewhere = RunDirectory(folder, run.seed, run.device, run.precision)
    return build_trainer(model, read_splits(run), options, plan, elsewhere)


# Freezing and adapters


def test_freezing_trains_the_last_blocks_the_norm_and_the_head_and_nothing_else(run, tmp_path):
    before = read_gpt2(run)[0].state_dict()
    trainer = trainer_for(run, tmp_path, trainable_blocks=1)
    trainer.train()
    last = f"transformer.h.{len(trainer.model.transformer.h) - 1}."
    for name, weight in trainer.model.state_dict().items():
        trained = name.startswith((last, "transformer.ln_f", "lm_head"))
        assert torch.equal(weight, before[name]) != trained, name


def test_backward_stops_at_the_first_trainable_block():
    model = train_last_blocks(small_model(), 1)
    reached = []
    for number, block in enumerate(model.transformer.h):
        block.attn.c_attn.register_full_backward_hook(lambda *_, n=number: reached.append(n))
    ids = torch.randint(131, (2, 48))
    model(ids, labels=ids).backward()
    assert reached == [2]


def test_a_frozen_models_checkpoint_reloads_exactly(run, tmp_path):
    trainer = trainer_for(run, tmp_path, trainable_blocks=1)
    trainer.train()
    reloaded = open_model(tmp_path / "checkpoints" / f"checkpoint-{trainer.state.max_steps}")
    for name, weight in trainer.model.state_dict().items():
        assert torch.equal(reloaded.state_dict()[name], weight), name
    assert not torch.equal(reloaded.lm_head.weight, reloaded.transformer.wte.weight)


def test_adapters_are_trained_alone_and_merged_into_a_plain_model(run_copy):
    path = run_copy
    flags = ["--run_dir", str(path)]
    shape = ["--lora_rank", "4", "--max_steps", "6", "--learning_rate", "1e-2"]
    configure_trainer.main([*flags, *shape])
    train_model.main(flags)
    record = json.loads((path / "configure_trainer.json").read_text())["results"]
    assert record["trainable_parameters"] < record["parameters"] / 10
    assert sorted(p.name for p in (path / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    merged = AutoModelForCausalLM.from_pretrained(path / "model")
    base = open_model(path / "base_model")
    assert {*merged.state_dict()} == {*base.state_dict()}
    adapter = load_file(path / "adapter" / "adapter_model.safetensors")
    for number in range(base.config.n_layer):
        name = f"transformer.h.{number}.attn.c_attn"
        down, up = (adapter[f"base_model.model.{name}.lora_{k}.weight"] for k in "AB")
        change = merged.get_submodule(name).weight - base.get_submodule(name).weight
        torch.testing.assert_close(change, 2 * (up @ down).T, atol=1e-5, rtol=1e-4)
        assert change.abs().sum() > 0
    assert torch.equal(merged.transformer.wte.weight, base.transformer.wte.weight)
    configure_trainer.main([*flags, "--max_steps", "1"])
    train_model.main(flags)
    assert not (path / "adapter").exists()  # it would not be that of model/


def test_adapters_are_drawn_by_the_seed_alone(run):
    """So that step 7 alone, or a second process, begins where the runner does."""
    pytest.importorskip("peft")
    drawn = []
    for seed, state in ((7, 1), (7, 2), (8, 1)):
        torch.manual_seed(state)
        model = make_trainable(read_gpt2(run)[0], TrainerOptions(lora_rank=2), seed)
        assert torch.random.initial_seed() == state
        drawn.append([weight for name, weight in model.named_parameters() if "lora_A" in name])
    first, again, other = drawn
    assert first and all(map(torch.equal, first, again))
    assert not any(map(torch.equal, first, other))


def test_a_model_that_has_a_trainer_gets_no_second_one(run_copy):
    """From Python: it would go on from trained weights, and be compared with an untrained base."""
    run = RunDirectory(run_copy, seed=7, device="cpu", precision="fp32")
    model, splits = read_gpt2(run)[0], read_splits(run)
    options = TrainerOptions(max_steps=2)
    configure_trainer.configure_trainer(model, splits, options, run)
    with pytest.raises(UserError, match="belongs to an earlier trainer"):
        configure_trainer.configure_trainer(model, splits, options, run)
    configure_trainer.configure_trainer(read_gpt2(run)[0], splits, options, run)


@pytest.mark.parametrize(
    "parameters, from_scratch, flags, usual",
    [
        (124_439_808, False, {}, plan.FINE_TUNING),
        (6_112_000, False, {}, plan.FINE_TUNING_SMALL),
        (6_112_000, True, {}, plan.FROM_SCRATCH),
        (124_439_808, False, {"lora_rank": 8}, plan.ADAPTERS),
        (6_112_000, False, {"lora_rank": 8}, plan.ADAPTERS_SMALL),
    ],
)
def test_what_is_usual_depends_on_what_is_trained(parameters, from_scratch, flags, usual):
    loaded = {"parameters": parameters, "from_scratch": from_scratch}
    assert plan.usual_values(loaded, TrainerOptions(**flags)) == usual


def test_operations_per_token_follow_what_is_trained():
    width, time = SHAPE["n_embd"], SHAPE["n_positions"]
    block, head = 12 * width**2, SHAPE["vocab_size"] * width
    attention = 4 * width * time
    full = 3 * (6 * block + 3 * attention) + 6 * head
    assert training_operations_per_token(small_model(), time) == full
    frozen = 2 * (2 * block + attention) + 6 * block + 3 * attention + 6 * head
    assert training_operations_per_token(train_last_blocks(small_model(), 1), time) == frozen


# Memory


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_running_out_of_memory_says_what_to_do_and_loses_nothing(run_copy, monkeypatch, error):
    words = "--max_steps 8 --eval_steps 2 --weight_decay 0".split()  # not the one that is there
    configure_trainer.main(["--run_dir", str(run_copy), *words])
    loss, calls = PipelineTrainer.compute_loss, []

    def out_of_memory(*args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise error("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")
        return loss(*args, **kwargs)

    monkeypatch.setattr(PipelineTrainer, "compute_loss", out_of_memory)
    with pytest.raises(SystemExit, match="2"):
        train_model.main(["--run_dir", str(run_copy)])
    assert (run_copy / "checkpoints" / "checkpoint-2").is_dir()
    train_model.main(["--run_dir", str(run_copy)])
    record = json.loads((run_copy / "train_model.json").read_text())
    assert record["measured"]["resumed_from"] == 2 and record["results"]["steps"] == 8


def test_the_automatic_micro_batch_is_the_largest_divisor_that_fits():
    need = MemoryNeed(fixed=100, row=10)
    assert settle_micro_batch(need, 160, "auto", 12) == 6
    assert settle_micro_batch(need, 159, "auto", 12) == 4
    assert settle_micro_batch(need, 1000, "auto", 12) == 12
    assert settle_micro_batch(need, 130, 3, 12) == 3
    for asked, free in (("auto", 109), (4, 139)):
        with pytest.raises(UserError, match="--per_device_train_batch_size"):
            settle_micro_batch(need, free, asked, 12)


def test_an_automatic_micro_batch_keeps_the_effective_batch(run, tmp_path, monkeypatch):
    flags = {"per_device_train_batch_size": "auto", "gradient_accumulation_steps": 3}
    monkeypatch.setattr(preflight, "memory_need", lambda *_: MemoryNeed(0, 10))
    monkeypatch.setattr(preflight, "free_memory_bytes", lambda _: 69)
    args = trainer_for(run, tmp_path, **flags).args
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == (6, 2)


def test_a_frozen_model_needs_less_memory_and_a_longer_block_more():
    full, long = (memory_need(small_model(), size, "bf16") for size in (24, 48))
    frozen = memory_need(train_last_blocks(small_model(), 1), 48, "bf16")
    assert full.row < long.row and full.fixed == long.fixed
    assert frozen.row < long.row * 0.65 and frozen.fixed < long.fixed


def test_a_full_disk_is_foreseen(run, monkeypatch, tmp_path):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match="--run_dir: .* of disk left, checkpoints and model take"):
        trainer_for(run, tmp_path)


# Time, divergence, what the log carries


def test_the_speed_of_a_ragged_step_counts_its_own_tokens(run, tmp_path, monkeypatch):
    """By a clock on which every step takes one second; the last of an epoch has fewer blocks."""
    clock = itertools.count()
    monkeypatch.setattr(training_pace, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    blocks = len(read_splits(run)["train"])
    batch = next(size for size in range(blocks // 4, blocks) if blocks % size)
    flags = {"num_train_epochs": 2, "max_steps": None, "logging_steps": 1}
    trainer = trainer_for(run, tmp_path, per_device_train_batch_size=batch, **flags)
    trainer.train()
    entries = [e for e in read_log(tmp_path / "log_history.jsonl") if "tokens_per_second" in e]
    speeds = [entry["tokens_per_second"] for entry in entries]
    sizes = [min(batch, blocks - start) for start in range(0, blocks, batch)] * 2
    assert speeds == [size * 32 for size in sizes][1:]  # the first step warms up


@pytest.mark.parametrize("worse", [math.nan, math.inf, 50.0], ids=str)
def test_divergence_stops_training_and_keeps_the_best_checkpoint(run, tmp_path, worse, monkeypatch):
    loss, calls = PipelineTrainer.compute_loss, []

    def explode(self, *args, **kwargs):
        calls.append(1)
        return loss(self, *args, **kwargs) * (1 if len(calls) <= 2 else worse)

    monkeypatch.setattr(PipelineTrainer, "compute_loss", explode)
    flags = {"eval_steps": 2, "logging_steps": 1}
    trainer = trainer_for(run, tmp_path, **flags)
    with pytest.raises(
        UserError, match="diverged at step 3 .* lower --learning_rate.*checkpoint-2"
    ):
        trainer.train()
    assert what_is_broken(tmp_path / "checkpoints/checkpoint-2") is None


def test_the_log_carries_speed_memory_and_utilization(finished):
    lines = (finished.path / "log_history.jsonl").read_text().splitlines()
    measured = [entry["measured"] for entry in map(json.loads, lines) if "measured" in entry]
    assert measured
    for entry in measured:
        assert entry["tokens_per_second"] > 0 and entry["peak_memory_bytes"] > 1e7
        assert 0 < entry["model_flops_utilization"] < 1


def test_a_share_above_1_of_the_machines_own_rate_is_never_logged(monkeypatch):
    """The rate was measured while others slowed the machine down: it is measured again."""
    measured = iter([100.0, 50.0, 400.0])
    monkeypatch.setattr(training_pace, "matrix_product_rate", lambda *_: next(measured))
    speedometer = training_pace.Speedometer(None, {}, "cpu", "fp32")
    assert speedometer.utilization(40.0) == {"model_flops_utilization": 0.4}
    assert speedometer.utilization(200.0) == {}
    assert speedometer.utilization(200.0) == {"model_flops_utilization": 0.5}
    assert speedometer.utilization(400.0) == {"model_flops_utilization": 1.0}
