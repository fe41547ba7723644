"""Question `parties`: four hospitals train one model under a joint key, one process each.

At 128 bits, over a real endpoint: five folds of the pooled patients, accuracy beside the same
training and scikit-learn's on the pooled rows in clear; bytes and seconds of each party in each
step of the protocol.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.heart import HOSPITALS, read_hospital
from bench.question import Answer, Options
from bench.record import Record, Surroundings, look_around
from bench.report import format_bytes, format_seconds
from bench.task import Array
from bench.training_server import TrainingServer
from bench.training_sets import Labels
from tacit.client.training.preprocessing import Preprocessing
from tacit.client.training.requests import TrainingRequest
from tacit.client.training.stored import StoredUnits
from tacit.training import Algorithm, TrainingTask
from tacit.training_clear import train_task_in_clear

__all__ = ["NAME", "SUMMARY", "draw", "run"]

NAME = "parties"
SUMMARY = "four hospitals under a joint key: accuracy, bytes and seconds per step (needs --heart)"
WORKLOAD = "heart four parties"
FOLDS, ITERATIONS, ROWS, THREADS = 5, 3, 920, 1
LARGEST_ACCURACY_LOSS = 0.005
_PATIENCE = 7200.0
# The ranges that the hospitals agree on: from what the columns mean, not from these patients.
COLUMNS = (
    ("age", 0, 120),
    ("sex", 0, 1),
    ("cp", 1, 4),
    ("trestbps", 0, 300),
    ("chol", 0, 1000),
    ("fbs", 0, 1),
    ("restecg", 0, 2),
    ("thalach", 0, 300),
    ("exang", 0, 1),
    ("oldpeak", -10, 10),
    ("slope", 1, 3),
    ("ca", 0, 9),
    ("thal", 3, 7),
)


@dataclass(frozen=True, slots=True)
class _Hospital:
    name: str
    rows: Array
    labels: Labels

    @property
    def folds(self) -> Labels:
        """Every fifth patient is in the same fold."""
        return np.arange(len(self.rows)) % FOLDS


def run(options: Options, console: Console) -> Answer:
    """Measure everything in one session."""
    answer = Answer()
    if options.heart is None:
        console.print(f"{WORKLOAD} skipped: give --heart DIR")
        return answer
    hospitals = [
        _Hospital(name, *read_hospital(options.heart / f"processed.{name}.data"))
        for name in HOSPITALS
    ]
    folds = 1 if options.quick else FOLDS
    around = look_around()
    with tempfile.TemporaryDirectory(prefix="tacit-bench-") as name:
        measured = _session(Path(name), hospitals, folds)
    _report(console, measured)
    _accuracy(answer, console, around, hospitals, measured, folds)
    _costs(answer, around, measured)
    return answer


def draw(records: Sequence[Record], path: Path) -> None:
    """Draw bytes sent per step, one bar for each party."""
    from matplotlib.figure import Figure

    sent = [r for r in records if r.metric.startswith("sent_bytes ")]
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    steps = [r.metric.removeprefix("sent_bytes ") for r in sent]
    for party in range(len(HOSPITALS)):
        places = np.arange(len(sent)) + 0.2 * party
        axes.bar(places, [r.samples[party] / 1e6 for r in sent], 0.2, label=HOSPITALS[party])
    axes.set_xticks(np.arange(len(sent)) + 0.3, steps, rotation=60, ha="right")
    axes.set_yscale("log")
    axes.set_ylabel("sent, MB")
    axes.legend()
    figure.savefig(path)


def _session(root: Path, hospitals: Sequence[_Hospital], folds: int) -> dict[str, Any]:
    task = TrainingTask(Algorithm.LOGISTIC, ROWS, len(COLUMNS), ITERATIONS, parties=len(hospitals))
    server = TrainingServer(root / "server", threads=THREADS)
    try:
        session = {
            "url": server.url,
            "task": task.to_json(),
            "names": [h.name for h in hospitals],
            "columns": COLUMNS,
            "folds": folds,
        }
        (root / "session.json").write_text(json.dumps(session))
        for h in hospitals:
            np.savez(root / f"{h.name}.npz", x=h.rows, y=h.labels, fold=h.folds)
        _run_all(root, [h.name for h in hospitals])
    finally:
        server.close()
    return {h.name: json.loads((root / f"{h.name}.json").read_text()) for h in hospitals}


def _run_all(root: Path, names: Sequence[str]) -> None:
    """Run every hospital's process to its end.

    Raises:
        RuntimeError: one failed.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "bench.party_hospital", str(root), name], env=environment
        )
        for name in names
    ]
    try:
        codes = [process.wait(_PATIENCE) for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    failed = [name for name, code in zip(names, codes, strict=True) if code]
    if failed:
        raise RuntimeError(f"these hospitals failed: {', '.join(failed)}")


def _clear(hospitals: Sequence[_Hospital], fold: int) -> tuple[Array, int, int]:
    """Train on the pooled rows in clear: the twin's weights, its hits and scikit-learn's."""
    from sklearn.linear_model import LogisticRegression

    x = np.concatenate([h.rows[h.folds != fold] for h in hospitals])
    labels = np.concatenate([h.labels[h.folds != fold] for h in hospitals])
    test = np.concatenate([h.rows[h.folds == fold] for h in hospitals])
    truth = np.concatenate([h.labels[h.folds == fold] for h in hospitals])
    mean, deviation = np.nanmean(x, axis=0), np.nanstd(x, axis=0)
    preprocessing = Preprocessing(mean, mean, np.diag(1.0 / deviation), 4.0)
    rows, held = preprocessing.prepare(x), preprocessing.prepare(test)
    task = TrainingTask(Algorithm.LOGISTIC, ROWS, len(COLUMNS), ITERATIONS)
    request = TrainingRequest(task, rows, np.where(labels > 0, 1.0, -1.0)[:, None])
    units = StoredUnits.of(request)
    stored = train_task_in_clear(task, units.rows(request))[-1]
    weights = units.weights(task, stored)[:, 0]
    hits = int(((held @ weights > 0) == (truth > 0)).sum())
    peer = LogisticRegression().fit(rows[:, 1:], labels)
    return weights, hits, int((peer.predict(held[:, 1:]) == truth).sum())


def _accuracy(
    answer: Answer,
    console: Console,
    around: Surroundings,
    hospitals: Sequence[_Hospital],
    measured: Mapping[str, Any],
    folds: int,
) -> None:
    first = measured[hospitals[0].name]
    errors, twin_hits, peer_hits = [], 0, 0
    for number in range(folds):
        weights, hits, peer = _clear(hospitals, number)
        found = [np.array(m["folds"][number]["prepared"]) for m in measured.values()]
        errors.append(max(float(np.abs(f - weights).max()) for f in found))
        twin_hits, peer_hits = twin_hits + hits, peer_hits + peer
    patients = sum(int((h.folds < folds).sum()) for h in hospitals)
    ours = sum(f["hits"] for m in measured.values() for f in m["folds"]) / patients
    twin, pooled = twin_hits / patients, peer_hits / patients
    loss = max(twin, pooled) - ours
    seconds = [f["seconds"] for f in first["folds"]]
    for metric, unit, samples in (
        ("accuracy", "1", [ours]),
        ("accuracy_clear_twin", "1", [twin]),
        ("accuracy_sklearn_pooled", "1", [pooled]),
        ("weight_error_vs_clear", "1", errors),
        ("fit_seconds", "s", seconds),
    ):
        answer.records.append(_record(around, first, metric, unit, samples))
    console.print(
        f"{WORKLOAD}: accuracy {ours:.4f}, the same training in clear {twin:.4f}, scikit-learn "
        f"pooled {pooled:.4f} ({patients} patients); weights off by at most {max(errors):.1e}; a "
        f"fit takes {format_seconds(statistics.median(seconds))}; shares carry "
        f"{first['smudging']['smudging_bits']} bits of smudging",
        highlight=False,
    )
    if loss > LARGEST_ACCURACY_LOSS:
        answer.failures.append(f"{WORKLOAD}: accuracy {loss:.4f} below training in clear")


def _costs(answer: Answer, around: Surroundings, measured: Mapping[str, Any]) -> None:
    first = next(iter(measured.values()))
    for name, metric, unit in (
        (0, "seconds", "s"),
        (1, "sent_bytes", "bytes"),
        (2, "received_bytes", "bytes"),
    ):
        for step in _steps(measured):
            samples = [m["steps"].get(step, (0.0, 0, 0))[name] for m in measured.values()]
            record = _record(around, first, f"{metric} {step}", unit, samples, max(samples))
            answer.records.append(record)
    for metric, unit in (("keygen_seconds", "s"), ("peak_bytes", "bytes")):
        samples = [m[metric] for m in measured.values()]
        answer.records.append(_record(around, first, metric, unit, samples, max(samples)))
    for place, metric, unit in ((0, "key_upload_seconds", "s"), (1, "key_upload_bytes", "bytes")):
        answer.records.append(_record(around, first, metric, unit, [first["upload"][place]]))


def _steps(measured: Mapping[str, Any]) -> list[str]:
    """Steps of key generation and of the first fold, in order."""
    steps = {step: None for m in measured.values() for step in m["steps"]}
    return [s for s in steps if not s.startswith("fold-") or s.startswith("fold-0")]


def _record(
    around: Surroundings,
    first: Mapping[str, Any],
    metric: str,
    unit: str,
    samples: Sequence[float],
    value: float | None = None,
) -> Record:
    return Record(
        question=NAME,
        workload=WORKLOAD,
        subject="tacit",
        metric=metric,
        value=statistics.median(samples) if value is None else value,
        unit=unit,
        threads=THREADS,
        parameters={**first["parameters"], **first["smudging"]},
        runs=len(samples),
        hardware=around.hardware,
        commit=around.commit,
        samples=list(samples),
        load=around.load,
        time=around.time,
    )


def _report(console: Console, measured: Mapping[str, Any]) -> None:
    table = Table(title="seconds of work, bytes sent, bytes received")
    table.add_column("step")
    for name in measured:
        table.add_column(name, justify="right")
    for step in _steps(measured):
        cells = []
        for m in measured.values():
            seconds, sent, received = m["steps"].get(step, (0.0, 0, 0))
            cells.append(f"{format_seconds(seconds)} {format_bytes(sent)} {format_bytes(received)}")
        table.add_row(step, *cells)
    console.print(table)
