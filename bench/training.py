"""Question `training`: logistic regression trained on encrypted rows, over a real endpoint.

Accuracy against scikit-learn's by five folds with the one preset; time, keys and weight errors at
780 rows of 9 features; long runs with bootstraps; time against rows, features and iterations; a
pass over the rows beside TenSEAL's tutorial and Concrete ML; with `--kills N`, a server that is
killed and started again N times.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from bench import training_kills, training_peers
from bench.plots import draw_training as draw
from bench.question import Answer, Options
from bench.record import Record, Surroundings, look_around
from bench.report import format_bytes, format_seconds
from bench.task import Array
from bench.training_fits import Fit, fit, forget, keys_of
from bench.training_kills import LARGEST_WEIGHT_ERROR
from bench.training_server import TrainingServer
from bench.training_sets import Labels, Patients, framingham_like, sets
from tacit.client.training.connection import Connection
from tacit.client.training.http_trainer import HttpTrainer
from tacit.client.training.linear_models import Ridge
from tacit.client.training.logistic_regression import LogisticRegression

__all__ = ["NAME", "SUMMARY", "draw", "run"]

NAME = "training"
SUMMARY = "training on encrypted rows: accuracy, time, errors (--heart DIR, --kills N)"
THREADS = 2
REPEATS = 5
LONG_ITERATIONS = 32
LARGEST_AUC_LOSS, LARGEST_ACCURACY_LOSS = 0.005, 0.01


@dataclass(slots=True)
class _Course:
    """What all parts of the question share."""

    options: Options
    console: Console
    around: Surroundings
    connection: Connection
    answer: Answer = field(default_factory=Answer)

    def model(self, **params: Any) -> LogisticRegression:
        """Return an estimator with the preset but for `params`."""
        return LogisticRegression(self.connection, missing="mean", constant="ignore", **params)

    def trained(self, model: LogisticRegression, rows: Array, labels: Labels) -> Fit:
        """Train once and delete the job."""
        found = fit(model, rows, labels)
        forget(self.connection, found.model.job_id_)
        return found

    def note(
        self,
        workload: str,
        metric: str,
        unit: str,
        samples: Sequence[float],
        parameters: dict[str, object],
    ) -> None:
        """Keep a record."""
        self.answer.records.append(
            Record(
                question=NAME,
                workload=workload,
                subject="tacit",
                metric=metric,
                value=statistics.median(samples),
                unit=unit,
                threads=THREADS,
                parameters=parameters,
                runs=len(samples),
                hardware=self.around.hardware,
                commit=self.around.commit,
                samples=list(samples),
                load=self.around.load,
                time=self.around.time,
            )
        )

    def note_costs(self, workload: str, fits: Sequence[Fit]) -> None:
        """Keep records of times, bytes and errors."""
        first, parameters = fits[0], fits[0].parameters
        self.note(workload, "fit_seconds", "s", [f.fit_seconds for f in fits], parameters)
        self.note(workload, "server_seconds", "s", [f.server_seconds for f in fits], parameters)
        errors = [f.weight_error for f in fits]
        self.note(workload, "weight_error_vs_clear", "1", errors, parameters)
        self.note(workload, "key_bytes", "bytes", [first.key_bytes], parameters)
        self.note(workload, "upload_bytes", "bytes", [first.upload_bytes], parameters)
        self.console.print(
            f"{workload}: fit {format_seconds(statistics.median(f.fit_seconds for f in fits))}, "
            f"server {format_seconds(statistics.median(f.server_seconds for f in fits))}, "
            f"weight error {max(errors):.1e}, "
            f"keys {format_bytes(first.key_bytes)}, rows {format_bytes(first.upload_bytes)}",
            highlight=False,
        )
        if max(errors) > LARGEST_WEIGHT_ERROR:
            self.answer.failures.append(f"{workload}: weights are off by {max(errors):.1e}")


def run(options: Options, console: Console) -> Answer:
    """Measure everything, one part after the other."""
    with tempfile.TemporaryDirectory(prefix="tacit-bench-") as name:
        folder = Path(name)
        if options.heart is None:
            console.print("heart cleveland, heart pooled skipped: give --heart DIR")
        server = TrainingServer(folder / "server", threads=THREADS)
        try:
            connection = Connection(server.url, key_dir=folder / "keys", timeout=900.0)
            course = _Course(options, console, look_around(), connection)
            for patients in sets(options.heart):
                _accuracy(course, patients)
            _costs(course)
            _ridge(course)
            _scaling(course)
            _long_run(course)
            if options.kills:
                training_kills.run(
                    course.answer, course.around, console, server, connection, options
                )
        finally:
            server.close()
        training_peers.run(course.answer, course.around, console, options)
        return course.answer


def _accuracy(course: _Course, patients: Patients) -> None:
    """Compare with scikit-learn over five folds, test rows never seen in training."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression as Reference
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fits, auc, accuracy = [], [], []
    for train, test in patients.folds():
        rows, labels = patients.rows[train], patients.labels[train]
        clear = make_pipeline(SimpleImputer(), StandardScaler(), Reference(max_iter=5000))
        clear.fit(rows, labels)
        found = course.trained(course.model(), rows, labels)
        fits.append(found)
        seen, right = patients.rows[test], patients.labels[test]
        ours = roc_auc_score(right, found.model.decision_function(seen))
        auc.append(roc_auc_score(right, clear.decision_function(seen)) - ours)
        accuracy.append(clear.score(seen, right) - found.model.score(seen, right))
    # Means over the folds: `value` is their median, so each fold is a sample of the record.
    for metric, losses, limit in (
        ("auc_loss_vs_sklearn", auc, LARGEST_AUC_LOSS),
        ("accuracy_loss_vs_sklearn", accuracy, LARGEST_ACCURACY_LOSS),
    ):
        mean = float(np.mean(losses))
        course.note(patients.name, f"{metric}_by_fold", "1", losses, fits[0].parameters)
        course.note(patients.name, metric, "1", [mean], fits[0].parameters)
        course.console.print(f"{patients.name}: {metric} {mean:+.4f}", highlight=False)
        if mean > limit:
            course.answer.failures.append(f"{patients.name}: {metric} {mean:+.4f}, limit {limit}")
    course.note_costs(patients.name, fits)


