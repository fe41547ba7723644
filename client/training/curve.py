"""The learning curve: what the decrypted validation scores say as training goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tacit.errors import UserError
from tacit.training import Algorithm

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One checkpoint: iterations so far, mean validation loss."""

    iteration: int
    loss: float


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """Validation loss against iterations.

    Attributes:
        points: in order of iterations.
    """

    points: tuple[CurvePoint, ...]

    def best(self) -> CurvePoint:
        """Return the point with the smallest loss.

        Raises:
            UserError: there was no validation.
        """
        if not self.points:
            raise UserError("no learning curve: fit with validation=0.2, or give validation rows")
        return min(self.points, key=lambda point: point.loss)

    def stalled(self, patience: int, tolerance: float) -> bool:
        """Tell whether the last `patience` points brought no improvement by `tolerance`."""
        losses = [point.loss for point in self.points]
        if len(losses) <= patience:
            return False
        return min(losses[-patience:]) > min(losses[:-patience]) - tolerance

    def plot(self, axes: Any = None) -> Any:
        """Draw it with matplotlib; returns the axes.

        Raises:
            UserError: matplotlib is not installed, or there was no validation.
        """
        self.best()
        try:
            from matplotlib import pyplot
        except ImportError as error:
            raise UserError("learning curves are drawn with matplotlib: install it") from error
        axes = axes if axes is not None else pyplot.figure().add_subplot()
        iterations = [point.iteration for point in self.points]
        axes.plot(iterations, [point.loss for point in self.points], "o-")
        axes.set_xlabel("iterations")
        axes.set_ylabel("validation loss")
        return axes


def mean_loss(margins: Floats, targets: Floats, algorithm: Algorithm) -> float:
    """Return the mean loss of margins, both of shape (rows, classes)."""
    if algorithm is Algorithm.LOGISTIC:
        return float(np.logaddexp(0.0, -targets * margins).mean())
    return float(0.5 * ((targets - margins) ** 2).mean())
