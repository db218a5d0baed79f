"""What a person added to a published card: it stays when the model is published again.

Added is what our cards do not have: metadata of other names (licence, language, more tags), and
sections with other headings. What was changed within a section of ours is written anew.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
HEADING = re.compile(r"## (.+)")
FRONT = re.compile(r"\A---\n(.*?)^---$\n?", re.DOTALL | re.MULTILINE)
CODE = re.compile(r" {0,3}(`{3,}|~{3,}|<pre>)")  # where a line that looks like a heading is none
OUR_METADATA = {"model-index", "base_model", "datasets", "library_name", "pipeline_tag", "tags"}
OUR_TAGS = {"gpt2", "from-scratch", "fine-tuned"}


def with_additions(card: str, earlier: str) -> str:
    """Return a card of ours with what a person added to the one that is there."""
    (ours, body), (theirs, old) = parts_of(card), parts_of(earlier.replace("\r\n", "\n"))
    added = {name: value for name, value in theirs.items() if name not in OUR_METADATA}
    tags = [tag for tag in as_list(theirs.get("tags")) if tag not in OUR_TAGS]
    if tags:
        added["tags"] = [*ours.get("tags", []), *tags]
    known = set(HEADING.findall(TEMPLATE.read_text(encoding="utf-8")))
    sections = list(sections_of(old))
    if known & {heading for heading, _ in sections}:
        kept = [text for heading, text in sections if heading and heading not in known]
    else:  # no card of ours: all of it is a person's
        kept = [old] if old.strip() else []
    if not added and not kept:
        return card
    front = yaml.safe_dump(ours | added, allow_unicode=True, sort_keys=False)
    return "\n".join([f"---\n{front}---\n", *(text.strip() + "\n" for text in (body, *kept))])


def parts_of(card: str) -> tuple[dict[str, Any], str]:
    """Return a card's metadata, and the text below."""
    found = FRONT.match(card)
    if not found:
        return {}, card
    try:
        metadata = yaml.safe_load(found[1])
    except yaml.YAMLError:
        return {}, card[found.end() :]
    return metadata if isinstance(metadata, dict) else {}, card[found.end() :]


def as_list(tags: Any) -> list[str]:
    return [tags] if isinstance(tags, str) else list(tags or [])


def sections_of(text: str) -> Iterator[tuple[str, str]]:
    """Yield each second-level heading with its section; first what stands before them all."""
    heading, lines, closing = "", [], None
    for line in text.splitlines(keepends=True):
        if closing:
            closing = None if line.strip().startswith(closing) else closing
        elif code := CODE.match(line):
            closing = "</pre>" if code[1] == "<pre>" else code[1]
        elif found := HEADING.match(line):
            yield heading, "".join(lines)
            heading, lines = found[1].strip(), []
        lines.append(line)
    yield heading, "".join(lines)
