"""Conversations: read from tables and chat exports, learned by their answers, one template."""

import json
import random
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

import configure_trainer
import create_dataset
import evaluate_model
import generate
import import_modules
import load_gpt2
import train_model
import train_test_split
import visualize_performance
from tests.conftest import PROJECT
from toolkit.blocks.collator import collate
from toolkit.blocks.examples import pad_examples
from toolkit.corpus.columns import Columns
from toolkit.corpus.conversations import (
    ROLES,
    TEMPLATE,
    Message,
    as_conversation,
    as_prompt,
    read_messages,
)
from toolkit.corpus.sources import Reading, read_corpus
from toolkit.corpus.tokenizing import tokenize
from toolkit.run.run_directory import RunDirectory
from train_test_split import read_splits

TALK = [
    Message("system", "You keep a light."),
    Message("user", "Is the fog in?"),
    Message("assistant", "She came at noon."),
    Message("user", "Will she stay?"),
    Message("assistant", "Aunts stay for supper."),
]
MINI = PROJECT / "data/gpt2-mini"


@pytest.fixture(scope="module")
def tokenizer():
    found = AutoTokenizer.from_pretrained(MINI)
    found.chat_template = TEMPLATE
    return found


def as_openai(messages):
    return [message._asdict() for message in messages]


def read(path, **how):
    columns = Columns(messages=how.pop("messages", None), text=how.pop("text", None))
    notes = []
    reading = Reading(columns, note=notes.append, **how)
    return list(read_corpus([str(path)], reading, "--corpus")["train"]), notes


# One form, in training and in apply_chat_template

words = st.text(st.sampled_from("aé 字\n:.<|\t"), max_size=12)
turns = st.builds(Message, st.sampled_from(["system", "user", "assistant"]), words)


@given(st.lists(turns, min_size=1, max_size=6))
def test_the_template_writes_the_text_that_training_used(tokenizer, messages):
    answers = [n for n, m in enumerate(messages) if m.role == "assistant" and m.content.strip()]
    told = messages[: answers[-1] + 1] if answers else []
    document = as_conversation("a", told)
    pairs = list(zip(document.parts[::2], document.parts[1::2], strict=True))
    ours = "".join(given + (learned and learned + "<|endoftext|>") for given, learned in pairs)
    assert not told or ours == tokenizer.apply_chat_template(as_openai(told), tokenize=False)
    *before, last = as_prompt(messages)
    ours = "".join(part + "<|endoftext|>" * (n % 2 and part != "") for n, part in enumerate(before))
    assert ours + last == tokenizer.apply_chat_template(
        as_openai(messages), tokenize=False, add_generation_prompt=True
    )


def test_the_template_takes_the_roles_that_training_takes(tokenizer):
    for role, written in (("developer", "System: a\n"), ("user", "User: a\n")):
        talk = [{"role": role, "content": "a"}]
        assert tokenizer.apply_chat_template(talk, tokenize=False) == written
        assert read_messages(talk, "here") == [Message(ROLES[role], "a")]
    with pytest.raises(Exception, match="there are the roles system, user and assistant"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "a"}], tokenize=False)


def test_the_template_gives_the_tokens_and_the_mask_that_training_used(tokenizer):
    [ids], [learned], _ = tokenize([as_conversation("a", TALK)], tokenizer)
    found = tokenizer.apply_chat_template(
        as_openai(TALK), return_dict=True, return_assistant_tokens_mask=True
    )
    assert found["input_ids"] == ids.tolist()
    row, _ = pad_examples([ids], [learned], len(ids), padding=0)
    labels = collate(list(row.with_format("numpy")))["labels"]
    assert (labels[0] != -100).int().tolist() == found["assistant_masks"]
    said = [tokenizer.decode(ids[begin:end]) for begin, end in learned[2:].reshape(-1, 2)]
    assert said == [f" {m.content}<|endoftext|>" for m in TALK if m.role == "assistant"]


# What is read


