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

    def until_stalled(self, patience: int, tolerance: float) -> LearningCurve | None:
        """Return the curve up to where `patience` points in a row first improved by nothing.

        It does not matter how many points came after that, so slow customers stop at the same one.

        Args:
            patience: how many points, 1 or more.
            tolerance: improvements of the loss below this count for nothing.

        Returns:
            None if that has not happened.
        """
        losses = [point.loss for point in self.points]
        for end in range(patience + 1, len(losses) + 1):
            if min(losses[end - patience : end]) > min(losses[: end - patience]) - tolerance:
                return LearningCurve(self.points[:end])
        return None

    def plot(self, axes: Any = None, kept: int | None = None) -> Any:
        """Draw it with matplotlib; returns the axes.

        Args:
            axes: where to draw; a new figure by default.
            kept: iterations behind the weights that are kept, to be marked.

        Raises:
            UserError: matplotlib is not installed, or there was no validation.
        """
        self.best()
        pyplot = plotting()
        axes = axes if axes is not None else pyplot.figure().add_subplot()
        iterations = [point.iteration for point in self.points]
        axes.plot(iterations, [point.loss for point in self.points], "o-")
        if kept is not None:
            axes.axvline(kept, linestyle=":", color="grey", label="weights that are kept")
            axes.legend()
        axes.set_xlabel("iterations")
        axes.set_ylabel("validation loss")
        return axes


def plotting() -> Any:
    """Return matplotlib's pyplot.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise UserError("learning curves are drawn with matplotlib: install it") from error
    return pyplot


def mean_loss(margins: Floats, targets: Floats, algorithm: Algorithm) -> float:
    """Return the mean loss of margins, both of shape (rows, classes)."""
    if algorithm is Algorithm.LOGISTIC:
        return float(np.logaddexp(0.0, -targets * margins).mean())
    return float(0.5 * ((targets - margins) ** 2).mean())
