"""The estimators against a server that trains, with small insecure parameters."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tacit
from tacit.client.cli import main
from tacit.client.cli_serve import compile_training
from tacit.client.training.job import TrainingJob
from tacit.client.training.simulated import SimulatedTrainer
from tacit.errors import KeyFileError, ReleaseError, ServiceError
from tacit.kernels.build import build_if_stale
from tacit.runtime.options import ServerOptions
from tacit.runtime.server import ServerHandle
from tests.client.training.tables import numbers, patients

Floats = NDArray[np.float64]
# The rings have a scale of 2^-45 and 2^10 coefficients, so errors of 2^-30 in stored values; a
# weight is up to 16 stored ones, and iterations amplify them a little: far above the noise.
BOUND = 1e-4


@pytest.fixture(scope="module")
def connection(
    training_server: ServerHandle, tmp_path_factory: pytest.TempPathFactory
) -> tacit.Connection:
    folder = tmp_path_factory.mktemp("keys")
    url = f"http://127.0.0.1:{training_server.ports.http}"
    return tacit.Connection(url, key_dir=folder, allow_insecure=True)


def twin(model: Any, x: Floats, y: Any) -> Floats:
    """Weights of the same algorithm on clear numbers."""
    remote = SimulatedTrainer(noise=0.0).start(model.request(x, y), lambda job, memory: None)
    while not remote.status().state.ended:
        pass
    return remote.weights()


def test_two_classes_are_trained_and_predicted_encrypted(connection: tacit.Connection) -> None:
    x, y = patients(90, 5)
    words = np.array(["healthy", "ill"])[y]
    model = tacit.LogisticRegression(connection, validation=0.2).fit(x, words)
    encrypted = model.decision_function(x)
    points = model.learning_curve_.points
    assert [point.iteration for point in points] == [1, 2, 3, 4]
    clear = tacit.LogisticRegression(simulate=True, validation=0.2).fit(x, words)
    for point, wanted in zip(points, clear.learning_curve_.points, strict=True):
        assert point.loss == pytest.approx(wanted.loss, abs=BOUND)
    model.download()
    assert model.weights_ == pytest.approx(twin(model, x, words), abs=BOUND)
    assert encrypted == pytest.approx(model.decision_function(x), abs=10 * BOUND)
    assert set(model.predict(x)) == {"healthy", "ill"}


def test_three_classes_share_one_job(connection: tacit.Connection) -> None:
    x, y = patients(80, 3, classes=3)
    model = tacit.LogisticRegression(connection, iterations=2).fit(x, y)
    encrypted = model.decision_function(x)
    assert encrypted.shape == (80, 3)
    assert model.download().weights_ == pytest.approx(twin(model, x, y), abs=BOUND)
    assert encrypted == pytest.approx(model.decision_function(x), abs=10 * BOUND)


@pytest.mark.parametrize(("solver", "alpha"), [("moments", 2.0), ("gradient", 2.0)])
def test_ridge_is_scikit_learns(solver: str, alpha: float, connection: tacit.Connection) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model", reason="extra `demo` not installed")
    x, y = numbers(60, 3)
    model = tacit.Ridge(connection, alpha=alpha, solver=solver, iterations=6).fit(x, y)
    reference = linear_model.Ridge(alpha=alpha).fit(x, y)
    assert model.predict(x) == pytest.approx(reference.predict(x), abs=1e-3 * np.ptp(y))
    size = np.abs(reference.coef_).max()
    assert model.download().coef_ == pytest.approx(reference.coef_, abs=2e-3 * size)


def test_a_job_is_found_again_by_another_program(connection: tacit.Connection) -> None:
    x, y = patients(60, 4)
    share = np.float64(0.3)  # as a search over a grid sets it
    job = tacit.LogisticRegression(connection, iterations=2, validation=share, verbose=True).fit(
        x, y, wait=False
    )
    assert isinstance(job, TrainingJob)
    record = connection.trainings / f"{job.id}.training"
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    found = tacit.LogisticRegression.attach(connection, job.id).result(timeout=300.0)
    ours = job.result(timeout=300.0)
    assert found.iterations == 2
    np.testing.assert_array_equal(found.classes_, ours.classes_)
    assert found.decision_function(x) == pytest.approx(ours.decision_function(x), abs=10 * BOUND)
    assert len(found.learning_curve_.points) == 2
    with pytest.raises(ServiceError):
        tacit.LogisticRegression.attach(connection, job.id).resume()
    with pytest.raises(KeyFileError, match="no record of job"):
        tacit.LogisticRegression.attach(connection, "0123")


def test_released_weights_are_counted_under_their_key(connection: tacit.Connection) -> None:
    x, y = patients(60, 4)
    model = tacit.LogisticRegression(connection, iterations=2).fit(x, y)
    policy = tacit.ReleasePolicy(budget=2, least_bits=0.0)
    before = None
    for count in (1, 2):
        shared = model.release(policy)
        assert shared.count == count
        assert before is None or not np.array_equal(shared.coef, before)
        before = shared.coef
    with pytest.raises(ReleaseError, match="2 of 2 results"):
        model.release(policy)
    assert (connection.directory / "releases" / f"{model._fitted_remote().key_id}.json").exists()


def test_the_command_line_trains_predicts_and_exports(
    connection: tacit.Connection, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x, y = patients(70, 3)
    lines = ["age,pressure,sugar,disease"]
    cells = [[f"{v:.6f}" for v in row] for row in x]
    cells[3][1] = "?"
    lines += [
        ",".join([*row, "yes" if label else "no"]) for row, label in zip(cells, y, strict=True)
    ]
    table = tmp_path / "patients.csv"
    table.write_text("\n".join(lines) + "\n")
    common = ["--key-dir", str(connection.directory), "--allow-insecure", "--quiet"]
    fit = ["train", "fit", connection.url, str(table), "--target", "disease", "--iterations", "2"]
    assert main([*fit, *common]) == 2  # a value is missing
    capsys.readouterr()
    curve = ["--validation", "0.3", "--curve", str(tmp_path / "curve.png")]
    assert (
        main([*fit, "--missing", "mean", *curve, "--out", str(tmp_path / "w.onnx"), *common]) == 0
    )
    said = capsys.readouterr().out
    assert "70 rows of 3 columns were sent encrypted" in said
    assert "validation loss" in said
    job = said.split()[1].rstrip(":")
    assert (tmp_path / "curve.png").stat().st_size > 1000
    assert main(["train", "status", connection.url, job, *common]) == 0
    assert "done: 2 of 2" in capsys.readouterr().out
    out = tmp_path / "risk.csv"
    assert (
        main(["train", "predict", connection.url, job, str(table), "--out", str(out), *common]) == 0
    )
    risk = np.loadtxt(out, delimiter=",", skiprows=1)
    assert out.read_text().startswith("probability of no,probability of yes")
    assert risk.shape == (70, 2)
    weights = tmp_path / "w.json"
    assert main(["train", "download", connection.url, job, "--out", str(weights), *common]) == 0
    found = json.loads(weights.read_text())
    filled = np.where(np.arange(70)[:, None] == 3, np.nan, x)
    clear = 1 / (1 + np.exp(-(x @ np.array(found["coef"][0]) + found["intercept"][0])))
    inner = (np.abs(x - x.mean(0)) < 2.5 * x.std(0)).all(axis=1) & ~np.isnan(filled).any(axis=1)
    assert risk[inner, 1] == pytest.approx(clear[inner], abs=1e-3)


def test_ridge_by_moments_is_exact_at_128_bits_and_may_be_released(tmp_path: Path) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model", reason="extra `demo` not installed")
    if not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")
    x, y = numbers(700, 5)
    (tmp_path / "models").mkdir()
    serving = ServerOptions(compile_training=compile_training)
    with ServerHandle(tmp_path / "models", serving) as handle:
        url = f"http://127.0.0.1:{handle.ports.http}"
        connection = tacit.Connection(url, key_dir=tmp_path / "keys")
        model = tacit.Ridge(connection, alpha=3.0).fit(x, y)
        reference = linear_model.Ridge(alpha=3.0).fit(x, y)
        size = np.abs(reference.coef_).max()
        # Measured 6e-9; fresh noise at this scale is below 2^-27 of a column's largest value.
        assert model.coef_ == pytest.approx(reference.coef_, abs=1e-5 * size)
        shared = model.release()
        assert (shared.count, shared.budget) == (1, 128)
        assert shared.coef == pytest.approx(model.coef_, abs=0.5 * size)
        assert not np.array_equal(shared.coef, model.coef_)


@pytest.mark.slow
def test_a_precise_training_may_be_released_at_128_bits(tmp_path: Path) -> None:
    if not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")
    x, y = patients(200, 5)
    (tmp_path / "models").mkdir()
    serving = ServerOptions(compile_training=compile_training)
    with ServerHandle(tmp_path / "models", serving) as handle:
        url = f"http://127.0.0.1:{handle.ports.http}"
        model = tacit.LogisticRegression(
            tacit.Connection(url, key_dir=tmp_path / "keys"), iterations=2, weight_bits=28
        ).fit(x, y)
        shared = model.release()
        assert (shared.count, shared.budget) == (1, 128)
        model.download()
        size = np.abs(model.coef_).max()
        assert shared.coef == pytest.approx(model.coef_, abs=0.2 * size)
        assert not np.array_equal(shared.coef, model.coef_)
        assert model.weights_ == pytest.approx(twin(model, x, y), abs=2.0**-20)
