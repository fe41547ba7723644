"""Parts of question `training` on rows that a server trains on: accuracy, time, scaling, errors."""

from __future__ import annotations

import statistics
import time

import numpy as np

from bench.report import format_bytes, format_seconds
from bench.task import Array
from bench.training_course import Course
from bench.training_fits import forget, keys_of
from bench.training_sets import Labels, Patients, framingham_like, sets
from tacit.client.training.linear_models import Ridge

REPEATS, QUICK_REPEATS = 5, 3
LONG_ITERATIONS = 32
LARGEST_AUC_LOSS, LARGEST_ACCURACY_LOSS = 0.005, 0.01
LARGEST_FIT_SECONDS, LARGEST_KEY_BYTES = 15.0, 500e6


def accuracy(course: Course) -> None:
    """Compare with scikit-learn over five folds, with the one preset."""
    if course.options.heart is None:
        course.say("heart cleveland, heart pooled skipped: give --heart DIR")
    for patients in sets(course.options.heart):
        _folds(course, patients)
        course.save()


def _folds(course: Course, patients: Patients) -> None:
    fits, auc, lost = [], [], []
    for train, test in patients.folds():
        rows, labels = patients.rows[train], patients.labels[train]
        found = course.trained(course.model(), rows, labels)
        fits.append(found)
        seen, right = patients.rows[test], patients.labels[test]
        ours = found.model.decision_function(seen)
        theirs = _reference(rows, labels, seen)
        auc.append(_auc(right, theirs) - _auc(right, ours))
        lost.append(_accuracy(right, theirs) - _accuracy(right, ours))
    # Means over the folds: a record's `value` is a median, so each fold has a record, too.
    for metric, losses, largest in (
        ("auc_loss_vs_sklearn", auc, LARGEST_AUC_LOSS),
        ("accuracy_loss_vs_sklearn", lost, LARGEST_ACCURACY_LOSS),
    ):
        mean = float(np.mean(losses))
        course.note(patients.name, f"{metric}_by_fold", "1", losses, fits[0].parameters)
        course.note(patients.name, metric, "1", [mean], fits[0].parameters)
        course.say(f"{patients.name}: {metric} {mean:+.4f}")
        course.limit(patients.name, metric, mean, largest)
    course.note_costs(patients.name, fits)


def _reference(rows: Array, labels: Labels, seen: Array) -> Array:
    """Return the scores of scikit-learn's logistic regression on standardised rows."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression as Reference
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    clear = make_pipeline(SimpleImputer(), StandardScaler(), Reference(max_iter=5000))
    return np.asarray(clear.fit(rows, labels).decision_function(seen))


def _auc(right: Labels, scores: Array) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(right, scores))


def _accuracy(right: Labels, scores: Array) -> float:
    return float(np.mean((scores > 0.0) == (right > 0)))


def times(course: Course) -> None:
    """Measure five iterations at 780 rows of 9 features, with degrees 3 and 5."""
    patients = framingham_like()
    repeats = QUICK_REPEATS if course.options.quick else course.options.rounds or REPEATS
    for degree in (3, 5):
        workload = f"{patients.name}, 5 iterations, degree {degree}"
        model = course.model(iterations=5, degree=degree, where="client")
        cold = course.ready(model, patients.rows, patients.labels)
        fits = [course.trained(model, patients.rows, patients.labels) for _ in range(repeats)]
        parameters = fits[0].parameters
        course.note(workload, "compile_seconds", "s", [cold.compile_seconds], parameters)
        course.note(workload, "key_seconds", "s", [cold.key_seconds], parameters)
        course.say(
            f"{workload}: once, compiled in {format_seconds(cold.compile_seconds)}, keys made and "
            f"uploaded in {format_seconds(cold.key_seconds)}"
        )
        course.note_costs(workload, fits)
        usual = statistics.median(f.fit_seconds for f in fits)
        course.limit(workload, "fit_seconds", usual, LARGEST_FIT_SECONDS)
        course.limit(workload, "key_bytes", fits[0].key_bytes, LARGEST_KEY_BYTES)
        course.save()


def ridge(course: Course) -> None:
    """Compare ridge regression with scikit-learn's: by moments, and by iterations."""
    from sklearn.datasets import load_diabetes
    from sklearn.linear_model import Ridge as Reference

    rows, targets = load_diabetes(return_X_y=True)
    wanted = Reference(alpha=1.0).fit(rows, targets).coef_
    for solver in ("moments", "gradient"):
        model = Ridge(course.connection, alpha=1.0, solver=solver, where="client")
        course.ready(model, rows, targets)
        start = time.perf_counter()
        model.fit(rows, targets)
        seconds = time.perf_counter() - start
        error = float(np.abs(model.coef_ - wanted).max() / np.abs(wanted).max())
        workload, keys = f"ridge 442x10, {solver}", keys_of(model)
        parameters = dict(keys.params.to_json())
        course.note(workload, "fit_seconds", "s", [seconds], parameters)
        course.note(workload, "coefficient_error_vs_sklearn", "1", [error], parameters)
        course.note(workload, "key_bytes", "bytes", [float(keys.facts.key_bytes)], parameters)
        course.say(
            f"{workload}: fit {format_seconds(seconds)}, coefficients off by {error:.1e} of the "
            f"largest, keys {format_bytes(keys.facts.key_bytes)}"
        )
        forget(course.connection, model.job_id_)


def scaling(course: Course) -> None:
    """Measure time against rows, features and iterations, one at a time."""
    quick = course.options.quick
    rows = (780, 2000, 4000) if quick else (780, 4000, 8000, 16000)
    features = (5, 9, 30) if quick else (5, 9, 30, 60)
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
        course.save()


def long_run(course: Course) -> None:
    """Train with bootstraps."""
    patients = framingham_like()
    model = course.model(iterations=LONG_ITERATIONS, where="client")
    found = course.trained(model, patients.rows, patients.labels)
    course.note_costs(f"{patients.name}, {LONG_ITERATIONS} iterations", [found])
