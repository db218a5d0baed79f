"""The losses and metrics that are reported, against plain PyTorch."""

import itertools
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from configure_trainer import TrainerOptions, build_trainer
from create_dataset import read_documents
from load_gpt2 import read_gpt2
from tests.conftest import chain_main, library_model, without_dropout
from toolkit.blocks.collator import collate
from toolkit.run.run_directory import RunDirectory
from toolkit.scoring.losses import score_blocks
from toolkit.scoring.metrics import as_metrics
from toolkit.scoring.text_counts import count_text
from toolkit.scoring.windows import find_pieces
from toolkit.training import pace
from toolkit.training.plan import describe_plan, make_plan
from train_model import read_tuned
from train_test_split import read_splits, summarize


@pytest.fixture(scope="module")
def run(finished):
    return RunDirectory(finished.path, seed=7, device="cpu", precision="fp32")


def plain_loss(model, blocks):
    """Mean cross entropy of all tokens but each block's first, block by block, in float64."""
    model = library_model(model).double()
    total, count = 0.0, 0
    with torch.no_grad():
        for block in blocks:
            ids = torch.from_numpy(block["input_ids"].astype(np.int64))
            log_probabilities = model(ids[None]).logits[0, :-1].log_softmax(-1)
            total -= log_probabilities.gather(1, ids[1:, None]).sum().item()
            count += len(ids) - 1
    return total / count


def trainer_for(run, tmp_path, **options):
    """A trainer without dropout, so that its training loss can be calculated from outside."""
    model = without_dropout(read_gpt2(run)[0])
    splits = read_splits(run)
    options = TrainerOptions(**{"learning_rate": 1e-9, "logging_steps": 1, **options})
    elsewhere = RunDirectory(tmp_path, seed=7, device="cpu", precision="fp32")
    plan, _ = make_plan(model, options, run)
    trainer = build_trainer(model, splits, options, plan, elsewhere)
    trainer.args.eval_on_start = False  # so that the collator's first blocks are those of training
    return trainer, model, splits


@pytest.mark.parametrize(
    "micro_batch, accumulation", [(4, 1), (1, 4), (2, 3)], ids=["plain", "by one", "ragged"]
)
def test_the_training_loss_is_the_mean_cross_entropy(run, tmp_path, micro_batch, accumulation):
    trainer, model, splits = trainer_for(
        run,
        tmp_path,
        max_steps=1,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=accumulation,
    )
    seen = []
    collator = trainer.data_collator

    def spy(blocks):
        seen.extend(blocks)
        return collator(blocks)

    trainer.data_collator = spy
    expected_model, _ = read_gpt2(run)
    trainer.train()
    used = seen[: micro_batch * accumulation]
    logged = next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    assert logged == pytest.approx(plain_loss(expected_model, used), abs=1e-5)


def test_the_validation_loss_is_the_mean_cross_entropy(run, tmp_path):
    trainer, model, splits = trainer_for(run, tmp_path, max_steps=1, per_device_train_batch_size=4)
    assert len(splits["validation"]) % 4, "the last batch is to be a ragged one"
    reported = trainer.evaluate()["eval_loss"]
    assert reported == pytest.approx(plain_loss(model, splits["validation"]), abs=1e-5)


def test_the_reported_test_metrics_agree_with_a_float64_loop(run, finished):
    metrics = json.loads((finished.path / "evaluate_model.json").read_text())["results"]
    test = read_splits(run)["test"]
    for name, model in (("base", read_gpt2(run)[0]), ("tuned", read_tuned(run))):
        assert metrics[name]["loss"] == pytest.approx(plain_loss(model, test), abs=2e-2)  # bf16
        exact = score_blocks(model, test, collate, "fp32", name)
        loss = exact["nats"] / exact["tokens"]
        assert loss == pytest.approx(plain_loss(model, test), abs=1e-5)
        assert exact["tokens"] == sum(len(block["input_ids"]) - 1 for block in test)


def test_accuracy_is_the_share_of_first_choices(run):
    model = read_gpt2(run)[0]
    library, test = library_model(model), read_splits(run)["test"]
    right = total = 0
    with torch.no_grad():
        for block in test:
            ids = torch.from_numpy(block["input_ids"].astype(np.int64))
            right += int((library(ids[None]).logits[0, :-1].argmax(-1) == ids[1:]).sum())
            total += len(ids) - 1
    assert score_blocks(model, test, collate, "fp32", "base")["correct"] == right and total


