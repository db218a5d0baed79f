"""The house rules that a program can check."""

import ast
import dataclasses
import importlib
import re
import subprocess
import sys
from typing import get_args

import pytest

from tests.conftest import PROJECT, STEP_FILES
from toolkit import ROOMS
from toolkit.run.steps import STEPS

ALL_STEPS = ["install_libraries.py", *STEP_FILES]


def imported_modules(path):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("words", [["check"], ["format", "--check"]])
def test_ruff_is_clean(words):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *words, "--no-cache", "."],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_steps_are_the_files_in_order():
    assert [f"{name}.py" for name in STEPS] == ALL_STEPS
    assert all((PROJECT / name).exists() for name in ALL_STEPS)


@pytest.mark.parametrize("number, name", list(enumerate(ALL_STEPS, start=1)))
def test_a_step_imports_only_earlier_steps_and_the_toolkit(number, name):
    later = {file.removesuffix(".py") for file in ALL_STEPS[number - 1 :]} | {"run_pipeline"}
    assert not later & set(imported_modules(PROJECT / name))


@pytest.mark.parametrize("path", sorted((PROJECT / "toolkit").rglob("*.py")), ids=lambda p: p.name)
def test_the_toolkit_imports_no_step(path):
    assert not {*STEPS, "run_pipeline"} & set(imported_modules(path))


@pytest.mark.parametrize("number, room", list(enumerate(ROOMS, start=1)))
def test_a_room_imports_only_itself_and_rooms_above_it(number, room):
    files = list((PROJECT / "toolkit" / room).glob("*.py"))
    imported = {module for path in files for module in imported_modules(path)}
    rooms = {module.split(".")[1] for module in imported if module.startswith("toolkit.")}
    assert len(files) > 5 and rooms <= set(ROOMS[:number])


def test_every_file_of_the_toolkit_is_in_a_room_that_says_what_lives_there():
    homes = {path.parent.name for path in (PROJECT / "toolkit").rglob("*.py")}
    assert homes == {"toolkit", *ROOMS}
    assert [path.name for path in (PROJECT / "toolkit").glob("*.py")] == ["__init__.py"]
    for room in ROOMS:
        assert len(importlib.import_module(f"toolkit.{room}").__doc__.split()) > 30


@pytest.mark.parametrize("number, name", list(enumerate(ALL_STEPS, start=1)))
def test_a_step_file_has_the_same_anatomy_as_every_other(number, name):
    tree = ast.parse((PROJECT / name).read_text())
    assert ast.get_docstring(tree).startswith(f"Step {number}: ")
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    if name == "create_dataset.py":  # begins with what people edit
        assert functions.pop(0) == "documents"
    assert functions[0] == name.removesuffix(".py")
    assert functions[-1] == "main"
    options = importlib.import_module("run_pipeline").options_of
    assert number == 1 or options(name.removesuffix(".py")).__name__.endswith("Options")


def test_the_installer_needs_only_the_standard_library():
    reached, todo = set(), ["install_libraries"]
    while todo:
        name = todo.pop()
        if name not in reached:
            reached.add(name)
            path = PROJECT / f"{name.replace('.', '/')}.py"
            todo += [m for m in imported_modules(path) if m.startswith("toolkit")]
    modules = {
        module.split(".")[0]
        for name in reached
        for module in imported_modules(PROJECT / f"{name.replace('.', '/')}.py")
    }
    assert modules - {"toolkit"} <= sys.stdlib_module_names


def test_no_two_steps_share_a_flag():
    names = []
    for file in ALL_STEPS:
        module = importlib.import_module(file.removesuffix(".py"))
        for thing in vars(module).values():
            if dataclasses.is_dataclass(thing) and thing.__module__ == module.__name__:
                names += [field.name for field in dataclasses.fields(thing)]
    assert len(names) == len(set(names)) and len(names) > 30


def test_only_the_printer_prints_and_asserts_stay_in_tests():
    for path in [*PROJECT.glob("*.py"), *PROJECT.glob("toolkit/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            assert not isinstance(node, ast.Assert), path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print" or path.name == "console.py", path


def test_every_flag_reaches_something():
    """A field that no code reads would be accepted and ignored."""
    files = [*PROJECT.glob("*.py"), *PROJECT.glob("toolkit/**/*.py")]
    code = {path: path.read_text(encoding="utf-8") for path in files}
    for file in ALL_STEPS:
        module = importlib.import_module(file.removesuffix(".py"))
        for group in vars(module).values():
            if not dataclasses.is_dataclass(group) or group.__module__ != module.__name__:
                continue
            for field in dataclasses.fields(group):
                name = re.escape(field.name)
                read = rf"\.{name}\b|\"{name}\"|\b{name}: (int|float|bool|tuple)"
                assert any(re.search(read, text) for text in code.values()), field.name


def test_every_learning_rate_schedule_of_the_library_can_be_asked_for():
    schedules = importlib.import_module("toolkit.training.plan").Schedule
    kinds = importlib.import_module("transformers").SchedulerType
    assert set(get_args(schedules)) == {kind.value for kind in kinds}
