"""A command loads what it needs and no more: modules are counted here, seconds in benchmarks/."""

import ast
import pickle
import subprocess
import sys

import pytest

from tests.conftest import PROJECT, STEP_FILES
from toolkit.run.lazily import Lazy, lazily

HEAVY = {"torch", "transformers", "datasets", "numpy", "pyarrow", "matplotlib", "huggingface_hub"}
FILES = ["install_libraries.py", *STEP_FILES, "run_pipeline.py"]
REFUSED = {
    "import_modules.py": ["--seed", "-1"],
    "load_gpt2.py": ["--n_head", "3"],
    "create_dataset.py": ["--max_documents", "0"],
    "train_test_split.py": ["--test_fraction", "2"],
    "configure_trainer.py": ["--lr_scheduler_type", "sine"],
    "train_model.py": ["--resume", ""],
    "evaluate_model.py": ["--stride", "0"],
    "visualize_performance.py": ["--compare", "one"],
    "generate.py": ["--top_p", "3"],
    "run_pipeline.py": ["--from_step", "12"],
}
REPORTING = """
import runpy, sys
sys.argv = sys.argv[1:]
sys.path.insert(0, "")
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
    code = 0
except SystemExit as end:
    code = end.code or 0
sys.stderr.write(f"\\nLOADED {code} {' '.join(sys.modules)}")
"""


def loaded(*words):
    """Run one of the project's files; return its exit code and the modules that it loaded."""
    command = [sys.executable, "-c", REPORTING, *map(str, words)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    code, *modules = done.stderr.rpartition("LOADED ")[2].split()
    return int(code), set(modules)


@pytest.mark.parametrize("file", FILES)
def test_help_a_mistyped_flag_and_a_refused_value_load_no_library(file):
    code, modules = loaded(file, "--help")
    assert code == 0 and not modules & HEAVY
    code, modules = loaded(file, "--sede", "3")
    assert code == 2 and not modules & HEAVY
    if file in REFUSED:
        code, modules = loaded(file, *REFUSED[file])
        assert code == 2 and not modules & (HEAVY - {"matplotlib", "numpy"})


def test_a_chain_where_all_is_up_to_date_loads_neither_torch_nor_transformers(run_copy, all_flags):
    code, modules = loaded("run_pipeline.py", "--run_dir", run_copy, *all_flags)
    assert code == 0 and not modules & HEAVY


def test_the_report_needs_neither_torch_nor_transformers(run_copy):
    code, modules = loaded("visualize_performance.py", "--run_dir", run_copy)
    assert code == 0 and "matplotlib" in modules
    assert not modules & {"torch", "transformers", "datasets"}


@pytest.mark.parametrize("step", ["create_dataset.py", "train_test_split.py", "generate.py"])
def test_reading_splitting_and_writing_need_no_trainer(run_copy, flags, step):
    code, modules = loaded(step, "--run_dir", run_copy, *flags[step])
    assert code == 0 and "transformers" in modules
    assert not modules & {"transformers.trainer", "matplotlib"}


# The helper


def namespace(text):
    names = {"__name__": "made_up", "lazily": lazily}
    exec(compile(text, "made_up", "exec"), names)
    return names


def test_a_lazy_name_loads_its_module_at_its_first_use():
    sys.modules.pop("colorsys", None)
    names = namespace("with lazily():\n    from colorsys import rgb_to_hsv\n    import colorsys\n")
    assert "colorsys" not in sys.modules and isinstance(names["rgb_to_hsv"], Lazy)
    assert names["rgb_to_hsv"](1, 0, 0) == (0, 1, 1) and "colorsys" in sys.modules
    assert names["colorsys"].hsv_to_rgb(0, 1, 1) == (1, 0, 0)


def test_a_lazy_name_stands_for_classes_submodules_and_renamed_modules():
    names = namespace(
        "with lazily():\n    from pathlib import Path\n    import json as renamed\n"
        "    from xml import dom\n"
    )
    assert isinstance(PROJECT, names["Path"]) and not isinstance("x", names["Path"])
    assert names["renamed"].loads("[]") == [] and names["dom"].__name__ == "xml.dom"
    with pytest.raises(ImportError, match="from a import b"):
        namespace("with lazily():\n    import xml.dom as dom\n")
    assert pickle.loads(pickle.dumps(names["Path"])) is type(PROJECT).__mro__[1]


def test_what_is_misspelled_is_said_with_its_name():
    names = namespace("with lazily():\n    from pathlib import Paht\n")
    with pytest.raises(ImportError, match="pathlib"):  # at the first use, as of any import
        names["Paht"]("x")


def test_imports_outside_of_the_block_and_of_other_modules_are_plain():
    names = namespace("with lazily():\n    pass\nfrom pathlib import Path\n")
    assert isinstance(names["Path"], type)


def lazy_names(path):
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.With) and ast.unparse(node.items[0]) == "lazily()":
            for line in node.body:
                module = getattr(line, "module", None)
                yield from ((module, alias.name) for alias in line.names)


def lazy_files():
    files = [*PROJECT.glob("*.py"), *PROJECT.glob("toolkit/*/*.py")]
    return [path for path in files if list(lazy_names(path))]


@pytest.mark.parametrize("path", lazy_files(), ids=lambda path: path.name)
def test_only_functions_classes_and_modules_are_imported_lazily(path):
    """A constant would not be one: its stand-in cannot be added, compared or caught."""
    import importlib

    for module, name in lazy_names(path):
        if module is None:
            importlib.import_module(name)
            continue
        found = importlib.import_module(module)
        thing = getattr(found, name, None) or importlib.import_module(f"{module}.{name}")
        assert (
            callable(thing)
            or type(thing).__name__ in ("module", "_LazyModule")
            or ("Alias" in type(thing).__name__)
        ), f"{path.name}: {name}"
    assert "from __future__ import annotations" in path.read_text()
