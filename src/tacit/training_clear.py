"""The clear twin of every training: the same algorithm, with the same numbers, in numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tacit.errors import ParameterError
from tacit.logistic import ROW_SCALE, approximate_sigmoid, momenta
from tacit.training import Algorithm, TrainingTask

Floats = NDArray[np.float64]


def step_length(task: TrainingTask, batches: int, iteration: int) -> float:
    """Return k: the factor of the sum over the rows of a batch, for weights stored over R.

    Rows scaled by `row_factor / ROW_SCALE` make it one over the loss's curvature; R is
    `task.margin_scale`.

    Args:
        task: what is trained.
        batches: mini-batches.
        iteration: from 1.
    """
    rows = task.rows / batches
    whole = ROW_SCALE**2 / (task.margin_scale * rows)
    return whole / (1.0 + task.step_decay * (iteration - 1))


def train_task_in_clear(
    task: TrainingTask, rows: Floats, labels: Floats | None = None, batches: int = 1
) -> list[Floats]:
    """Run the encrypted algorithm on clear numbers.

    Args:
        task: what is trained, by the gradient method.
        rows: shape (rows, features + 1), stored, in the order of their numbers.
        labels: shape (rows, classes), stored; None where rows are signed.
        batches: of the compiled plan.

    Returns:
        After each iteration the stored weights, shape (classes, features + 1).

    Raises:
        ParameterError: a task without iterations, or labels missing.
    """
    if task.algorithm is Algorithm.MOMENTS or (labels is None) is task.labelled:
        raise ParameterError("a task with iterations is needed, and labels exactly if labelled")
    dealt = np.arange(len(rows)) % batches
    keep = np.full(task.features + 1, 1.0 - task.decay)
    keep[0] = 1.0
    weights: Floats = np.zeros((task.classes, task.features + 1))
    before, found = weights, []
    for index, momentum in enumerate(momenta(task.iterations)):
        chosen = dealt == index % batches
        part, targets = rows[chosen], None if labels is None else labels[chosen]
        ahead = weights + momentum * (weights - before)
        share = _shares(task, part @ ahead.T * task.margin_scale, targets)
        gradient = step_length(task, batches, index + 1) * (share.T @ part)
        before, weights = weights, keep * ahead + gradient
        found.append(weights)
    return found


def _shares(task: TrainingTask, margins: Floats, targets: Floats | None) -> Floats:
    """Return how far each row is from its target."""
    if targets is None:
        return approximate_sigmoid(-margins, task.degree)
    if task.algorithm is Algorithm.LINEAR:
        return targets - margins
    return targets - approximate_sigmoid(margins, task.degree)