def test_the_metrics_follow_their_definitions():
    totals = {"nats": 300.0, "correct": 25, "tokens": 100, "bytes": 400}
    totals |= {"characters": 390, "words": 60}
    metrics = as_metrics(totals)
    assert metrics["loss"] == 3.0
    assert metrics["perplexity"] == pytest.approx(math.e**3)
    assert metrics["bits_per_byte"] == pytest.approx(300 / math.log(2) / 400)
    assert metrics["word_perplexity"] == pytest.approx(math.e**5)
    assert metrics["token_accuracy"] == 0.25


def test_bytes_and_words_are_those_of_the_predicted_text(run):
    _, tokenizer = read_gpt2(run)
    test = read_splits(run)["test"]
    expected_bytes = expected_words = 0
    for block in test:
        text = tokenizer.decode(block["input_ids"][1:]).replace("<|endoftext|>", " ")
        expected_bytes += len(text.replace(" " * 2, " ").encode())
        expected_words += len(text.split())
    counted = count_text(test, tokenizer, collate, find_pieces(test, tokenizer.eos_token_id), 32)
    assert counted["words"].sum() == expected_words
    ends = sum(int((block["input_ids"][1:] == tokenizer.eos_token_id).sum()) for block in test)
    text = "".join(
        tokenizer.decode(block["input_ids"][1:]).replace("<|endoftext|>", "") for block in test
    )
    assert ends and counted["bytes"].sum() == len(text.encode())


def test_the_collator_trains_on_every_token_end_of_text_included(run):
    _, tokenizer = read_gpt2(run)
    blocks = list(read_splits(run)["train"].select(range(4)))
    batch = collate(blocks)
    assert batch["input_ids"].dtype == torch.int64 and batch["input_ids"].shape == (4, 32)
    assert torch.equal(batch["input_ids"], batch["labels"])
    everything = collate(list(read_splits(run)["train"]))["labels"]
    assert (everything == tokenizer.eos_token_id).any() and (everything >= 0).all()


def test_validating_more_often_does_not_change_the_weights(run, tmp_path):
    weights = []
    for eval_steps in (1, 4):
        model, _ = read_gpt2(run)  # with GPT-2's dropout
        splits = read_splits(run)
        options = TrainerOptions(max_steps=4, eval_steps=eval_steps, learning_rate=1e-3)
        elsewhere = RunDirectory(tmp_path / str(eval_steps), 7, "cpu", "fp32")
        plan, _ = make_plan(model, options, run)
        trainer = build_trainer(model, splits, options, plan, elsewhere)
        trainer.args.eval_on_start = eval_steps == 1
        trainer.train()
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*weights)


def test_early_stopping_stops_and_keeps_the_best(run, tmp_path):
    splits = read_splits(run)
    model, _ = read_gpt2(run)
    options = TrainerOptions(
        max_steps=40, eval_steps=1, learning_rate=0.05, warmup_steps=0, early_stopping_patience=2
    )
    elsewhere = RunDirectory(tmp_path, 7, "cpu", "fp32")
    plan, _ = make_plan(model, options, run)
    trainer = build_trainer(model, splits, options, plan, elsewhere)
    trainer.train()
    losses = [e["eval_loss"] for e in trainer.state.log_history if "eval_loss" in e]
    best = losses.index(min(losses))
    assert len(losses) == best + 3 < 40 and best > 0  # the first is of the untrained model
    assert trainer.state.best_global_step == best
    assert (tmp_path / "checkpoints" / f"checkpoint-{best}").is_dir()


# Prompt and completion


