"""Four hospitals, one process each: from the invitation to one model trained on all their rows."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tacit.client.training.preprocessing import Preprocessing
from tacit.client.training.requests import TrainingRequest
from tacit.client.training.stored import StoredUnits
from tacit.kernels.build import build_if_stale
from tacit.training import Algorithm, TrainingTask
from tacit.training_clear import train_task_in_clear
from tests.e2e.processes import server_process, start

Floats = NDArray[np.float64]

HOSPITALS = ["cleveland", "budapest", "zurich", "long beach"]
ROWS = (30, 25, 10, 15)
TASK = TrainingTask(Algorithm.LOGISTIC, 100, 3, iterations=3, parties=4)
PATIENCE = 280.0


def tables() -> list[tuple[Floats, Floats]]:
    """Rows and classes of each hospital; their patients differ in the mean."""
    rng = np.random.default_rng(11)
    made = []
    for number, rows in enumerate(ROWS):
        x = np.clip(rng.normal(0.3 * number, 1.0 + 0.2 * number, (rows, TASK.features)), -7, 7)
        x[rng.uniform(size=x.shape) < 0.1] = np.nan
        scores = np.nan_to_num(x) @ np.array([1.0, -2.0, 0.5]) + rng.normal(size=rows)
        made.append((x, (scores > 0).astype(np.float64)))
    return made


def in_clear(made: list[tuple[Floats, Floats]]) -> tuple[Floats, Preprocessing]:
    """The same training on the pooled rows, by one who sees everything."""
    x = np.concatenate([x for x, _ in made])
    positive = np.concatenate([y for _, y in made]) > 0
    mean, deviation = np.nanmean(x, axis=0), np.nanstd(x, axis=0)
    preprocessing = Preprocessing(mean, mean, np.diag(1.0 / deviation), 4.0)
    rows = preprocessing.prepare(x)
    targets = np.where(positive, 1.0, -1.0)[:, None]
    request = TrainingRequest(TASK, rows, targets)
    units = StoredUnits.of(request)
    stored = train_task_in_clear(TASK, units.rows(request))[-1]
    return units.weights(TASK, stored)[:, 0], preprocessing


def test_four_hospitals_train_one_model_that_nobody_could_read_alone(tmp_path: Path) -> None:
    if not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")
    made = tables()
    for name, (x, y) in zip(HOSPITALS, made, strict=True):
        np.save(tmp_path / f"{name}.npy", x)
        np.save(tmp_path / f"{name}.labels.npy", y)
    columns = [f"x{i},-8,8\n" for i in range(TASK.features)]
    (tmp_path / "columns.csv").write_text("".join(columns))
    (tmp_path / "models").mkdir()
    with server_process("serve_joint_training.py", tmp_path / "models") as (_, ports):
        session = {
            "url": f"http://127.0.0.1:{ports.http}",
            "rows": TASK.rows,
            "iterations": TASK.iterations,
            "names": HOSPITALS,
        }
        (tmp_path / "session.json").write_text(json.dumps(session))
        hospitals = [start("hospital.py", str(tmp_path), name) for name in HOSPITALS]
        try:
            codes = [hospital.wait(PATIENCE) for hospital in hospitals]
        finally:
            end(hospitals)
    assert codes == [0, 0, 0, 0]
    learnt = [json.loads((tmp_path / f"{name}.json").read_text()) for name in HOSPITALS]
    wanted, preprocessing = in_clear(made)
    for found in learnt:
        # The terms leave 14 bits, six deviations, to stored weights, which are at most four times
        # smaller than these: an error of 40 deviations is 2^-9.
        assert np.abs(np.array(found["prepared"]) - wanted).max() < 2.0**-9
        mean = np.array(found["preprocessing"]["mean"])
        assert np.abs(mean - preprocessing.mean).max() < 1e-6
    histories = [history(tmp_path / name) for name in HOSPITALS]
    assert len(histories[0]) > 40
    assert all(other == histories[0] for other in histories)
    secrets = [(tmp_path / name / "secret.key").read_bytes() for name in HOSPITALS]
    assert len(set(secrets)) == 4


def history(folder: Path) -> dict[str, bytes]:
    """The signed entries that a hospital keeps."""
    return {path.name: path.read_bytes() for path in (folder / "entries").iterdir()}


def end(processes: list[subprocess.Popen[str]]) -> None:
    """Leave no process and no pipe behind."""
    for process in processes:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
