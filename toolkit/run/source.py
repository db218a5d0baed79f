"""What a step computes, as the project's code that it reaches: edited code is done again.

A file counts by its syntax tree: neither comments, docstrings nor layout matter. Left aside are
what changes no result: room `run` (every step prints), room `serving`, and the installer.
"""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from toolkit.run.files import PROJECT

ASIDE = ("toolkit/run/", "toolkit/serving/", "install_libraries.py")


def source_of(file: str) -> dict[str, str]:
    """Return the fingerprint of a project's file and of each one that it reaches by imports.

    `file`: as `train_model.py`, from the project's folder. Of a room with templates, these count
    too: {"evaluate_model.py": "3f9c0a1b2c3d", "toolkit/scoring/metrics.py": ...}.
    """
    found: dict[str, str] = {}
    todo = [file]
    while todo:
        name = todo.pop()
        if name in found or name.startswith(ASIDE):
            continue
        found[name], imported = read_source(PROJECT / name)
        todo += imported
        for template in (PROJECT / name).parent.glob("*.jinja"):
            found[str(template.relative_to(PROJECT))] = fingerprint(template.read_bytes())
    return dict(sorted(found.items()))


@cache
def read_source(path: Path) -> tuple[str, tuple[str, ...]]:
    """Return a file's fingerprint, and the project's files that it imports anywhere."""
    tree = ast.parse(path.read_bytes())
    imported = tuple(name for name in imported_modules(tree) if (PROJECT / name).is_file())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:]
    return fingerprint(ast.dump(tree).encode()), imported


def imported_modules(tree: ast.Module) -> Iterator[str]:
    """Yield the files that the imports in a tree might stand for: `toolkit/run/files.py`."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        yield from (f"{name.replace('.', '/')}.py" for name in names)


def fingerprint(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def edited_file(known: dict[str, str], now: dict[str, str]) -> str | None:
    """Return the first file that was edited, added or taken away between two sources, or None."""
    names = sorted(known.keys() | now.keys())
    return next((name for name in names if known.get(name) != now.get(name)), None)
