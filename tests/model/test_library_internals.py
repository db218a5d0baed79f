"""The names that the libraries do not promise: all in one file, and all still there."""

import ast
import functools
import importlib
import inspect

import pytest
import torch  # noqa: F401 - of which some names are
import transformers  # noqa: F401

from tests.conftest import PROJECT
from toolkit.model.library_internals import INTERNALS

OURS_OR_DOCUMENTED = {"_getframe", "_replace", "_asdict", "_exit"}


@pytest.mark.parametrize("name", INTERNALS)
def test_the_installed_version_still_has(name):
    library, _, rest = name.partition(".")
    if name.startswith("torch.ops.mkldnn") and not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    home, _, last = rest.rpartition(".")
    found = functools.reduce(
        getattr, filter(None, home.split(".")), importlib.import_module(library)
    )
    assert hasattr(found, last) or f"self.{last} = " in inspect.getsource(found)


def private_names(path):
    """Attributes and imports of others that begin with one underscore."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and not (
            isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
        ):
            yield node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names)


def test_no_other_file_uses_a_private_name():
    files = [*PROJECT.glob("*.py"), *PROJECT.glob("toolkit/*/*.py")]
    known = {name.rpartition(".")[2] for name in INTERNALS}
    found = {
        f"{path.name}: {name}"
        for path in files
        for name in private_names(path)
        if (name.startswith("_") and not name.startswith("__") or name in known)
        and name not in OURS_OR_DOCUMENTED
        and path.name != "library_internals.py"
    }
    assert not found
