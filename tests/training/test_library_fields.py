"""Every field of the library's TrainingArguments is obeyed, or refused in one line that helps."""

import json
import re

import pytest
import torch
from transformers import TrainingArguments
from transformers.trainer_utils import SchedulerType
from transformers.training_args import OptimizerNames

import configure_trainer
import run_pipeline
from configure_trainer import TrainerOptions
from tests.conftest import PROJECT
from tests.training.test_training import trainer_for
from toolkit.run.command import UserError
from toolkit.run.run_directory import RunDirectory
from toolkit.training import stream_position
from toolkit.training.arguments import extra_arguments, refuse_what_the_library_would
from toolkit.training.library_fields import FLAGS, FORMER, OBEYED, REFUSED, why_not
from toolkit.training.trainer import IGNORED, PipelineTrainer
from train_test_split import read_splits

FIELDS = set(TrainingArguments.__dataclass_fields__)


@pytest.fixture
def run(finished) -> RunDirectory:
    return RunDirectory(finished.path, seed=7, device="cpu", precision="fp32")


def test_every_field_of_the_installed_library_is_in_one_part_of_the_table():
    parts = (OBEYED, set(FLAGS), set(REFUSED), set(FORMER))
    assert FIELDS <= set().union(*parts), "say of each new field whether it is obeyed"
    assert sum(map(len, parts)) == len(set().union(*parts))
    assert not FIELDS & set(FORMER)


@pytest.mark.parametrize("field", sorted({*FLAGS, *REFUSED, *FORMER}))
def test_what_is_not_obeyed_is_refused_with_what_to_do(field):
    with pytest.raises(UserError) as refused:
        extra_arguments([f"{field}=secret"])
    assert str(refused.value) == f"--trainer {field}=...: not here: {why_not(field)}"
    assert len(why_not(field)) > 8


def test_the_documentation_names_every_field_that_is_obeyed():
    text = (PROJECT / "docs/training.md").read_text()
    named = set(re.findall(r"`(\w+)`", text.split("These are obeyed:")[1].split("All others")[0]))
    assert named == OBEYED


def test_a_field_that_a_newer_library_brings_is_refused_until_it_is_in_the_table(monkeypatch):
    fields = {**TrainingArguments.__dataclass_fields__, "brand_new": None}
    monkeypatch.setattr(TrainingArguments, "__dataclass_fields__", fields)
    with pytest.raises(UserError, match="brand_new=1: a field that only newer versions"):
        extra_arguments(["brand_new=1"])


@pytest.mark.parametrize(
    "pairs, says",
    [
        (["max_grad_norm=nan"], "max_grad_norm=nan: must be a finite number"),
        (["adam_epsilon=inf"], "adam_epsilon=inf: must be a finite number"),
        (["max_grad_norm=-1"], "max_grad_norm=-1.0: must be above 0, or 0 for no clipping"),
        (["data_seed=1", "data_seed=2"], "data_seed=1: data_seed is given twice"),
        (["lr_scheduler_kwargs={'a': 1}"], """--trainer 'lr_scheduler_kwargs={"name": 1}'"""),
        (["lr_scheduler_kwargs=[1]"], "must be a JSON object"),
        (["max_grad_nrom=1"], "did you mean max_grad_norm?"),
        (["warmup_ratio=0.1"], "take --warmup_steps, which below 1 is a share of all steps"),
        (["data_seed=x"], "--trainer: --data_seed"),
        (["optim=sgdd"], "--trainer: --optim: invalid choice: 'sgdd'"),
    ],
)
def test_a_value_that_cannot_be_is_refused(pairs, says):
    with pytest.raises(UserError) as refused:
        extra_arguments(pairs)
    assert says in str(refused.value)


