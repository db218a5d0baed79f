"""Which precision "auto" is: measured once in a run, and the same for all its steps."""

from toolkit.run import devices, run_directory
from toolkit.run.devices import cpu_gains_by_bf16, pick_precision
from toolkit.run.run_directory import RunDirectory


def test_a_cpu_without_bf16_is_not_measured(monkeypatch):
    monkeypatch.setattr(devices, "cpu_has_bf16", lambda: False)
    monkeypatch.setattr(devices.time, "perf_counter", lambda: 1 / 0)
    cpu_gains_by_bf16.cache_clear()
    assert pick_precision("auto", "cpu") == "fp32"
    cpu_gains_by_bf16.cache_clear()


def test_bf16_is_taken_where_it_is_half_as_fast_again(monkeypatch):
    monkeypatch.setattr(devices, "cpu_has_bf16", lambda: True)
    for gain, expected in ((4, "bf16"), (1.6, "bf16"), (1.4, "fp32"), (0.5, "fp32")):
        # Products alternate, float32 first; each takes two looks at the clock.
        ticks = [0.0]
        for number in range(4 * devices.ROUNDS):
            fp32 = number // 2 % 2 == 0
            ticks.append(ticks[-1] + (0 if number % 2 else gain if fp32 else 1))
        clock = iter(ticks)
        monkeypatch.setattr(devices.time, "perf_counter", lambda clock=clock: next(clock))
        cpu_gains_by_bf16.cache_clear()
        assert pick_precision("auto", "cpu") == expected, gain
    cpu_gains_by_bf16.cache_clear()


def test_what_auto_meant_to_step_2_it_means_to_all_steps(finished, run_copy, monkeypatch):
    """A later measurement may come out otherwise; the run may not change half-way."""
    found = RunDirectory(finished.path).record("import_modules")["measured"]["precision"]
    other = {"fp32": "bf16", "bf16": "fp32"}[found]
    monkeypatch.setattr(run_directory, "pick_precision", lambda asked, device: other)
    monkeypatch.setattr(run_directory, "cpu_has_bf16", lambda: True)
    run = RunDirectory(run_copy, precision="auto", device="cpu")
    assert run.precision == found
    if found == "bf16":  # the run was moved to a CPU that has none
        monkeypatch.setattr(run_directory, "cpu_has_bf16", lambda: False)
        run.settle(run.seed, "cpu", "auto")
        assert run.precision == other
