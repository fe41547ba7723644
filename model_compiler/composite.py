"""The sign function as a composition of odd minimax polynomials.

p_k(...p_1(x)) is close to sign(x) for margin <= |x| <= 1: each stage brings the values closer to -1
and 1, and the next starts from where they then lie (Lee, Lee, No, Kim, "Minimax approximation of
sign function by composite polynomial", IEEE TDSC 2022). A stage's outputs are divided by slightly
more than its greatest value, so that neither its error nor encryption noise can push a value out of
the next stage's domain.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from tacit.errors import CircuitError
from tacit.model_compiler.minimax import odd_minimax
from tacit.model_compiler.polynomial_cost import polynomial_levels, polynomial_products

Floats = NDArray[np.float64]
Degrees = tuple[int, ...]

# Room above a stage's greatest value: encryption noise between stages stays far below it.
STAGE_SLACK: Final = 2.0**-12
# log2 of 1 / margin that are considered, as multiples of a quarter.
_STEP: Final = 0.25
_FINEST: Final = 60
_BOUNDED: Final = 1e-9

# The degrees with the least greatest error of relu at each number of levels of the sign; what
# `search_degree_sets` finds among stages of 2 to 5 levels.
SIGN_DEGREES: Final = MappingProxyType(
    {
        2: (3,),
        3: (7,),
        4: (15,),
        5: (31,),
        6: (7, 7),
        7: (7, 15),
        8: (15, 15),
        9: (15, 31),
        10: (31, 31),
        11: (7, 7, 31),
        12: (7, 15, 31),
        13: (15, 15, 31),
        14: (15, 31, 31),
        15: (31, 31, 31),
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class CompositeSign:
    """Odd polynomials whose composition is close to sign(x) on [-1, 1].

    Attributes:
        stages: Chebyshev coefficients on [-1, 1] of each stage; all but the last map [-1, 1] into
            itself, the last stays within `error` of [-1, 1].
        margin: beyond it, |composition - sign(x)| is at most `error`; up to it, in between.
        error: see `margin`.
    """

    stages: tuple[Floats, ...]
    margin: float
    error: float

    def __call__(self, x: Floats) -> Floats:
        """Evaluate the composition, any shape."""
        value = np.asarray(x, dtype=np.float64)
        for coefficients in self.stages:
            value = np.asarray(chebyshev.chebval(value, coefficients))
        return value

    @property
    def degrees(self) -> Degrees:
        """Degree of each stage."""
        return tuple(int(stage.size) - 1 for stage in self.stages)

    @property
    def levels(self) -> int:
        """Levels that the stages use."""
        return sum(map(polynomial_levels, self.stages))

    @property
    def products(self) -> int:
        """Products of two ciphertexts that the stages use."""
        return sum(map(polynomial_products, self.stages))


@lru_cache(maxsize=1024)
def composite_sign(degrees: Degrees, margin: float) -> CompositeSign:
    """Compose minimax polynomials.

    Args:
        degrees: odd degree of each stage; one is lowered where its interval is so narrow that
            rounding would spoil the polynomial outside.
        margin: distance from 0 beyond which the result must be close to the sign, below 1.

    Raises:
        CircuitError: no degree, an even one, or a margin outside (0, 1).
    """
    if not degrees or not 0.0 < margin < 1.0:
        raise CircuitError(f"a composite sign needs degrees and a margin in (0, 1), got {margin}")
    stages: list[Floats] = []
    low, error = margin, 0.0
    for position, degree in enumerate(degrees):
        coefficients, error = _stage(low, degree)
        if position < len(degrees) - 1:
            size = 1.0 + error + STAGE_SLACK
            coefficients, low = coefficients / size, (1.0 - error) / size
        stages.append(coefficients)
    return CompositeSign(tuple(stages), margin, error)


def margins() -> Floats:
    """Return the margins worth trying: powers of 2 with exponents in steps of a quarter."""
    return np.asarray(2.0 ** (-_STEP * np.arange(2, _FINEST)))


def best_margin(degrees: Degrees, loss: Callable[[CompositeSign], float]) -> CompositeSign:
    """Return the composition with the margin that loses least.

    Args:
        degrees: odd degree of each stage.
        loss: to minimise; has one valley along the margins, up to ripples.
    """
    found = margins()
    losses: dict[int, float] = {}

    def at(index: int) -> float:
        if index not in losses:
            losses[index] = loss(composite_sign(degrees, float(found[index])))
        return losses[index]

    coarse = min(range(0, found.size, 6), key=at)
    near = range(max(0, coarse - 5), min(found.size, coarse + 6))
    return composite_sign(degrees, float(found[min(near, key=at)]))


def relu_loss(composite: CompositeSign) -> float:
    """Return the greatest error of x (1 + sign) / 2 on [-1, 1]."""
    x = _points()
    return float(np.abs(x * (1.0 - composite(x)) / 2.0).max())


def search_degree_sets(levels: int, stages: tuple[int, ...] = (3, 7, 15, 31)) -> Degrees:
    """Find the degrees with the least `relu_loss` among those that use so many levels.

    Of equal loss (within 2 %) the set with fewer products is taken.

    Args:
        levels: of the sign; the product with x comes on top.
        stages: degrees to combine.
    """
    sets = list(_degree_sets(levels, stages))
    best = {degrees: best_margin(degrees, relu_loss) for degrees in sets}
    losses = {degrees: relu_loss(composite) for degrees, composite in best.items()}
    least = min(losses.values())
    close = [degrees for degrees in sets if losses[degrees] <= 1.02 * least]
    return min(close, key=lambda degrees: (best[degrees].products, losses[degrees]))


def _degree_sets(levels: int, stages: tuple[int, ...]) -> Iterator[Degrees]:
    """List the ways to spend exactly `levels` on stages; any order."""
    costs = {degree: int(degree).bit_length() for degree in stages}
    for count in range(1, levels + 1):
        for degrees in itertools.product(stages, repeat=count):
            if sum(costs[degree] for degree in degrees) == levels:
                yield degrees


@lru_cache(maxsize=1)
def _points() -> Floats:
    """Return points of [0, 1], dense near 0."""
    near, even = np.geomspace(2.0**-18, 1.0, 4000), np.linspace(0.0, 1.0, 2000)
    return np.asarray(np.unique(np.concatenate([near, even])), dtype=np.float64)


@lru_cache(maxsize=4096)
def _stage(low: float, degree: int) -> tuple[Floats, float]:
    """Return a stage's coefficients and error; of a lower degree where rounding spoils it."""
    grid = np.linspace(0.0, 1.0, 1001, dtype=np.float64)
    while True:
        found = odd_minimax(low, 1.0, degree)
        with np.errstate(over="ignore", invalid="ignore"):
            greatest = float(np.abs(found(grid)).max())
        if greatest <= 1.0 + found.error + _BOUNDED:
            return found.coefficients, found.error
        if degree == 1:
            raise CircuitError(f"no polynomial for the sign on [{low}, 1]")
        degree -= 2
