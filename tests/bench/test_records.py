from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from bench.record import Record, append, describe_commit, describe_hardware, read

REQUIRED = {
    *("question", "workload", "subject", "metric", "value", "unit"),
    *("threads", "parameters", "runs", "hardware", "commit"),
}


def make_record(**changes: object) -> Record:
    record = Record(
        question="logreg",
        workload="one row",
        subject="tacit",
        metric="server_seconds",
        value=0.25,
        unit="s",
        threads=1,
        parameters={"n": 8192},
        runs=3,
        hardware={"cpu": "model", "cores": 2, "memory_gib": 4.0},
        commit="abc",
        samples=[0.2, 0.25, 0.3],
    )
    return dataclasses.replace(record, **changes)  # type: ignore[arg-type]


def test_a_record_is_one_line_of_json_with_every_required_field() -> None:
    line = make_record().to_json()
    assert "\n" not in line
    fields = json.loads(line)
    assert fields.keys() >= REQUIRED
    assert fields["value"] == 0.25
    assert fields["hardware"]["cores"] == 2


def test_an_unknown_subject_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown subject 'seal'"):
        make_record(subject="seal")


def test_a_result_without_a_run_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one run"):
        make_record(runs=0)


def test_records_are_appended_and_read_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.jsonl"
    first, second = make_record(), make_record(subject="orion", value=0.5)
    append([first], path)
    append([second], path)
    assert read(path) == [first, second]


def test_hardware_names_the_processor_its_cores_and_the_memory() -> None:
    hardware = describe_hardware()
    assert hardware["cpu"]
    assert hardware["cores"] >= 1
    assert hardware["memory_gib"] > 0


def test_the_commit_is_never_empty() -> None:
    assert describe_commit()
