from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from bench import rounds
from bench.record import Surroundings
from bench.report import figures_of, records_of
from bench.rounds import Outcome, Pace, run_side_by_side
from bench.subjects import Launch, SkippedError, split_name
from bench.task import Array, Task

AROUND = Surroundings({"cpu": "model", "cores": 2, "memory_gib": 4.0}, "abc", 0.1, "now")
FOUR = Pace(4, 60.0)
STUB = str(Path(__file__).with_name("stub_worker.py"))


def make_task(workload: str) -> Task:
    inputs: Array = np.array([[[0.0], [1.0]], [[2.0], [3.0]], [[4.0], [5.0]]])
    return Task("logreg", workload, {"inputs": inputs}, Path("none.onnx"), reference=2 * inputs)


def launch_stub(name: str, *, say: Callable[[str], None]) -> Launch:
    if name == "concrete-ml":
        raise SkippedError("needs Python 3.11, none was found")
    subject, variant = split_name(name)
    environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
    return Launch(subject, variant, (sys.executable, STUB), environment, timeout_seconds=120.0)


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Outcome]]:
    monkeypatch.setattr(rounds, "find_launch", launch_stub)

    def run(
        task: Task, names: Sequence[str], said: list[str] | None = None, pace: Pace = FOUR
    ) -> list[Outcome]:
        lines: list[str] = [] if said is None else said
        return run_side_by_side(task, names, pace, lines.append)

    return run


def test_every_subject_has_every_round_and_the_warm_up_is_not_counted(
    measure: Callable[..., list[Outcome]],
) -> None:
    outcomes = measure(make_task("one row"), ["tacit", "orion"])
    for outcome in outcomes:
        assert [r.extra[0].value for r in outcome.rounds] == [0, 1, 2, 3]
        assert outcome.peak_rss_bytes > 1e6


def test_a_peer_that_cannot_be_installed_is_skipped_visibly_and_the_others_go_on(
    measure: Callable[..., list[Outcome]],
) -> None:
    said: list[str] = []
    absent, present = measure(make_task("one row"), ["concrete-ml", "orion"], said)
    assert absent.skipped == "needs Python 3.11, none was found"
    assert not absent.measured
    assert present.measured
    assert "one row: concrete-ml skipped: needs Python 3.11, none was found" in said


def test_a_workload_without_an_implementation_is_skipped_not_failed(
    measure: Callable[..., list[Outcome]],
) -> None:
    (outcome,) = measure(make_task("unsupported"), ["orion"])
    assert outcome.skipped == "no such circuit"
    assert not outcome.failed


def test_an_error_in_a_worker_is_a_failure_with_its_message(
    measure: Callable[..., list[Outcome]],
) -> None:
    said: list[str] = []
    (outcome,) = measure(make_task("broken"), ["orion"], said)
    assert outcome.failed == "RuntimeError: keys do not fit"
    assert "broken: orion FAILED: RuntimeError: keys do not fit" in said


def test_a_crash_in_a_round_is_a_failure(measure: Callable[..., list[Outcome]]) -> None:
    (outcome,) = measure(make_task("crash"), ["orion"])
    assert "the worker died" in outcome.failed


def test_a_slow_subject_drops_out_but_has_at_least_one_round(
    measure: Callable[..., list[Outcome]],
) -> None:
    (outcome,) = measure(make_task("slow"), ["orion"], pace=Pace(5, 0.1))
    assert len(outcome.rounds) == 1


def test_figures_compare_each_round_with_the_right_rows(
    measure: Callable[..., list[Outcome]],
) -> None:
    task = make_task("one row")
    (outcome,) = measure(task, ["orion"])
    figures = {figure.metric: figure for figure in figures_of(outcome, task)}
    assert figures["error"].median == 0
    assert figures["label_agreement"].median == 1
    assert figures["key_bytes"].median == 1000
    assert figures["turn"].samples == [0, 1, 2, 3]
    assert len(figures["server_seconds"].samples) == 4


def test_a_wrong_output_shows_as_error_and_in_the_labels(
    measure: Callable[..., list[Outcome]],
) -> None:
    right = make_task("one row")
    reference = right.reference.copy()
    reference[1, 0, 0] = -3.0  # the stub answers 4.0
    task = Task(right.question, right.workload, right.arrays, right.onnx_path, reference)
    (outcome,) = measure(task, ["orion"])
    figures = {figure.metric: figure.median for figure in figures_of(outcome, task)}
    assert figures["error"] == 7.0
    assert figures["error_of_range"] == pytest.approx(7.0 / 13.0)
    assert figures["label_agreement"] == pytest.approx(5 / 6)


def test_a_variant_leads_the_metric_and_keeps_the_subject(
    measure: Callable[..., list[Outcome]],
) -> None:
    task = make_task("one row")
    (outcome,) = measure(task, ["tenseal:logits"])
    records = records_of(outcome, task, AROUND, question="logreg", workload="one row")
    assert {record.subject for record in records} == {"tenseal"}
    assert "logits_server_seconds" in {record.metric for record in records}
    assert records[0].parameters == {"variant": "logits"}


def test_a_skipped_subject_leaves_no_record() -> None:
    outcome = Outcome("orion", skipped="no network")
    task = make_task("one row")
    assert records_of(outcome, task, AROUND, question="logreg", workload="one row") == []
