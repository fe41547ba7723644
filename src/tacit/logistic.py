"""Logistic regression as customers prepare it and servers compute it on encrypted rows.

The recipe: standardise, clip, and let the step length be 1 by scaling the rows, which each owner of
data does alone. Nesterov's momentum needs no schedule then. The sigmoid is a polynomial of odd
degree around 1/2, the least-squares fit on [-8, 8].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from tacit.errors import InputRangeError, InputShapeError

Floats = NDArray[np.float64]

CLIP = 4.0
ROW_SCALE = 4.0
"""Signed rows, times `row_factor`, are stored divided by it; the step length makes up for it."""
SIGMOID_RANGE = 8.0
_POINTS = 2001


def momenta(iterations: int) -> tuple[float, ...]:
    """Return m_t for each iteration: 0, 0, 0.28, 0.43, ...; Nesterov's sequence.

    The first two are 0: the first iteration begins at 0, and the second has moved once only.
    """
    found, now = [0.0], 1.0
    for _ in range(1, iterations):
        following = 0.5 * (1.0 + math.sqrt(1.0 + 4.0 * now * now))
        found.append((now - 1.0) / following)
        now = following
    return tuple(found)


@lru_cache
def odd_sigmoid(degree: int) -> Mapping[int, float]:
    """Return a_p of sigmoid(x) = 1/2 + sum of a_p x^p over odd p, fitted on [-8, 8]; read-only."""
    powers = range(1, degree + 1, 2)
    x = np.linspace(0.0, 1.0, _POINTS)
    basis = np.stack([x**p for p in powers], axis=1)
    wanted = 1.0 / (1.0 + np.exp(-SIGMOID_RANGE * x)) - 0.5
    found, *_ = np.linalg.lstsq(basis, wanted, rcond=None)
    return MappingProxyType(
        {p: float(a) / SIGMOID_RANGE**p for p, a in zip(powers, found, strict=True)}
    )


def approximate_sigmoid(x: Floats, degree: int) -> Floats:
    """Return 1/2 plus the odd polynomial."""
    odd = odd_sigmoid(degree)
    return np.asarray(0.5 + sum(a * x**p for p, a in odd.items()))


def train_in_clear(signed_rows: Floats, step: float, iterations: int, degree: int | None) -> Floats:
    """Run the encrypted algorithm on clear numbers.

    Args:
        signed_rows: shape (rows, features + 1), y_i (1, x_i).
        step: factor of the sum over rows.
        iterations: as in the circuit.
        degree: of the sigmoid's polynomial; None for the sigmoid itself.

    Returns:
        The weights, the constant's first.
    """
    weights: Floats = np.zeros(signed_rows.shape[1])
    before = weights
    for momentum in momenta(iterations):
        ahead = weights + momentum * (weights - before)
        margins = signed_rows @ ahead
        share = _sigmoid(-margins) if degree is None else approximate_sigmoid(-margins, degree)
        before, weights = weights, ahead + step * (share @ signed_rows)
    return weights


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))


@dataclass(frozen=True, slots=True, eq=False)
class Preparation:
    """What the owner of data does before encrypting rows and after decrypting weights.

    Features are centred, multiplied by a matrix and clipped to [-4, 4]. The matrix is diagonal
    (standardisation), or makes the features uncorrelated as well (whitening), with which fewer
    iterations do where features nearly repeat each other.

    Attributes:
        mean: of each feature, shape (features,).
        mixing: shape (features, features); zeros for constant features.
        row_factor: signed rows are multiplied by it, which makes the step length 1.
    """

    mean: Floats
    mixing: Floats
    row_factor: float

    @classmethod
    def of(cls, x: Floats, capacity: int, *, whiten: bool = False) -> Preparation:
        """Look at the data.

        Args:
            x: shape (rows, features), finite.
            capacity: rows that the training circuit takes.
            whiten: make features uncorrelated.

        Raises:
            InputShapeError: no rows, or more than fit.
            InputRangeError: a value is not finite.
        """
        if x.ndim != 2 or not 0 < len(x) <= capacity:
            raise InputShapeError(f"1 to {capacity} rows of features expected, got {x.shape}")
        if not np.all(np.isfinite(x)):
            raise InputRangeError("features must be finite: fill in missing values first")
        mean, deviation = x.mean(axis=0), x.std(axis=0)
        constant = deviation <= _CONSTANT * np.maximum(1.0, np.abs(x).max(axis=0))
        mixing = np.diag(np.where(constant, 0.0, 1.0 / np.where(constant, 1.0, deviation)))
        if whiten:
            mixing = mixing @ _whitening((x - mean) @ mixing)
        rows = cls(mean, mixing, 1.0).extended(x)
        curvature = 0.25 * float(np.linalg.eigvalsh(rows.T @ rows / len(x)).max())
        return cls(mean, mixing, math.sqrt(capacity / (curvature * len(x))))

    def extended(self, x: Floats) -> Floats:
        """Return (1, prepared features), shape (rows, features + 1)."""
        prepared = np.clip((x - self.mean) @ self.mixing, -CLIP, CLIP)
        return np.concatenate([np.ones((len(x), 1)), prepared], axis=1)

    def signed_rows(self, x: Floats, positive: NDArray[np.bool_]) -> Floats:
        """Return what is encrypted, shape (rows, features + 1).

        Args:
            x: shape (rows, features).
            positive: shape (rows,), the class.
        """
        signs = np.where(positive, 1.0, -1.0)[:, None]
        return np.asarray(self.extended(x) * signs * (self.row_factor / ROW_SCALE))

    def prepared_weights(self, received: Floats) -> Floats:
        """Return weights for `extended` rows from those of the training circuit."""
        return np.asarray(received * (SIGMOID_RANGE * self.row_factor / ROW_SCALE))

    def weights(self, received: Floats) -> tuple[Floats, float]:
        """Return coefficients and intercept for features as they came, clipping left out."""
        prepared = self.prepared_weights(received)
        coefficients = self.mixing @ prepared[1:]
        return coefficients, float(prepared[0] - coefficients @ self.mean)


_CONSTANT = 1e-12
_FLOOR = 1e-2


def _whitening(x: Floats) -> Floats:
    """Return a matrix that makes standardised features uncorrelated; small variances stay small."""
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    floor = _FLOOR * float(values.max(initial=0.0)) or 1.0
    return np.asarray(vectors / np.sqrt(np.maximum(values, floor)))