def _costs(course: _Course) -> None:
    """Measure five iterations at 780 rows of 9 features, with degrees 3 and 5."""
    patients = framingham_like()
    repeats = 3 if course.options.quick else course.options.rounds or REPEATS
    for degree in (3, 5):
        model = course.model(iterations=5, degree=degree, where="client")
        fits = [course.trained(model, patients.rows, patients.labels) for _ in range(repeats)]
        course.note_costs(f"{patients.name}, 5 iterations, degree {degree}", fits)


def _ridge(course: _Course) -> None:
    """Compare ridge regression with scikit-learn's: by moments, and by iterations."""
    from sklearn.datasets import load_diabetes
    from sklearn.linear_model import Ridge as Reference

    rows, targets = load_diabetes(return_X_y=True)
    wanted = Reference(alpha=1.0).fit(rows, targets).coef_
    for solver in ("moments", "gradient"):
        model = Ridge(course.connection, alpha=1.0, solver=solver, where="client")
        HttpTrainer(course.connection).make_ready(model.request(rows, targets).task)
        start = time.perf_counter()
        model.fit(rows, targets)
        seconds = time.perf_counter() - start
        error = float(np.abs(model.coef_ - wanted).max() / np.abs(wanted).max())
        workload = f"ridge 442x10, {solver}"
        keys = keys_of(model)
        parameters = dict(keys.params.to_json())
        for metric, unit, value in (
            ("fit_seconds", "s", seconds),
            ("coefficient_error_vs_sklearn", "1", error),
            ("key_bytes", "bytes", keys.facts.key_bytes),
        ):
            course.note(workload, metric, unit, [value], parameters)
        course.console.print(
            f"{workload}: fit {format_seconds(seconds)}, coefficients off by {error:.1e} of the "
            f"largest, keys {format_bytes(keys.facts.key_bytes)}",
            highlight=False,
        )
        forget(course.connection, model.job_id_)


def _scaling(course: _Course) -> None:
    """Measure time against rows, features and iterations, one at a time."""
    quick = course.options.quick
    rows = (780, 2000, 4000) if quick else (780, 2000, 4000, 8000, 16000)
    features = (5, 9, 30) if quick else (5, 9, 19, 30, 60)
    iterations = (2, 3, 4) if quick else (2, 3, 4, 5, 6)
    points: list[tuple[str, int, Patients, dict[str, int]]] = [
        *(("rows", n, framingham_like(n), {}) for n in rows),
        *(("features", n, framingham_like(features=n), {}) for n in features),
        *(("iterations", n, framingham_like(), {"iterations": n}) for n in iterations),
    ]
    for axis, number, patients, params in points:
        model = course.model(where="client", **params)
        found = course.trained(model, patients.rows, patients.labels)
        course.note_costs(f"scaling, {axis} {number}", [found])


def _long_run(course: _Course) -> None:
    """Train with bootstraps."""
    patients = framingham_like()
    model = course.model(iterations=LONG_ITERATIONS, where="client")
    found = course.trained(model, patients.rows, patients.labels)
    course.note_costs(f"{patients.name}, {LONG_ITERATIONS} iterations", [found])
