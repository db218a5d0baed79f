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


def words_of(text):
    return re.findall(r"[a-z0-9']+", text.lower())


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
    windows = [
        tuple(words[start : start + 8])
        for words in map(words_of, entries)
        for start in range(len(words) - 7)
    ]
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


def test_a_dialogue_has_a_summary_that_is_shorter():
    lines = (PROJECT / "data/dialogues.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert f"{len(rows)} short messenger dialogues" in ABOUT
    assert len({row["id"] for row in rows}) == len({row["dialogue"] for row in rows}) == len(rows)
    for row in rows:
        assert set(row) == {"id", "dialogue", "summary"}
        assert 0 < len(row["summary"]) < len(row["dialogue"])