@pytest.fixture(scope="module")
def answers(finished, tmp_path_factory):
    """A run directory with examples of a prompt and a completion, split but not trained."""
    import create_dataset
    import import_modules
    import load_gpt2
    import train_test_split

    folder = tmp_path_factory.mktemp("answers")
    rows = [
        {
            "question": f"Which is number {n}? " + "So? " * (n % 5),
            "answer": f"It is {n}. " * (n % 4 + 1),
        }
        for n in range(60)
    ]
    rows.append({"question": "too long " * 40, "answer": "dropped"})
    rows.append({"question": "unanswered", "answer": " "})
    (folder / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    here = ["--run_dir", str(folder / "run")]
    import_modules.main([*here, "--device", "cpu", "--precision", "fp32"])
    load_gpt2.main([*here, "--model", str(finished.path / "model")])
    columns = ["--prompt_column", "question", "--completion_column", "answer"]
    create_dataset.main([*here, "--corpus", str(folder / "x.jsonl"), *columns])
    train_test_split.main(here)
    return RunDirectory(folder / "run", seed=42, device="cpu", precision="fp32")


def learned(block, tokenizer):
    labels = collate([block])["labels"][0]
    return tokenizer.decode(labels[labels != -100])


def test_only_the_completion_and_its_end_are_learned(answers):
    tokenizer = read_gpt2(answers)[1]
    for split in read_splits(answers).values():
        for block in split:
            text = tokenizer.decode(block["input_ids"][: int(block["length"])])
            prompt, _, answer = text.partition("\nTL;DR:")
            assert prompt.startswith("Which is number")
            assert learned(block, tokenizer) == answer
            assert answer.startswith(" It is") and answer.endswith("<|endoftext|>")


def test_long_examples_are_dropped_whole_and_every_token_is_accounted_for(answers):
    results = answers.results("train_test_split")
    accounts = results["splits"].values()
    tokens = read_documents(answers)["train"]["input_ids"]
    too_long = [len(ids) for ids in tokens if len(ids) > results["block_size"]]
    assert sum(account["examples_dropped_too_long"] for account in accounts) == len(too_long) > 1
    assert sum(account["tokens_dropped_too_long"] for account in accounts) == sum(too_long)
    for account in accounts:
        parts = account["tokens_in_blocks"] + account["tokens_dropped_too_long"]
        assert account["tokens_read"] == parts + account["tokens_left_over"]
    created = answers.results("create_dataset")["splits"]["train"]
    assert created["empty_documents_dropped"] == 1 and created["documents"] == 61
    assert sum(account["tokens_read"] for account in accounts) == created["tokens"]


@pytest.mark.parametrize("micro_batch, accumulation", [(4, 1), (2, 3)])
def test_masked_losses_are_means_over_the_learned_tokens(
    answers, tmp_path, micro_batch, accumulation
):
    trainer, model, splits = trainer_for(
        answers,
        tmp_path,
        max_steps=1,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=accumulation,
    )

    def plain(blocks):
        reference = library_model(read_gpt2(answers)[0]).double()
        total, count = 0.0, 0
        with torch.no_grad():
            for block in blocks:
                ids = torch.from_numpy(block["input_ids"].astype(np.int64))
                chances = reference(ids[None]).logits[0].log_softmax(-1)
                for place in range(*map(int, block["learned"])):
                    total -= chances[place - 1, ids[place]].item()
                    count += 1
        return total / count

    expected = plain(splits["validation"])
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, abs=1e-5)
    seen, collator = [], trainer.data_collator
    trainer.data_collator = lambda blocks: seen.extend(blocks) or collator(blocks)
    trainer.train()
    logged = next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    assert logged == pytest.approx(plain(seen[: micro_batch * accumulation]), abs=1e-5)


def counted(blocks, size):
    """Tokens of text, those learned and padding of examples, one by one."""
    text = learned = 0
    for block in blocks:
        labels = collate([block])["labels"][0].tolist()
        text += int(block["length"])
        learned += sum(label != -100 for label in labels[1:])
    return {
        "tokens": text,
        "tokens_learned": learned,
        "padding_tokens": len(blocks) * size - text,
    }


def test_step_5_counts_text_what_is_learned_and_padding(answers):
    results = answers.results("train_test_split")
    for name, split in read_splits(answers).items():
        account, expected = results["splits"][name], counted(list(split), results["block_size"])
        assert account["tokens_in_blocks"] == expected["tokens"]
        assert account["tokens_learned"] == expected["tokens_learned"] > 10
        assert account["padding_tokens"] == expected["padding_tokens"] > 10
    train = results["splits"]["train"]
    assert summarize(results).startswith(
        f"{train['blocks']} training examples in rows of {results['block_size']} tokens: "
        f"{train['tokens_in_blocks']:,} tokens of text, {train['tokens_learned']:,} of them "
        f"learned, {train['padding_tokens']:,} padding; "
        f"{results['splits']['validation']['blocks']} for validation"
    )


@pytest.mark.parametrize("micro_batch, accumulation", [(4, 1), (3, 2)])
def test_an_epoch_has_the_tokens_that_the_plan_foresaw(
    answers, tmp_path, micro_batch, accumulation
):
    options = {
        "num_train_epochs": 1,
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "save_steps": 2,
    }
    trainer, model, splits = trainer_for(answers, tmp_path, **options)
    plan, _ = make_plan(model, TrainerOptions(**options), answers)
    expected = counted(list(splits["train"]), answers.results("train_test_split")["block_size"])
    assert plan["tokens_per_epoch"] == expected["tokens"]
    assert plan["learned_per_epoch"] == expected["tokens_learned"]
    assert plan["tokens_per_validation"] == sum(splits["validation"]["length"])
    share = micro_batch * accumulation / len(splits["train"])
    assert plan["tokens_per_step"] == round(share * expected["tokens"])
    assert plan["learned_per_step"] == round(share * expected["tokens_learned"])
    said = f"steps of about {plan['tokens_per_step']:,} tokens of text, {plan['learned_per_step']}"
    measured = {"predicted_peak_memory_bytes": 1, "predicted_disk_bytes": 1}
    assert f"{said} of them learned (1 epochs)" in describe_plan(plan, measured)
    trainer.train()
    assert trainer.token_count.totals == expected
    assert trainer.token_count.totals["tokens"] > trainer.stopwatch.tokens > 0  # the first step's