@pytest.mark.parametrize("form", ["openai", "sharegpt", "parts", "parquet", "one object"])
def test_every_form_of_messages_is_the_same_conversation(tmp_path, form):
    rows = [{"messages": as_openai(TALK)}] * 2
    path = tmp_path / "talk.jsonl"
    if form == "sharegpt":
        names = {"user": "human", "assistant": "gpt", "system": "system"}
        turns = [{"from": names[m.role], "value": m.content} for m in TALK]
        path = tmp_path / "talk.json"
        path.write_text(json.dumps([{"messages": turns}] * 2))
    elif form == "parquet":
        path = tmp_path / "talk.parquet"
        Dataset.from_list(rows).to_parquet(path)
    elif form == "one object":
        rows = rows[:1]
    elif form == "parts":
        for message in rows[0]["messages"]:
            message["content"] = [{"type": "text", "text": message["content"]}]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    documents, notes = read(path, messages="messages")
    assert [document[1:] for document in documents] == [as_conversation("", TALK)[1:]] * len(rows)
    assert notes[0].endswith("column messages")


def test_turns_after_the_last_answer_are_left_out_and_counted(tmp_path):
    path = tmp_path / "talk.jsonl"
    path.write_text(json.dumps({"m": as_openai([*TALK, Message("user", "Good night!")])}) + "\n")
    [document], notes = read(path, messages="m")
    assert document.parts == as_conversation("", TALK).parts
    assert "talk.jsonl: 1 turn after the last answer left out" in notes


CHAT = """\
31.12.23, 21:41 - Ann: Is the kettle on?
31.12.23, 21:42 - Bea: Just now.
Bring biscuits.
31.12.23, 21:42 - Bea: Please.

Ann: Back home: safe
Cyd: Me too
Bea: Good.
"""


def test_a_chat_export_is_conversations_in_which_one_speaker_answers(tmp_path):
    path = tmp_path / "chat.txt"
    path.write_text(CHAT)
    documents, notes = read(path, speaker="Bea")
    assert [document.parts for document in documents] == [
        ("User: Is the kettle on?\nAssistant:", " Just now.\nBring biscuits.\nPlease."),
        ("User: Ann: Back home: safe\nCyd: Me too\nAssistant:", " Good."),
    ]
    assert "chat.txt: 2 conversations, 3 messages of Bea" in notes


def test_a_long_chat_is_cut_between_turns_and_loses_no_message(tmp_path):
    path = tmp_path / "chat.txt"
    path.write_text("".join(f"{'Ann' if n % 2 else 'Bea'}: line {n}\n" for n in range(100)))
    documents, _ = read(path, speaker="Bea")
    said = "".join(text for document in documents for text in document.parts)
    assert len(documents) > 5 and all(f" line {n}" in said for n in range(99))


# What is refused

BAD = {
    '[{"role": "tool", "content": "4"}]': "message 1 has the role tool; there are system, dev",
    '[{"role": "user", "content": "4"}, 7]': "message 2 needs role and content",
    '[{"role": "user", "content": [{"type": "image_url"}]}]': "holds something else than text",
    '[{"role": "assistant", "content": "a", "weight": 0}]': "has a weight of 0",
    '[{"role": "assistant", "content": null, "tool_calls": [1]}]': "calls a tool",
    '"hello"': "holds text, not lists of messages",
}


@pytest.mark.parametrize("value", BAD)
def test_what_is_no_conversation_is_refused_with_its_place(tmp_path, value):
    path = tmp_path / "talk.jsonl"
    good = '{"messages": [{"role": "user", "content": "a"}]}\n' if value[0] == "[" else ""
    path.write_text(f'{good}{{"messages": {value}}}\n')
    with pytest.raises(Exception, match=BAD[value]) as refusal:
        read(path, messages="messages")
    assert not good or "line 2, message" in str(refusal.value)


def test_a_speaker_who_says_nothing_is_refused_with_who_is_there(tmp_path):
    path = tmp_path / "chat.txt"
    path.write_text(CHAT)
    with pytest.raises(Exception, match="no line begins with 'Dan:'; there are: Bea, Ann, Cyd"):
        read(path, speaker="Dan")


# Long conversations


