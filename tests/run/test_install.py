"""Step 1: what it installs, where, and what it leaves alone. No test here installs anything."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import install_libraries
from install_libraries import InstallOptions, release, satisfied, unmet
from tests.__main__ import LISTS
from tests.conftest import PROJECT
from toolkit.run.command import UserError


@pytest.mark.parametrize(
    "requirement, installed, met",
    [
        ("torch>=2.11", "2.13.0+cpu", True),
        ("torch>=2.11", "2.9.1", False),
        ("transformers>=5.17,<6", "5.17.0", True),
        ("transformers>=5.17,<6", "6.0.0", False),
        ("datasets>=4.0", "4.0.0.dev1", True),
        ("matplotlib", "1.0", True),
    ],
)
def test_ranges_are_understood(monkeypatch, requirement, installed, met):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: installed)
    assert satisfied(requirement) is met


def test_a_missing_library_is_unmet():
    assert not satisfied("no-such-library>=1")
    assert release("2.13.0+cpu") == (2, 13, 0) < release("2.13.1")
    assert unmet(("requirements.txt", "requirements-tests.txt")) == []


@pytest.fixture
def pip(monkeypatch):
    """Record pip's command lines instead of running them. `missing`: what the environment lacks."""
    calls = []
    state = {"missing": ["torch>=2.11", "datasets>=4.0"], "fails": 0}

    def run(command, **_):
        assert command[:3] == [sys.executable, "-m", "pip"]
        calls.append([word for word in command[3:] if not word.startswith("--disable")])
        if state["fails"]:
            state["fails"] -= 1
            return subprocess.CompletedProcess(command, 1)
        if "--index-url" not in command:
            state["missing"] = []
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(install_libraries, "unmet", lambda lists=(): list(state["missing"]))
    state["calls"] = calls
    return state


def test_our_own_environment_gets_the_tested_versions(pip, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(install_libraries.ENVIRONMENT))
    install_libraries.install_libraries(InstallOptions())
    constraints = str(PROJECT / "constraints.txt")
    assert pip["calls"] == [["install", "torch>=2.11", "datasets>=4.0", "-c", constraints]]


def test_an_active_environment_keeps_its_torch(pip, monkeypatch):
    pip["missing"] = ["datasets>=4.0"]
    monkeypatch.setattr(sys, "prefix", "/some/venv")
    install_libraries.install_libraries(InstallOptions())
    torch = f"torch=={importlib.metadata.version('torch')}"
    assert pip["calls"] == [["install", "datasets>=4.0", torch]]


def test_cpu_takes_torch_from_its_cpu_wheels(pip, monkeypatch):
    monkeypatch.setattr(sys, "prefix", "/some/venv")
    install_libraries.install_libraries(InstallOptions(cpu=True))
    first, second = pip["calls"]
    assert first == ["install", "torch>=2.11", "--index-url", install_libraries.CPU_WHEELS]
    assert second[0] == "install" and "--index-url" not in second


def test_versions_that_cannot_be_had_are_left_to_the_ranges(pip, monkeypatch, capsys):
    monkeypatch.setattr(sys, "prefix", str(install_libraries.ENVIRONMENT))
    pip["fails"] = 1
    install_libraries.install_libraries(InstallOptions())
    assert "-c" in pip["calls"][0] and "-c" not in pip["calls"][1]
    assert "the tested versions cannot be had" in capsys.readouterr().out


def test_a_failing_pip_is_one_line(pip, monkeypatch):
    pip["fails"] = 9
    with pytest.raises(UserError, match="pip could not install"):
        install_libraries.install_libraries(InstallOptions())


def test_nothing_is_installed_twice(pip):
    pip["missing"] = []
    install_libraries.install_libraries(InstallOptions())
    assert pip["calls"] == []


@pytest.mark.parametrize("file", ["train_model.py", "generate.py", "import_modules.py"])
def test_a_step_without_libraries_says_how_to_get_them(tmp_path, file):
    shutil.copytree(
        PROJECT, tmp_path / "p", ignore=shutil.ignore_patterns(".*", "runs", "data", "tests")
    )
    bare = [sys._base_executable, "-S", "-E", file]  # -S: no site-packages, wherever this runs
    done = subprocess.run(bare, cwd=tmp_path / "p", capture_output=True, text=True)
    assert done.returncode == 2
    assert "run: python3 install_libraries.py" in done.stderr and done.stderr.count("\n") == 1


