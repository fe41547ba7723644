"""Peers of `bench training`: a pass over encrypted rows by TenSEAL's tutorial and Concrete ML."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console

from bench.question import Answer, Options
from bench.record import Record, Surroundings
from bench.report import Figure, format_seconds, record_of
from bench.rounds import Outcome
from bench.subjects import FailedError, SkippedError, Subject, find_launch
from bench.task import Task
from bench.training_sets import framingham_like

PEERS = ("tenseal", "concrete-ml")
QUICK_ROWS = 60


def run(answer: Answer, around: Surroundings, console: Console, options: Options) -> None:
    """Have each wanted peer train on the rows, all of them or with --quick the first 60.

    Adds `row_seconds`: training time for one pass over one row, which compares methods that take
    rows one at a time, eight at a time or all at once.
    """
    patients = framingham_like()
    count = QUICK_ROWS if options.quick else len(patients.rows)
    rows = (patients.rows - patients.rows.mean(axis=0)) / patients.rows.std(axis=0)
    arrays = {
        "rows": np.clip(rows, -4.0, 4.0)[:count],
        "labels": patients.labels[:count].astype(np.float64),
        "inputs": rows[None, :1],
    }
    task = Task("training", patients.name, arrays, Path("none"), np.zeros((1, 1, 1)))
    with tempfile.TemporaryDirectory(prefix="tacit-bench-") as name:
        for peer in PEERS:
            if peer in options.peers:
                outcome = _trained(task, peer, Path(name), console)
                _keep(answer, around, console, outcome, patients.name)
    _compare(answer.records, console, patients.name)


def _trained(task: Task, peer: str, folder: Path, console: Console) -> Outcome:
    outcome, subject = Outcome(peer), None
    console.print(f"{task.workload}: {peer}", style="dim")
    try:
        subject = Subject(
            find_launch(peer, say=lambda line: console.print(line, style="dim")), folder
        )
        outcome.ready = subject.setup(task, task.save_arrays(folder))
        outcome.rounds.append(subject.round(0))
        outcome.peak_rss_bytes = subject.close()
    except SkippedError as error:
        outcome.skipped = str(error)
    except FailedError as error:
        outcome.failed = str(error)
    finally:
        if subject is not None:
            subject.end()
    return outcome


def _keep(
    answer: Answer, around: Surroundings, console: Console, outcome: Outcome, workload: str
) -> None:
    if not outcome.measured:
        word = "skipped" if outcome.skipped else "FAILED"
        reason = outcome.skipped or outcome.failed
        console.print(f"{outcome.name} {word}: {reason}", style="yellow", markup=False)
        if outcome.failed:
            answer.failures.append(f"{workload}: {outcome.name}: {outcome.failed}")
        return
    assert outcome.ready is not None
    (measured,) = outcome.rounds
    figures = [Figure(e.metric, e.unit, [e.value]) for e in measured.extra]
    figures += [Figure("server_seconds", "s", [measured.server_seconds])]
    figures += [Figure("client_seconds", "s", [measured.client_seconds])]
    if outcome.ready.key_bytes is not None:
        figures += [Figure("key_bytes", "bytes", [float(outcome.ready.key_bytes)])]
    answer.records += [
        record_of(figure, outcome, around, question="training", workload=workload)
        for figure in figures
    ]


def _compare(records: list[Record], console: Console, workload: str) -> None:
    """Print time per row and pass of everybody who has it."""
    found = {r.subject: r for r in records if r.metric == "row_seconds"}
    ours = [
        r.value
        for r in records
        if r.subject == "tacit"
        and r.metric == "server_seconds"
        and r.workload == f"{workload}, 5 iterations, degree 5"
    ]
    if ours:
        own = ours[0] / 5 / len(framingham_like().rows)
        console.print(f"a pass over one row: tacit {format_seconds(own)}", highlight=False)
        for name, record in found.items():
            times = record.value / own
            console.print(
                f"a pass over one row: {name} {format_seconds(record.value)} ({times:.0f} x)",
                highlight=False,
            )
