"""How far weights trained on ciphertexts are from those of the clear twin, predicted by a run.

The training's own circuits run on drawn rows with the noise of encryption. Rows are as large as
prepared ones are, and whitened, which makes the factor from stored weights to the customer's the
largest there is.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tacit.circuit import execute
from tacit.logistic import CLIP, ROW_SCALE
from tacit.model_compiler.noisy_run import Noisy, NoisyRun
from tacit.model_compiler.training_geometry import Geometry
from tacit.model_compiler.training_schedule import Circuits, Placed
from tacit.params import CryptoParams
from tacit.precision import DECRYPTION_FACTOR
from tacit.training import Algorithm, TrainingTask
from tacit.training_clear import train_task_in_clear

Floats = NDArray[np.float64]

_MOST_CIPHERTEXTS = 2
_SAFETY = 2.0
_STEEPNESS = 1.5
# With fewer, rows can be told apart whatever their classes, and weights grow without bound.
_ROWS_PER_FEATURE = 20


def weight_error(params: CryptoParams, circuits: Circuits) -> float:
    """Return the greatest error of a weight for prepared rows, with a factor 2 in hand.

    Args:
        params: the parameters.
        circuits: of the training; of large ones the run has fewer rows, of whose number errors
            hardly depend, as shares and their errors are averaged.
    """
    small = _smaller(circuits)
    task = small.geometry.task
    rows, labels = _drawn(task)
    (weights,) = train_task_in_clear(task, rows, labels, small.geometry.batches)[-1]
    found = _run(params, small, rows, labels)
    curvature = 1.0 if task.algorithm is Algorithm.LINEAR else 0.25
    factor = task.margin_scale / (ROW_SCALE * math.sqrt(curvature))
    error = np.abs(found[: task.features + 1] - weights)
    return _SAFETY * DECRYPTION_FACTOR * factor * float(np.max(error))


def _smaller(circuits: Circuits) -> Circuits:
    """Return the same training of one class on fewer rows, without validation."""
    task, slots = circuits.geometry.task, circuits.geometry.slots
    most = _MOST_CIPHERTEXTS * slots // task.width
    rows = min(task.rows, most)
    task = replace(
        task,
        rows=rows,
        batch_rows=min(task.batch_rows, rows),
        classes=1,
        validation_rows=0,
        validation_every=0,
    )
    return replace(circuits, geometry=Geometry(task, slots))


def _drawn(task: TrainingTask) -> tuple[Floats, Floats | None]:
    random = np.random.default_rng(0)
    x = np.clip(random.normal(size=(task.rows, task.features)), -CLIP, CLIP)
    x[:, max(1, task.rows // _ROWS_PER_FEATURE) :] = 0.0
    direction = random.normal(size=task.features)
    scores = _STEEPNESS * x @ direction / math.sqrt(task.features)
    scores += random.logistic(size=task.rows)
    extended = np.concatenate([np.ones((task.rows, 1)), x], axis=1)
    curvature = 1.0 if task.algorithm is Algorithm.LINEAR else 0.25
    rows = extended / (ROW_SCALE * math.sqrt(curvature * _largest(extended)))
    if task.algorithm is Algorithm.LINEAR:
        return rows, np.clip(scores[:, None] / 16.0, -0.5, 0.5)
    return rows * np.where(scores > 0.0, 1.0, -1.0)[:, None], None


def _largest(rows: Floats) -> float:
    return float(np.linalg.eigvalsh(rows.T @ rows / len(rows)).max())


def _run(params: CryptoParams, circuits: Circuits, rows: Floats, labels: Floats | None) -> Floats:
    """Run all steps; returns the weights, the mean of all blocks."""
    evaluator = NoisyRun(params)
    geometry, level = circuits.geometry, circuits.levels.upload
    placed = [_encrypted(evaluator, geometry, rows, level)]
    if labels is not None:
        placed.append(_encrypted(evaluator, geometry, labels, level))
    state: list[Noisy] = []
    for step in circuits.steps:
        inputs = state
        if step.iteration:
            part = _batch(geometry, step)
            inputs = [c for values in placed for c in values[part]] + state
        state = execute(circuits.circuit(step).circuit, inputs, evaluator)
    return np.asarray(state[-1].values.reshape(-1, geometry.task.width).mean(axis=0))


def _batch(geometry: Geometry, step: Placed) -> slice:
    size = geometry.batch_ciphertexts
    first = (step.iteration - 1) % geometry.batches * size
    return slice(first, first + size)


def _encrypted(evaluator: NoisyRun, geometry: Geometry, values: Floats, level: int) -> list[Noisy]:
    layout = geometry.layout(geometry.ciphertexts)
    numbers = np.arange(len(values))
    per_batch = layout.size // geometry.batches
    placed = np.zeros((layout.size, values.shape[1]))
    placed[numbers % geometry.batches * per_batch + numbers // geometry.batches] = values
    return [evaluator.encrypt(vector, level) for vector in layout.pack(placed.T)]