def test_an_interrupted_environment_is_made_anew(tmp_path):
    python = tmp_path / "bin/python"
    assert not install_libraries.works(python)
    python.parent.mkdir()
    python.symlink_to(Path(sys.executable))
    assert install_libraries.works(Path(sys.executable))


def test_every_tested_version_is_in_its_range():
    pins = dict(
        line.split(";")[0].strip().split("==")
        for line in (PROJECT / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    assert pins["torch"] == "2.13.0"
    for name in LISTS:
        for line in (PROJECT / name).read_text().splitlines():
            if line and not line.startswith("#"):
                library = line.split(">")[0]
                assert library in pins and importlib.metadata.version(library)


def test_a_pin_that_the_oldest_python_cannot_have_is_marked():
    """Else pip finds nothing there. Only libraries that are here in the pinned version can tell."""
    for line in (PROJECT / "constraints.txt").read_text().splitlines():
        name, _, rest = line.partition("==")
        try:
            here = importlib.metadata.metadata(name)
        except (importlib.metadata.PackageNotFoundError, ValueError):
            continue  # for another flag, or a comment
        needs = here["Requires-Python"] or ""
        if here["Version"] == rest.split(";")[0] and "3.10" not in SpecifierSet(needs):
            assert "python_version" in rest, line


@pytest.mark.parametrize("asked", [None, "glibc.malloc.check=1"])
def test_a_command_begins_again_once_for_huge_pages(monkeypatch, asked):
    begun = []
    monkeypatch.setattr(install_libraries, "start_again", begun.append)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys, "argv", ["train_model.py"])
    monkeypatch.setattr(sys, "orig_argv", ["python3", "train_model.py"])
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    if asked:
        monkeypatch.setenv("GLIBC_TUNABLES", asked)
    for _ in range(2):
        install_libraries.enter_environment()
    assert begun == [Path(sys.executable)]
    expected = [asked, "glibc.malloc.hugetlb=1"] if asked else ["glibc.malloc.hugetlb=1"]
    assert os.environ["GLIBC_TUNABLES"] == ":".join(expected)


@pytest.mark.parametrize("platform, argv", [("darwin", "train_model.py"), ("linux", "other.py")])
def test_nothing_begins_again_elsewhere_or_in_a_notebook(monkeypatch, platform, argv):
    monkeypatch.setattr(install_libraries, "start_again", pytest.fail)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(sys, "argv", [argv])
    monkeypatch.setattr(sys, "orig_argv", ["python3", "train_model.py"])
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    install_libraries.enter_environment()


def hashed():
    """Return the lines of each requirement of requirements-hashed.txt that counts here, by name."""
    text = (PROJECT / "requirements-hashed.txt").read_text().replace("\\\n", "")
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            wanted, *hashes = line.split(" --hash=")
            requirement = Requirement(wanted)
            assert hashes and all(
                re.fullmatch("sha256:[0-9a-f]{64}", one.strip()) for one in hashes
            )
            assert [one.operator for one in requirement.specifier] == ["=="], line
            if requirement.marker is None or requirement.marker.evaluate():
                found[canonicalize_name(requirement.name)] = requirement
    return found


AGAIN = "make requirements-hashed.txt anew: docs/dependencies.md"


def test_the_hashed_list_has_the_tested_versions():
    found = hashed()
    for line in (PROJECT / "constraints.txt").read_text().splitlines():
        if not line.startswith("#"):
            tested = Requirement(line)
            if tested.marker is None or tested.marker.evaluate():
                name = canonicalize_name(tested.name)
                assert name in found and found[name].specifier == tested.specifier, AGAIN


def test_the_hashed_list_lacks_nothing_that_a_library_needs():
    """Else `pip install --require-hashes` stops. What is installed here says what it needs."""
    found, open_names = hashed(), []
    for name in LISTS:
        lines = (PROJECT / name).read_text().splitlines()
        open_names += [
            Requirement(line.split("#")[0]).name for line in lines if line[:1] not in "# "
        ]
    seen = set()
    while open_names:
        name = canonicalize_name(open_names.pop())
        if name in seen:
            continue
        seen.add(name)
        assert name in found, f"{name}: {AGAIN}"
        for line in importlib.metadata.requires(name) or []:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                open_names.append(needed.name)
    assert len(seen) > 50
