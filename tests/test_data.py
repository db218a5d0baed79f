"""The text that ships: as large as data/README.md says, in one voice, and nothing said twice."""

import json
import re
from collections import Counter

import pytest

from tests.conftest import PROJECT

LOG = PROJECT / "data/keepers_log"
ABOUT = (PROJECT / "data/README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def entries():
    return [path.read_text(encoding="utf-8") for path in sorted(LOG.glob("*.txt"))]


@pytest.fixture(scope="module")
def conversations():
    lines = (PROJECT / "data/conversations.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["messages"] for line in lines]


def words_of(text):
    return re.findall(r"[a-z0-9']+", text.lower())


def windows_of(text):
    words = words_of(text)
    return [tuple(words[start : start + 8]) for start in range(len(words) - 7)]


def test_the_readme_counts_the_entries_and_their_bytes(entries):
    size = sum(len(entry.encode()) for entry in entries)
    assert f"{len(entries)} entries" in ABOUT and f"{size // 1000} KB of English prose" in ABOUT
    assert len(entries) >= 200 and size >= 100_000
    names = [path.name for path in sorted(LOG.iterdir())]
    assert names == [f"{number:03d}.txt" for number in range(1, len(entries) + 1)]


def test_an_entry_is_prose_of_a_few_hundred_bytes(entries):
    for entry in entries:
        assert 300 < len(entry) < 1000 and entry.isascii()
        assert entry == entry.strip() + "\n" and "\n\n\n" not in entry
        assert all(line == line.strip() for line in entry.splitlines())


def test_nothing_is_said_twice(entries):
    windows = [window for entry in entries for window in windows_of(entry)]
    assert len(set(windows)) / len(windows) > 0.999
    sentences = Counter(
        " ".join(words_of(sentence))
        for entry in entries
        for sentence in re.split(r"(?<=[.?!])[\"']?\s+", entry)
    )
    assert [s for s, count in sentences.items() if count > 1 and len(s.split()) > 3] == []


def test_the_voice_has_its_own_names_for_things(entries):
    for name in ("Herself", "tenant", "bailiff", "aunt", "clerk"):
        assert name in ABOUT
        assert sum(name in entry for entry in entries) >= len(entries) / 10, name


def test_a_conversation_alternates_and_ends_with_the_keeper(conversations):
    assert f"{len(conversations)} conversations with the keeper" in ABOUT
    assert len(conversations) >= 200
    for messages in conversations:
        assert 3 <= len(messages) <= 8
        roles = [message["role"] for message in messages]
        assert roles[::-1] == (["assistant", "user"] * 4)[: len(roles)]
        for message in messages:
            text = message["content"]
            assert set(message) == {"role", "content"} and text.isascii() and text == text.strip()


def test_no_conversation_repeats_another_or_the_log(conversations, entries):
    said = [message["content"] for messages in conversations for message in messages]
    sentences = Counter(
        " ".join(words_of(sentence))
        for text in said
        for sentence in re.split(r"(?<=[.?!])[\"']?\s+", text)
    )
    assert [s for s, count in sentences.items() if count > 1 and len(s.split()) > 3] == []
    windows = Counter(window for text in said for window in windows_of(text))
    assert max(windows.values()) == 1
    assert not windows.keys() & {window for entry in entries for window in windows_of(entry)}


def test_a_dialogue_has_a_summary_that_is_shorter():
    lines = (PROJECT / "data/dialogues.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert f"{len(rows)} short messenger dialogues" in ABOUT
    assert len({row["id"] for row in rows}) == len({row["dialogue"] for row in rows}) == len(rows)
    for row in rows:
        assert set(row) == {"id", "dialogue", "summary"}
        assert 0 < len(row["summary"]) < len(row["dialogue"])