COMPLAINTS = [
    # what is given; what the one line says of the library's complaint
    ({"trainer": ["adam_beta1=1.5"]}, "adam_beta1=1.5: Invalid beta parameter at index 0: 1.5"),
    ({"trainer": ["adam_epsilon=-1"]}, "--trainer adam_epsilon=-1.0: Invalid epsilon value"),
    ({"trainer": ["optim_args=foo"]}, "--trainer optim_args=foo: "),
    ({"trainer": ["optim_args=foo=1"]}, "optim_args=foo=1: adamw_torch_fused has no such setting"),
    ({"trainer": ["optim=sgd", "adam_beta1=0.5"]}, "adam_beta1=0.5: sgd has no such setting"),
    ({"trainer": ["optim=sgd", "optim_args=momentum=x"]}, "could not convert string to float"),
    ({"trainer": ["optim=sgd", "optim_args=weight_decay=1"]}, "take --weight_decay"),
    ({"trainer": ["optim=galore_adamw"]}, "not here: galore_adamw picks modules"),
    ({"trainer": ["optim=schedule_free_sgd"]}, "holds other weights while it trains"),
    ({"trainer": ["torch_empty_cache_steps=0"]}, "torch_empty_cache_steps"),
    ({"trainer": ["dataloader_prefetch_factor=2"]}, "dataloader_prefetch_factor"),
    ({"trainer": ["tf32=true"]}, "--tf32 requires Ampere or a newer GPU"),
    ({"trainer": ['lr_scheduler_kwargs={"a":1}']}, "unexpected keyword argument 'a'"),
    ({"lr_scheduler_type": "cosine_with_min_lr"}, "One of min_lr or min_lr_rate should be set"),
    ({"lr_scheduler_type": "warmup_stable_decay"}, "num_decay_steps"),
    ({"lr_scheduler_type": "greedy"}, "its lowest rate, 0.001, is above the learning rate, 5e-05"),
    (
        {"lr_scheduler_type": "constant", "trainer": ['lr_scheduler_kwargs={"a":1}']},
        "this schedule has no settings",
    ),
]


@pytest.mark.parametrize("given, says", COMPLAINTS, ids=[says for _, says in COMPLAINTS])
def test_what_the_library_would_complain_of_is_refused_before_any_step(run, given, says):
    with pytest.raises(UserError) as refused:
        refuse_what_the_library_would(TrainerOptions(**given), run)
    assert says in str(refused.value) and "\n" not in str(refused.value)


def test_a_refused_training_leaves_the_earlier_ones_record(finished, refusal):
    words = ["--run_dir", finished.path, "--lr_scheduler_type", "polynomial", "--max_steps", "6"]
    words += ["--trainer", 'lr_scheduler_kwargs={"lr_end": 1}']
    before = (finished.path / "configure_trainer.json").read_bytes()
    assert "--lr_scheduler_type polynomial" in refusal(configure_trainer.main, *words)
    assert (finished.path / "configure_trainer.json").read_bytes() == before


@pytest.mark.parametrize("name", [kind.value for kind in OptimizerNames])
def test_every_optimizer_is_built_or_refused_in_one_line(run, name):
    try:
        refuse_what_the_library_would(TrainerOptions(trainer=[f"optim={name}"]), run)
    except UserError as error:
        assert str(error).startswith(f"--trainer optim={name}: ") and "\n" not in str(error)
    else:
        assert not name.startswith(("galore", "apollo", "lomo", "schedule_free"))


SETTINGS = {
    "cosine_with_min_lr": {"min_lr_rate": 0.1},
    "cosine_warmup_with_min_lr": {"min_lr_rate": 0.1},
    "warmup_stable_decay": {"num_decay_steps": 2},
    "greedy": {"min_lr": 1e-5, "max_lr": 1e-2},
}


@pytest.mark.parametrize("kind", [kind.value for kind in SchedulerType])
@pytest.mark.parametrize("warmup", [0, 2])
def test_the_first_step_trains_at_a_rate_above_0_and_the_peak_is_reached(
    run, tmp_path, kind, warmup
):
    flags = {"lr_scheduler_type": kind, "max_steps": 6}
    if kind not in ("constant", "reduce_lr_on_plateau", "greedy"):
        flags["warmup_steps"] = warmup
    if kind in SETTINGS:
        flags["trainer"] = [f"lr_scheduler_kwargs={json.dumps(SETTINGS[kind])}"]
    trainer = trainer_for(run, tmp_path, **flags)
    trainer.create_optimizer_and_scheduler(6)
    rates = []
    for _ in range(6):
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        trainer.optimizer.step()
        trainer.lr_scheduler.step(*[1.0][: kind in ("greedy", "reduce_lr_on_plateau")])
    assert min(rates) > 0
    if kind == "cosine_warmup_with_min_lr":  # the library's own is a step on from the start
        return
    assert max(rates) == pytest.approx(1e-3)
    if "warmup_steps" in flags:
        assert rates[:warmup] == pytest.approx([1e-3 * (n + 1) / warmup for n in range(warmup)])


