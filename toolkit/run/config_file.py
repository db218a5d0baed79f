"""Flags from a YAML or JSON file, as strictly checked as those of the command line."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from toolkit.run.command import UserError
from toolkit.run.lazily import lazily
from toolkit.run.options import converter, did_you_mean, fields_of, in_words, without_none

with lazily():
    import yaml


def read_config_file(path: str, *groups: type) -> dict[str, Any]:
    """Return the flags set in a YAML or JSON file; unknown keys and wrong types are refused."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        values = json.loads(text) if path.endswith(".json") else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"--config {path}: cannot be read ({error})") from None
    if not isinstance(values, dict):
        raise UserError(f"--config {path}: must hold flags as `name: value`")
    kinds = {field.name: kind for group in groups for field, kind in fields_of(group)}
    for name in values:
        if name not in kinds:
            hint = did_you_mean(str(name), kinds)
            raise UserError(f"--config {path}: unknown key {name}{hint}")
    return {name: from_file(path, name, value, kinds[name]) for name, value in values.items()}


def from_file(path: str, name: str, value: Any, kind: Any) -> Any:
    """Return one value of a configuration file as its flag's type."""
    plain, optional = without_none(kind)
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
    raise UserError(f"--config {path}: {name} must be {in_words(plain)}, got {value!r}")