def test_counts_and_speeds_are_those_of_the_batches_also_after_resuming(
    answers, tmp_path, monkeypatch
):
    """By a clock on which every step takes one second."""
    clock = itertools.count()
    monkeypatch.setattr(pace, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    options = {"max_steps": 5, "eval_steps": 5}
    trainer, _, _ = trainer_for(answers, tmp_path, **options)
    seen, collator = [], trainer.data_collator
    trainer.data_collator = lambda blocks: seen.append(blocks) or collator(blocks)
    trainer.train()
    size = answers.results("train_test_split")["block_size"]
    assert trainer.token_count.totals == counted(sum(seen[:5], []), size)
    log = trainer.state.log_history
    speeds = [entry["tokens_per_second"] for entry in log if "tokens_per_second" in entry]
    assert speeds == [counted(blocks, size)["tokens"] for blocks in seen[1:5]]
    stopped, _, _ = trainer_for(answers, tmp_path / "stopped", **options)
    stopped.interruption.came = True
    stopped.train()
    again, _, _ = trainer_for(answers, tmp_path / "stopped", **options)
    again.train(resume_from_checkpoint=str(tmp_path / "stopped/checkpoints/checkpoint-1"))
    assert stopped.token_count.totals["tokens"] == counted(seen[0], size)["tokens"]
    assert again.token_count.totals == trainer.token_count.totals


def test_a_run_without_padding_has_the_losses_of_one_with_it(answers, tmp_path):
    losses = []
    for padding in (True, False):
        trainer, model, _ = trainer_for(
            answers,
            tmp_path / str(padding),
            max_steps=8,
            eval_steps=4,
            learning_rate=1e-3,
            per_device_train_batch_size=3,
            gradient_accumulation_steps=2,
        )
        model.keeps_padding = padding
        trainer.train()
        log = trainer.state.log_history
        losses.append([e[k] for k in ("loss", "eval_loss") for e in log if k in e])
    assert len(losses[0]) == 10 and losses[0][0] - losses[0][7] > 0.1
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_a_stream_of_examples_is_planned_by_validation_and_counted_as_it_comes(
    answers, finished, tmp_path, capsys
):
    corpus = answers.record("create_dataset")["options"]["corpus"]
    words = ["--run_dir", tmp_path / "run", "--device", "cpu", "--model", finished.path / "model"]
    words += ["--corpus", *corpus, "--prompt_column", "question", "--completion_column", "answer"]
    chain_main(*words, "--streaming", "--max_steps", "6", "--to_step", "7")
    run = RunDirectory(tmp_path / "run", seed=42, device="cpu", precision="fp32")
    trained, plan = run.results("train_model"), run.results("configure_trainer")
    splits, size = read_splits(run), run.results("train_test_split")["block_size"]
    expected = counted(list(itertools.islice(splits["train"], 6 * 4)), size)
    assert {name: trained[name] for name in expected} == expected
    held_out = splits["validation"]["length"]
    assert plan["tokens_per_step"] == round(4 * sum(held_out) / len(held_out))
    out = capsys.readouterr().out
    assert f"training examples in rows of {size} tokens come from the stream" in out
    assert f"trained 6 steps, {expected['tokens']:,} tokens of text, " in out


def test_a_model_tuned_on_completions_stops_by_itself(answers, tmp_path):
    _, tokenizer = read_gpt2(answers)
    options = {"max_steps": 60, "per_device_train_batch_size": 16}
    trainer, model, splits = trainer_for(answers, tmp_path, **options, learning_rate=1e-2)
    block = splits["test"][0]
    prompt = torch.from_numpy(block["input_ids"][: int(block["learned"][0])].astype(np.int64))
    room = model.config.n_positions - len(prompt)

    def ends() -> bool:
        ids = library_model(model).generate(prompt[None], max_new_tokens=room, do_sample=False)[0]
        return tokenizer.eos_token_id in ids[len(prompt) :].tolist()

    assert not ends()
    trainer.train()
    assert ends()