def test_a_long_conversation_loses_its_oldest_turns_and_is_never_cut_within_one(tokenizer):
    turns = [Message("system", "Be brief.")]
    for n in range(20):
        turns += [Message("user", f"Question {n}?"), Message("assistant", f"Answer {n}.")]
    documents = [as_conversation("a", turns), as_conversation("b", TALK)]
    documents.append(as_conversation("c", [Message("assistant", "word " * 200)]))
    ids, learned, _ = tokenize(documents, tokenizer)
    rows, account = pad_examples(ids, learned, 100, padding=tokenizer.eos_token_id)
    long, short = rows.with_format("numpy")
    text = tokenizer.decode(long["input_ids"][: int(long["length"])])
    assert text.startswith("System: Be brief.\nUser: Question") and text.endswith(
        "User: Question 19?\nAssistant: Answer 19.<|endoftext|>"
    )
    kept = text.count("Question")
    assert kept == text.count("Answer") == text.count("<|endoftext|>") == len(long["learned"]) / 2
    said = [tokenizer.decode(long["input_ids"][b:e]) for b, e in long["learned"].reshape(-1, 2)]
    assert said == [f" Answer {n}.<|endoftext|>" for n in range(20 - kept, 20)]
    assert account == {
        "examples_dropped_too_long": 1,
        "tokens_dropped_too_long": sum(map(len, ids)) - int(long["length"]) - int(short["length"]),
        "conversations_shortened": 1,
        "answers_left_out": 20 - kept,
    }
    assert 0 < kept < 20


# The whole chain


@pytest.fixture(scope="module")
def chat(tmp_path_factory, finished):
    """A run on conversations, trained for two steps."""
    folder = tmp_path_factory.mktemp("chat")
    draw = random.Random(1)
    rows = []
    for n in range(40):
        talk = [Message("user", f"Who is {n}?"), Message("assistant", f"It is {n}." * (n % 3 + 1))]
        rows.append({"messages": as_openai(talk * draw.randint(1, 2))})
    (folder / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    here = ["--run_dir", str(folder / "run")]
    import_modules.main([*here, "--device", "cpu", "--precision", "fp32"])
    load_gpt2.main([*here, "--model", str(finished.path / "model")])
    create_dataset.main(
        [*here, "--corpus", str(folder / "x.jsonl"), "--messages_column", "messages"]
    )
    train_test_split.main(here)
    configure_trainer.main([*here, "--max_steps", "2", "--per_device_train_batch_size", "4"])
    train_model.main(here)
    run = RunDirectory(folder / "run", seed=42, device="cpu", precision="fp32")
    return SimpleNamespace(run=run, path=folder / "run", here=here)


def test_the_trained_models_folder_brings_the_template(chat):
    tokenizer = AutoTokenizer.from_pretrained(chat.path / "model")
    assert tokenizer.chat_template == TEMPLATE
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Who?"}], tokenize=False, add_generation_prompt=True
    )
    assert text == "User: Who?\nAssistant:"


def test_every_split_learns_answers_and_their_ends_alone(chat):
    tokenizer = AutoTokenizer.from_pretrained(chat.path / "model")
    for name, split in read_splits(chat.run).items():
        learned = 0
        for block in split:
            labels = collate([block])["labels"][0].numpy()
            said = tokenizer.decode(labels[labels != -100]).split("<|endoftext|>")
            assert said.pop() == "" and all(text.startswith(" It is ") for text in said)
            learned += int((labels[1:] != -100).sum())
        assert chat.run.results("train_test_split")["splits"][name]["tokens_learned"] == learned
    assert np.asarray(read_splits(chat.run)["train"]["length"]).max() <= 64


def test_samples_of_test_conversations_are_conversations_that_the_model_goes_on_with(chat):
    evaluate_model.main(chat.here)
    visualize_performance.main(chat.here)
    generate.main([*chat.here, "--max_new_tokens", "6", "--num_samples", "2"])
    samples = generate.read_samples(chat.run)
    for entry in [*samples, *evaluate_model.read_metrics(chat.run)["samples"]]:
        assert entry["prompt"].startswith("User: Who is ")
        assert entry["prompt"].endswith("?\nAssistant:")
        for text in [*entry["base"], *entry["tuned"]]:
            assert text.count("User: Who is") == text.count("?\nAssistant:") <= 1
    report = (chat.path / "report.md").read_text()
    assert "First messages of test conversations, answered" in report
    assert samples[0]["prompt"] in (chat.path / "samples.md").read_text()


def test_scores_are_of_answers_alone(chat):
    account = chat.run.results("train_test_split")["splits"]["test"]
    assert chat.run.results("evaluate_model")["tuned"]["tokens"] == account["tokens_learned"]


def test_a_prompt_from_a_flag_is_a_first_message(chat):
    generate.main([*chat.here, "--max_new_tokens", "6", "--prompt", "Who are you?"])
    assert generate.read_samples(chat.run)[0]["prompt"] == "User: Who are you?\nAssistant:"