def test_the_only_step_trains_and_is_not_said_to_have_improved_anything(run, tmp_path):
    trainer = trainer_for(run, tmp_path, max_steps=1)
    before = [weight.clone() for weight in trainer.model.parameters()]
    trainer.train()
    assert not all(map(torch.equal, before, trainer.model.parameters()))


# What is obeyed


def kept_values(model, run):
    """How many values forward keeps for going back."""
    kept = []
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()), lambda _: _)
    ids = torch.zeros(2, 32, dtype=torch.int64)
    with hooks:
        model.train()(ids, labels=ids)
    return sum(kept)


def test_obeyed_fields_do_what_the_library_says_of_them(run, tmp_path):
    given = ["logging_first_step=true", "activation_checkpointing=true"]
    flags = {"logging_steps": 3, "eval_steps": 2}
    plain = trainer_for(run, tmp_path / "a", **flags)
    plain.train()
    other = trainer_for(run, tmp_path / "b", trainer=[*given, "full_determinism=true"], **flags)
    assert torch.are_deterministic_algorithms_enabled()
    other.train()
    torch.use_deterministic_algorithms(False)
    assert [e["step"] for e in other.state.log_history if "loss" in e] == [1, 3]
    assert kept_values(other.model, run) < kept_values(plain.model, run) / 2
    assert all(map(torch.equal, plain.model.parameters(), other.model.parameters()))
    third = trainer_for(run, tmp_path / "c", trainer=["data_seed=3", "max_grad_norm=1e-3"], **flags)
    third.train()
    assert not any(map(torch.equal, plain.model.parameters(), third.model.parameters()))


def test_the_validation_before_training_is_not_repeated_when_training_goes_on(run, tmp_path):
    stopped = trainer_for(run, tmp_path)
    stopped.interruption.came = True
    stopped.train()
    again = trainer_for(run, tmp_path)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoints" / "checkpoint-1"))
    assert [e["step"] for e in again.state.log_history if "eval_loss" in e] == [0, 4]


@pytest.mark.parametrize("pair", ["data_seed=3", "dataloader_num_workers=2"])
def test_a_stream_refuses_what_only_blocks_obey(run, tmp_path, refusal, monkeypatch, pair):
    words = ["--run_dir", tmp_path / "run", "--streaming", "--max_steps", "2", "--trainer", pair]
    assert f"--trainer {pair}: a stream is " in refusal(run_pipeline.main, *words)
    monkeypatch.setattr(stream_position, "TrainingStream", object)  # any training set
    with pytest.raises(UserError, match="--trainer .*: a stream is "):
        trainer_for(run, tmp_path, trainer=[pair])


# By edit of the step


@pytest.mark.parametrize("name", IGNORED)
def test_what_the_trainer_would_not_heed_is_refused_when_it_is_built(name):
    with pytest.raises(UserError, match=rf"PipelineTrainer\({name}=...\): not here: "):
        PipelineTrainer(plan={}, history_path=None, precision="fp32", **{name: (None, 1)})


def test_several_validation_sets_are_all_validated(run, tmp_path):
    splits = read_splits(run)
    sets = {"one": splits["validation"], "two": splits["test"]}
    trainer = trainer_for(run, tmp_path, eval_steps=2)
    trainer.eval_dataset = sets
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert [entry["step"] for entry in log] == [0, 2, 4] and trainer.state.best_global_step
    alone = {name: trainer.evaluate(blocks)["eval_loss"] for name, blocks in sets.items()}
    assert {name: log[-1][f"eval_{name}_loss"] for name in sets} == alone
    mean = sum(alone[name] * len(sets[name]) for name in sets) / sum(map(len, sets.values()))
    assert log[-1]["eval_loss"] == pytest.approx(mean)
