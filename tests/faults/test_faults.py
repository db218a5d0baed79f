"""Every kind of fault: a part of each in the normal run, all of them with --faults."""

import random

import pytest

from tests.conftest import TALLIES
from tests.faults.damage import damaged_checkpoints, damaged_runs
from tests.faults.fuzzing import fuzzing
from tests.faults.harness import Bench, Workshop
from tests.faults.inputs import (
    bad_config_files,
    bad_flags,
    bad_model_folders,
    bad_run_directories,
)
from tests.faults.kills import killed_at_moments, killed_at_random
from tests.faults.server_requests import bad_requests
from tests.faults.shortages import (
    full_at_each_write,
    removed_meanwhile,
    small_disks,
    tight_limits,
)

KINDS = [
    killed_at_random,
    killed_at_moments,
    damaged_runs,
    damaged_checkpoints,
    full_at_each_write,
    small_disks,
    tight_limits,
    removed_meanwhile,
    bad_flags,
    bad_config_files,
    bad_model_folders,
    bad_run_directories,
    bad_requests,
    fuzzing,
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """With --faults a test for each kind; else one for all, so that one process harms one run."""
    if metafunc.config.getoption("--faults") is None:
        metafunc.parametrize("kinds", [KINDS], ids=["a part of each kind"])
    else:
        metafunc.parametrize("kinds", [[k] for k in KINDS], ids=[k.__name__ for k in KINDS])


@pytest.fixture(scope="module")
def bench(tmp_path_factory, request):
    workshop = Workshop(tmp_path_factory.mktemp("faults"))
    minutes = request.config.getoption("--faults")
    seed = request.config.getoption("--faults_seed")
    bench = Bench(workshop, minutes, random.Random(seed))
    yield bench
    workshop.close()
    request.config.stash[TALLIES] = bench.tallies


def test_it_ends_equal_or_refused_in_one_line(bench, kinds):
    tallies = [kind(bench) for kind in kinds]
    bad = [case for tally in tallies for case in tally.bad]
    assert not bad, "\n".join([*(tally.line() for tally in tallies), *bad])
