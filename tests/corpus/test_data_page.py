"""docs/data.md: every example is read, and gives what the page says."""

import re
import shlex
from pathlib import Path

import pytest

from tests.corpus.reading import read_documents
from toolkit.run.command import UserError

PAGE = Path(__file__).parents[2] / "docs/data.md"
EXAMPLES = re.findall(r"```\n(.+?)```", PAGE.read_text(), re.DOTALL)
FLAGS = {"--document_separator": "separator", "--text_column": "text"}
FLAGS |= {"--messages_column": "messages", "--speaker": "speaker"}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.split("\n")[0])
def test_an_example_gives_what_the_page_says(example, tmp_path):
    command, *lines = example.removesuffix("\n").split("\n")
    name, *flags = shlex.split(command)
    given = {FLAGS[flag]: value for flag, value in zip(flags[::2], flags[1::2], strict=True)}
    if "separator" in given:
        given["separator"] = given["separator"].replace("\\n", "\n")
    marked = {mark: [line[2:] for line in lines if line[0] == mark] for mark in "|=>!"}
    (tmp_path / name).write_text("\n".join(marked["|"]))
    if marked["!"]:
        with pytest.raises(UserError) as refusal:
            read_documents(tmp_path / name, **given)
        assert str(refusal.value) == f"--corpus {tmp_path / name}: {marked['!'][0]}"
        return
    documents, notes = read_documents(tmp_path / name, **given)
    assert notes == marked["="]
    assert [document.replace("\n", "⏎") for document in documents] == marked[">"]


def test_the_page_has_its_examples():
    assert len(EXAMPLES) >= 14 and all(set("|>!") & set(e) for e in EXAMPLES)
