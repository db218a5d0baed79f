"""Flags from a YAML or JSON file, as strictly checked as those of the command line."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toolkit.run.command import UserError
from toolkit.run.files import open_file
from toolkit.run.lazily import lazily
from toolkit.run.options import (
    converter,
    did_you_mean,
    fields_of,
    in_words,
    what_no_path_holds,
    without_none,
)

with lazily():
    import yaml


MOST_BYTES = 100_000  # a page of flags has two thousand
DEEPEST = 5  # levels of lists and mappings: flags have two
MISFITS = (LookupError, TypeError, AttributeError)  # PyYAML's, of a value as in `seed: !!bool x`


def read_config_file(path: str, *groups: type) -> dict[str, Any]:
    """Return the flags set in a YAML or JSON file; unknown keys and wrong types are refused."""
    try:
        text = text_of(path)
        values = json.loads(text) if path.endswith(".json") else read_yaml(text)
    except OSError as error:
        raise UserError(f"--config {path}: cannot be read ({error.strerror})") from None
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"--config {path}: cannot be read ({error})") from None
    except RecursionError:
        raise UserError(f"--config {path}: cannot be read (it is nested too deeply)") from None
    except MISFITS:
        raise UserError(f"--config {path}: cannot be read (a tag does not fit its value)") from None
    if not isinstance(values, dict):
        raise UserError(f"--config {path}: must hold flags as `name: value`")
    kinds = {field.name: kind for group in groups for field, kind in fields_of(group)}
    kinds.pop("config", None)  # a file does not name another
    for name in values:
        if name not in kinds:
            hint = did_you_mean(brief(name), kinds)
            raise UserError(f"--config {path}: unknown key {brief(name)}{hint}")
    return {name: from_file(path, name, value, kinds[name]) for name, value in values.items()}


def text_of(path: str) -> str:
    """Return a small file's text. Raises ValueError for what is none: a device never ends."""
    with open_file(Path(path)) as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
    return content.decode("utf-8-sig")


def read_yaml(text: str) -> Any:
    """Return what YAML holds. Refuses aliases, a few lines of which stand for gigabytes."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("write values out; anchors with * are not taken")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise RecursionError
    return yaml.safe_load(text)


def brief(value: Any, write: Callable[[Any], str] = str, longest: int = 80) -> str:
    try:
        shown = write(value)
    except ValueError:  # Python writes no numbers of more than a few thousand digits
        return "a number without end"
    return shown if len(shown) <= longest else shown[:longest] + "..."


def from_file(path: str, name: str, value: Any, kind: Any) -> Any:
    """Return one value of a configuration file as its flag's type."""
    plain, optional = without_none(kind)
    words = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    if any(isinstance(word, str) and (problem := what_no_path_holds(word)) for word in words):
        raise UserError(f"--config {path}: {name} {problem}")
    try:
        if value is None and optional:
            return None
        if plain is bool or isinstance(value, bool):
            if plain is bool and isinstance(value, bool):
                return value
        elif plain == list[str]:
            if isinstance(value, str):
                return [value]
            if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
                return value
        elif plain is str:
            if isinstance(value, str):
                return value
        elif isinstance(
            value, (str, int, float)
        ):  # YAML reads 1e-3 as text: let the flag's type decide
            return converter(plain)(str(value))
    except (ValueError, argparse.ArgumentTypeError):
        pass
    got = brief(value, repr)
    raise UserError(f"--config {path}: {name} must be {in_words(plain)}, got {got}")
