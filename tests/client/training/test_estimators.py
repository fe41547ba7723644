"""The estimators against scikit-learn and against the algorithm in the clear, simulated."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import tacit
from tacit.client.training.curve import CurvePoint, LearningCurve
from tacit.client.training.job import TrainingJob
from tacit.client.training.preprocessing import Preprocessing
from tacit.errors import LabelError, NotTrainedError, ServiceError, TrainingRowsError, UserError
from tacit.training import JobState
from tests.client.training.tables import numbers, patients

linear_model = pytest.importorskip("sklearn.linear_model", reason="extra `demo` not installed")


def simulated(**params: Any) -> tacit.LogisticRegression:
    return tacit.LogisticRegression(simulate=True, **params)


def test_many_iterations_reach_scikit_learns_maximum_of_the_likelihood() -> None:
    x, y = patients(400, 3)
    ours = simulated(iterations=200, clip=30.0, whiten=1.0).fit(x, y)
    reference = linear_model.LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000)
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    reference.fit(scaled, y)
    # The sigmoid's polynomial of degree 5 is off by up to 0.06, hence the weights, too.
    expected = reference.decision_function(scaled)
    found = ours.decision_function(x)
    assert np.corrcoef(found, expected)[0, 1] > 0.999
    assert np.mean((found > 0) == (expected > 0)) > 0.98


def test_labels_of_any_kind_are_mapped_to_classes() -> None:
    x, y = patients()
    words = np.array(["healthy", "ill"])[y]
    model = simulated().fit(x, words)
    assert list(model.classes_) == ["healthy", "ill"]
    assert set(model.predict(x)) == {"healthy", "ill"}
    assert model.score(x, words) > 0.8
    probabilities = model.predict_proba(x)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(len(x)))
    ill = probabilities[:, 1] > 0.5
    assert np.mean(ill == (model.predict(x) == "ill")) > 0.99


def test_more_than_two_classes_are_one_against_the_rest() -> None:
    x, y = patients(400, 4, classes=3)
    model = simulated(iterations=8).fit(x, y).download()
    assert model.decision_function(x).shape == (400, 3)
    assert model.predict_proba(x).sum(axis=1) == pytest.approx(np.ones(400))
    assert model.coef_.shape == (3, 4)
    for label, column in enumerate(model.decision_function(x).T):
        one = simulated(iterations=8).fit(x, y == label)
        assert column == pytest.approx(one.decision_function(x), abs=1e-3)
    assert model.score(x, y) > 0.85


def test_weights_are_encrypted_until_they_are_downloaded() -> None:
    x, y = patients()
    model = simulated(clip=50.0).fit(x, y)
    with pytest.raises(NotTrainedError, match="download"):
        _ = model.coef_
    encrypted = model.decision_function(x)
    model.download()
    assert model.decision_function(x) == pytest.approx(encrypted, abs=1e-4)
    by_hand = x @ model.coef_[0] + model.intercept_[0]
    assert by_hand == pytest.approx(model.decision_function(x), abs=1e-9)
    assert not np.array_equal(encrypted, model.decision_function(x))


@pytest.mark.parametrize("alpha", [0.01, 1.0, 300.0])
@pytest.mark.parametrize("solver", ["moments", "gradient"])
def test_ridge_is_scikit_learns(alpha: float, solver: str) -> None:
    x, y = numbers()
    ours = tacit.Ridge(simulate=True, alpha=alpha, solver=solver).fit(x, y).download()
    reference = linear_model.Ridge(alpha=alpha).fit(x, y)
    size = np.abs(reference.coef_).max()
    assert ours.coef_ == pytest.approx(reference.coef_, abs=1e-3 * size)
    assert ours.predict(x) == pytest.approx(reference.predict(x), abs=1e-3 * np.ptp(y))
    assert ours.score(x, y) == pytest.approx(reference.score(x, y), abs=1e-5)


@pytest.mark.parametrize("solver", ["moments", "gradient"])
def test_linear_regression_is_scikit_learns(solver: str) -> None:
    x, y = numbers()
    ours = tacit.LinearRegression(simulate=True, solver=solver).fit(x, y).download()
    reference = linear_model.LinearRegression().fit(x, y)
    assert ours.coef_ == pytest.approx(reference.coef_, abs=1e-2)
    assert ours.predict(x) == pytest.approx(reference.predict(x), abs=1e-3 * np.ptp(y))
    assert ours.predict(x) == pytest.approx(x @ ours.coef_ + ours.intercept_, abs=1e-6)


def test_missing_values_are_filled_in_with_training_means() -> None:
    x, y = patients()
    holed = x.copy()
    holed[np.random.default_rng(3).random(x.shape) < 0.1] = np.nan
    with pytest.raises(TrainingRowsError, match=r"NaN.*missing='mean'"):
        simulated().fit(holed, y)
    model = simulated(missing="mean").fit(holed, y).download()
    filled = np.where(np.isnan(holed), np.nanmean(holed, axis=0), holed)
    assert model.decision_function(holed) == pytest.approx(model.decision_function(filled))
    assert model.score(holed, y) > 0.75


def test_what_cannot_be_trained_on_is_refused_by_name() -> None:
    x, y = patients()
    still = x.copy()
    still[:, 2] = 7.0
    with pytest.raises(TrainingRowsError, match=r"column\(s\) 2 are constant"):
        simulated().fit(still, y)
    assert simulated(constant="ignore").fit(still, y).download().coef_[0, 2] == 0.0
    with pytest.raises(LabelError, match="one class"):
        simulated().fit(x, np.ones(len(x)))
    with pytest.raises(LabelError, match="continuous"):
        simulated().fit(x, x[:, 0])
    with pytest.raises(LabelError, match="300 rows and 299 labels"):
        simulated().fit(x, y[1:])
    empty = x.copy()
    empty[:, 1] = np.nan
    with pytest.raises(TrainingRowsError, match="missing values only"):
        simulated(missing="mean").fit(empty, y)


def test_more_rows_than_fit_are_refused_before_anything_is_sent() -> None:
    from tacit.client.training.requests import TrainingRequest
    from tacit.client.training.simulated import SimulatedTrainer
    from tacit.training import Algorithm, TrainingTask

    request = TrainingRequest(
        TrainingTask(Algorithm.LOGISTIC, 100, 3), np.ones((100, 4)), np.ones((100, 1))
    )
    with pytest.raises(TrainingRowsError, match="at most 50 rows"):
        SimulatedTrainer(capacity=200).start(request, lambda job, memory: None)


@pytest.mark.parametrize(
    "params",
    [
        {"iterations": 0},
        {"degree": 4},
        {"missing": "zero"},
        {"where": "nowhere"},
        {"validation": 1.0},
        {"clip": 0.0},
    ],
)
def test_parameters_out_of_range_are_refused(params: dict[str, Any]) -> None:
    x, y = patients(30)
    with pytest.raises(UserError, match=next(iter(params))):
        simulated(**params).fit(x, y)


def test_a_model_without_a_server_says_what_to_do() -> None:
    with pytest.raises(UserError, match="simulate=True"):
        tacit.LogisticRegression().fit(*patients(30))


def test_the_learning_curve_shows_validation_loss() -> None:
    x, y = patients(500)
    model = simulated(iterations=8, validation=0.3).fit(x, y)
    curve = model.learning_curve_
    assert [point.iteration for point in curve.points] == list(range(1, 9))
    assert curve.best().loss < curve.points[0].loss < np.log(2.0)
    sparse = simulated(iterations=8, validation=0.3, validate_every=3).fit(x, y)
    assert [point.iteration for point in sparse.learning_curve_.points] == [3, 6]


def test_the_curve_is_drawn() -> None:
    import matplotlib as mpl

    mpl.use("agg")
    x, y = patients(500)
    axes = simulated(validation=0.3).fit(x, y).learning_curve_.plot()
    assert axes.get_xlabel() == "iterations"
    assert len(axes.lines[0].get_xdata()) == 4


def test_training_stops_when_validation_no_longer_improves() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 20))
    y = rng.random(60) < 0.5  # nothing to learn: the loss grows from the beginning
    model = simulated(iterations=40, validation=0.4, early_stopping=3).fit(x, y)
    assert model.n_iter_ <= 10
    best = model.learning_curve_.best().iteration
    assert model.n_iter_ == best
    again = simulated(iterations=40, validation=0.4).fit(x, y)
    assert again.n_iter_ == 40


def test_where_training_stops_does_not_depend_on_when_one_looks() -> None:
    points = tuple(CurvePoint(i, loss) for i, loss in enumerate((9.0, 7.0, 8.0, 7.5, 1.0, 0.5), 1))
    curve = LearningCurve(points)
    stalled = curve.until_stalled(2, 1e-4)
    assert stalled is not None
    assert stalled.points == points[:4]
    assert curve.until_stalled(3, 1e-4) is None
    assert LearningCurve(points[:3]).until_stalled(2, 1e-4) is None


def test_a_job_that_was_done_when_first_looked_at_keeps_the_same_weights() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(60, 20)), rng.random(60) < 0.5
    params = {"iterations": 12, "validation": 0.4, "early_stopping": 3}
    job = simulated(**params).fit(x, y, wait=False)
    assert isinstance(job, TrainingJob)
    remote = job._course.remote
    while not remote.status().state.ended:
        pass
    late = job.result()
    watched = simulated(**params).fit(x, y)
    assert late.n_iter_ == watched.n_iter_ == job.stopped_early
    assert late.n_iter_ < 12


def test_a_job_that_stopped_early_goes_on_to_the_end_if_it_is_resumed() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(60, 20)), rng.random(60) < 0.5
    job = simulated(iterations=12, validation=0.4, early_stopping=3).fit(x, y, wait=False)
    assert isinstance(job, TrainingJob)
    assert job.result().n_iter_ < 12
    job.resume()
    assert job.result().n_iter_ == 12


def test_validation_that_would_be_ignored_is_refused() -> None:
    x, y = numbers()
    with pytest.raises(UserError, match="looks at validation rows"):
        simulated(early_stopping=2).fit(x, y > 0)
    with pytest.raises(UserError, match="solver='gradient'"):
        tacit.Ridge(simulate=True, validation=0.2).fit(x, y)


def test_a_job_is_watched_cancelled_and_resumed() -> None:
    x, y = patients()
    job = simulated(iterations=10).fit(x, y, wait=False)
    assert isinstance(job, TrainingJob)
    first = job.progress()
    assert (first.state, first.done, first.of) == (JobState.RUNNING, 1, 10)
    job.cancel()
    with pytest.raises(ServiceError, match="was cancelled after 1 of 10 iterations"):
        job.result()
    job.resume()
    model = job.result()
    assert model.n_iter_ == 10
    straight = simulated(iterations=10).fit(x, y)
    assert model.decision_function(x) == pytest.approx(straight.decision_function(x), abs=1e-4)


def test_preprocessing_comes_back_from_json() -> None:
    x, _ = patients()
    made = Preprocessing.of(x, clip=3.0, whiten=0.5)
    again = Preprocessing.from_json(json.loads(json.dumps(made.to_json())))
    np.testing.assert_array_equal(made.prepare(x), again.prepare(x))


def test_whitening_makes_features_uncorrelated() -> None:
    x, _ = patients(2000, 4)
    x[:, 1] = x[:, 0] + 0.2 * x[:, 1]
    for whiten, bound in ((0.0, 1.0), (1.0, 1e-9)):
        inner = Preprocessing.of(x, clip=np.inf, whiten=whiten).prepare(x)[:, 1:]
        covariance = inner.T @ inner / len(inner)
        off = np.abs(covariance - np.diag(np.diag(covariance))).max()
        assert off < bound
        assert (off > 0.5) == (whiten == 0.0)


def test_parameters_are_scikit_learns() -> None:
    from sklearn.base import clone
    from sklearn.model_selection import cross_val_score

    model = simulated(iterations=3)
    assert clone(model).get_params() == model.get_params()
    assert repr(model) == "LogisticRegression(iterations=3, simulate=True)"
    with pytest.raises(UserError, match="Invalid parameter 'steps'"):
        model.set_params(steps=3)
    assert cross_val_score(model, *patients(), cv=3).mean() > 0.7


def test_secrets_of_the_connection_are_not_shown() -> None:
    connection = tacit.Connection("http://localhost:1", token="tok-en", passphrase="pass-word")
    shown = repr(tacit.LogisticRegression(connection))
    assert "localhost" in shown
    assert "tok-en" not in shown
    assert "pass-word" not in shown


def test_a_fitted_model_is_pickled() -> None:
    x, y = patients()
    model = simulated().fit(x, y).download()
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


def test_importing_tacit_loads_neither_scikit_learn_nor_openfhe() -> None:
    program = (
        "import sys, numpy as np, tacit\n"
        "x = np.random.default_rng(0).normal(size=(50, 3))\n"
        "tacit.LogisticRegression(simulate=True).fit(x, x[:, 0] > 0).predict(x)\n"
        "found = {'sklearn', 'openfhe', 'onnx', 'matplotlib'} & set(sys.modules)\n"
        "assert not found, found\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
