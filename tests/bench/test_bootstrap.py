from __future__ import annotations

import json
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest
from rich.console import Console

pytest.importorskip("openfhe", reason="openfhe does not import here")

from bench import bootstrap
from bench.bootstrap import Setting, _records, draw
from bench.bootstrap_worker import Request, measure
from bench.question import Options
from bench.record import look_around, read
from tacit.kernels.build import build_if_stale


def _request(setting: Setting, engine: str) -> Request:
    apart = ("engines", "threads")
    fields = {name: value for name, value in asdict(setting).items() if name not in apart}
    return Request(**fields, engine=engine, rounds=1, threads=1)


@pytest.mark.parametrize("function", ["silu", "plain"])
def test_both_engines_are_measured_on_the_same_bootstrap(function: str, tmp_path: Path) -> None:
    if not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")
    setting = Setting(function, 10, 50)
    around, records = look_around(), []
    for engine in bootstrap.ENGINES:
        found = measure(_request(setting, engine))
        assert found["parameters"]["levels_left"] == setting.level
        records += _records(setting, engine, found, around)
    values = {(r.subject, r.metric): r.value for r in records}
    for engine in bootstrap.ENGINES:
        assert values[engine, "cpu_seconds"] > 0.0
        assert 5.0 < values[engine, "max_error_bits"] < values[engine, "mean_error_bits"] < 40.0
        assert values[engine, "key_bytes"] > 1e6
    # With a function both have the same error, that of the series.
    assert values["tacit", "max_error_bits"] > values["openfhe", "max_error_bits"] - 1.0
    draw(records, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").exists()


def test_an_interrupted_run_is_taken_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what is missing is measured, and a failure costs nothing that was measured before."""
    measured: list[tuple[str, str]] = []
    broken = ["openfhe"]
    parameters = {"log_n": 13, "log_slots": 12, "log_scale": 50, "secret": "none"}

    def measure_apart(
        setting: Setting, engine: str, rounds: int, threads: int
    ) -> subprocess.CompletedProcess[str]:
        measured.append((setting.workload, engine))
        if engine in broken:
            return subprocess.CompletedProcess([], 1, "", "no memory")
        found = {
            "samples": {"cpu_seconds": [float(rounds)] * rounds},
            "figures": {"max_error_bits": 20.0, "mean_error_bits": 22.0},
            "parameters": parameters,
        }
        return subprocess.CompletedProcess([], 0, json.dumps(found), "")

    monkeypatch.setattr(bootstrap, "measure_apart", measure_apart)
    options = Options(quick=True, resume=tmp_path / "partial.jsonl")
    first = bootstrap.run(options, Console(quiet=True))
    assert len(first.failures) == 2
    assert {record.subject for record in first.records} == {"tacit"}
    assert len(measured) == 4
    broken.clear()
    second = bootstrap.run(options, Console(quiet=True))
    assert measured[4:] == [(setting.workload, "openfhe") for setting in bootstrap.QUICK]
    assert not second.failures
    assert read(tmp_path / "partial.jsonl")[: len(first.records)] == first.records
    assert len(second.records) == 2 * len(first.records)
    alone = bootstrap.run(Options(quick=True, peers=()), Console(quiet=True))
    assert {record.subject for record in alone.records} == {"tacit"}


def test_settings_name_workloads_apart() -> None:
    for settings in ((*bootstrap.QUICK, *bootstrap.FULL), bootstrap.PRECISION):
        assert len({setting.workload for setting in settings}) == len(settings)
    full = {(s.log_n, s.log_scale, s.secret) for s in bootstrap.PRECISION if not s.log_slots}
    for log_n in bootstrap.SIZES:
        for log_scale in (34, 40, 50, 58):
            assert (log_n, log_scale, bootstrap.ENCAPSULATED) in full
        assert all((log_n, 50, secret) in full for secret in bootstrap.SECRETS)
    both = [s for s in bootstrap.PRECISION if s.log_n in bootstrap.SIZES and not s.log_slots]
    assert all(tuple(s.engines) == bootstrap.ENGINES for s in both)
