"""Early stopping and the learning curve: a server process, ciphertexts, `tacit train`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import tacit
from tacit.client.cli import main
from tacit.client.training.http_trainer import service_of
from tacit.client.training.simulated import SimulatedTrainer
from tacit.kernels.build import build_if_stale
from tacit.training import JobState
from tests.e2e.processes import server_process

Floats = NDArray[np.float64]
ITERATIONS, PATIENCE = 7, 2
# As in test_estimators_over_http: far above the noise of these rings.
BOUND = 1e-4


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tacit.Connection]:
    """A server that begins an iteration only when the margins before it were read."""
    if not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")
    root, keys = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("keys")
    with server_process("serve_training.py", root, "lockstep") as (_, ports):
        url = f"http://127.0.0.1:{ports.http}"
        yield tacit.Connection(url, key_dir=keys, allow_insecure=True)


def overlearnt() -> tuple[Floats, NDArray[np.bool_]]:
    """Few rows with much chance in their labels: after two iterations the loss grows again."""
    rng = np.random.default_rng(102)
    x = rng.normal(size=(60, 6))
    return x, 1.2 * x[:, 0] + 2.0 * rng.normal(size=60) > 0


def losses_in_clear(x: Floats, y: NDArray[np.bool_]) -> Floats:
    """The whole curve, computed by one who sees everything, without stopping."""
    model = tacit.LogisticRegression(simulate=True, iterations=ITERATIONS, validation=0.4)
    return np.array([point.loss for point in model.fit(x, y).learning_curve_.points])


def first_stall(losses: Floats) -> int:
    """Return how many points there are when the last two are no better than those before."""
    for end in range(PATIENCE + 1, len(losses) + 1):
        if losses[end - PATIENCE : end].min() > losses[: end - PATIENCE].min() - 1e-4:
            return end
    raise AssertionError


def test_encrypted_validation_ends_a_training_that_no_longer_improves(
    connection: tacit.Connection,
) -> None:
    x, y = overlearnt()
    clear = losses_in_clear(x, y)
    stall = first_stall(clear)
    assert stall == 4
    # The margins by which losses differ where the rule looks: noise must not decide it.
    assert np.abs(np.diff(clear[:stall])).min() > 10 * BOUND
    model = tacit.LogisticRegression(
        connection, iterations=ITERATIONS, validation=0.4, early_stopping=PATIENCE
    )
    job = model.fit(x, y, wait=False)
    job.result(timeout=600.0)
    points = job.curve.points
    assert [point.iteration for point in points] == list(range(1, stall + 1))
    assert np.array([p.loss for p in points]) == pytest.approx(clear[:stall], abs=BOUND)
    best = 1 + int(np.argmin(clear[:stall]))
    assert best == 2
    assert (model.n_iter_, job.stopped_early) == (best, best)
    with service_of(connection) as service:
        status = service.status(job.id)
    assert status.state is JobState.CANCELLED
    assert stall <= status.done <= stall + 1
    twin = SimulatedTrainer(noise=0.0).start(model.request(x, y), lambda job, memory: None)
    while not twin.status().state.ended:
        pass
    assert model.download().weights_ == pytest.approx(twin.weights(best), abs=BOUND)
    again = tacit.LogisticRegression.attach(connection, job.id).result(timeout=600.0)
    assert again.n_iter_ == best
    axes = model.learning_curve_.plot(kept=model.n_iter_)
    drawn, kept = axes.lines
    assert np.asarray(drawn.get_ydata()) == pytest.approx(clear[:stall], abs=BOUND)
    assert list(kept.get_xdata()) == [best, best]


def test_the_command_line_stops_early_and_draws_the_curve(
    connection: tacit.Connection, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x, y = overlearnt()
    table = np.column_stack([x, y])
    names = ",".join([*(f"x{i}" for i in range(x.shape[1])), "ill"])
    path = tmp_path / "rows.csv"
    np.savetxt(path, table, delimiter=",", header=names, comments="")
    common = ["--key-dir", str(connection.directory), "--allow-insecure", "--quiet"]
    asked = ["train", "fit", connection.url, str(path), "--target", "ill"]
    curve = ["--curve", str(tmp_path / "curve.png")]
    assert main([*asked, *curve, *common]) == 2
    assert "--validation 0.2" in capsys.readouterr().err
    assert main([*asked, "--early-stopping", "2", *common]) == 2
    assert "validation=0.2" in capsys.readouterr().err
    stopping = ["--iterations", str(ITERATIONS), "--validation", "0.4", "--early-stopping", "2"]
    assert main([*asked, *stopping, *curve, *common]) == 0
    said = capsys.readouterr().out
    best = 1 + int(np.argmin(losses_in_clear(x, y)))
    assert f"stopped early: the weights after {best} iterations are kept" in said
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    job = said.split()[1].rstrip(":")
    out, later = tmp_path / "w.json", tmp_path / "later.png"
    download = ["train", "download", connection.url, job, "--out", str(out)]
    assert main([*download, "--curve", str(later), *common]) == 0
    assert later.read_bytes().startswith(b"\x89PNG")
    assert f"trained, {best} iterations" in capsys.readouterr().out
