"""How errors run through polynomials, point by point.

The greatest slope of a polynomial says too much where the values are elsewhere: 1 / x is steep at
the end of its domain, a composite sign in its first stage near 0. So a polynomial, and a chain of
them, is followed on values that its argument takes. Where x is multiplied by a sign of x, the steep
part meets a small x, and nothing is left of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from tacit.model_compiler.graph import Node, Polynomial

Floats = NDArray[np.float64]

# Chains are judged by all but this share of the values: near a jump, a value is undecided, and
# noise moves the jump by its own size.
_UNDECIDED: Final = 0.02
_POINTS: Final = 1001


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """A value as a function of a source in [-1, 1], and its error, on points of the source.

    Attributes:
        source: identity of the source.
        points: of the source, shape (points,).
        values: the function there.
        gain: square of the factor on an error of the source.
        added: variance added on the way.
        observed: whether the points are values that occur, rather than the whole domain.
    """

    source: object
    points: Floats
    values: Floats
    gain: Floats
    added: Floats
    observed: bool

    @classmethod
    def start(cls, source: object, samples: Floats | None) -> Course:
        """Begin at a source, on values it takes or, unknown, all over [-1, 1]."""
        even: Floats = np.linspace(-1.0, 1.0, _POINTS, dtype=np.float64)
        points = even if samples is None else samples
        ones, zeros = np.ones(points.size), np.zeros(points.size)
        return cls(source, points, points, ones, zeros, samples is not None)

    def through(self, coefficients: Floats, inner: float, outer: float) -> Course:
        """Apply a polynomial; variances `inner` and `outer` are added before and after."""
        slope = chebyshev.chebval(self.values, chebyshev.chebder(coefficients)) ** 2
        return Course(
            self.source,
            self.points,
            np.asarray(chebyshev.chebval(self.values, coefficients)),
            np.asarray(slope * self.gain),
            np.asarray(slope * (self.added + inner) + outer),
            self.observed,
        )

    @property
    def typical(self) -> tuple[float, float]:
        """Gain and added variance, but for the undecided share of the values."""
        return _most(self.gain), _most(self.added)

    @property
    def magnitude(self) -> float:
        """Greatest |value|; 1 where it is not known which values occur."""
        return float(np.abs(self.values).max()) if self.observed else 1.0

    def times_source(self) -> tuple[float, float]:
        """Return gain and added variance of the product with the source."""
        x = np.abs(self.points)
        gain = (x * np.sqrt(self.gain) + np.abs(self.values)) ** 2
        return float(gain.max()), float((x**2 * self.added).max())


def samples_of(nodes: Iterable[Node]) -> dict[bytes, Floats]:
    """Return what polynomials read on the calibration rows, by `key_of` their coefficients."""
    return {
        key_of(node.coefficients): node.samples
        for node in nodes
        if isinstance(node, Polynomial) and node.samples is not None
    }


def key_of(coefficients: Floats) -> bytes:
    """Identify a polynomial by its coefficients to nine digits."""
    trimmed = np.trim_zeros(np.round(coefficients, 9) + 0.0, "b")
    return bytes(np.ascontiguousarray(trimmed).tobytes())


def _most(values: Floats) -> float:
    return float(np.quantile(values, 1.0 - _UNDECIDED))
