"""Bootstrapping, step by step: slots to coefficients, a larger modulus, slots again, a function.

Slots go to coefficients first, at the lowest levels, where it is cheap; real slots then fill half
of the coefficients, so that one evaluation of the periodic function serves them all. With an
encapsulated secret the modulus is raised under a sparse key, which exists at the modulus q_0 p only
(Bossuat, Troncoso-Pastoriza and Hubaux 2022).

Both backends run these steps, so one list of keys, and one meaning, serves them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tacit.bootstrap import Bootstrap
from tacit.bootstrap_levels import exponential, raised_level
from tacit.chebyshev import SumOfProducts, chebyshev_by_powers, polynomial_by_powers
from tacit.circuit import C, Evaluator, LinearPlan
from tacit.fourier import complex_series
from tacit.params import CryptoParams
from tacit.slot_matrices import Stage, coefficients_to_slots, slots_to_coefficients
from tacit.type_rules import bootstrapped_type

Floats = NDArray[np.float64]


class ComplexEvaluator(Evaluator[C], Protocol[C]):
    """What the steps ask of a backend: complex constants, and the two operations of their own.

    Scalars and rows given to `add_plain`, `multiply_plain` and `linear` may be complex.
    """

    @property
    def params(self) -> CryptoParams:
        """The parameters."""
        ...

    @property
    def fused(self) -> SumOfProducts[C] | None:
        """How to add up products of ciphertexts, None for one by one."""
        ...

    def conjugate(self, a: C) -> C:
        """Take the complex conjugate of every slot."""
        ...

    def raised(self, a: C, level: int) -> C:
        """Take coefficients at level 0 as integers: the same plus multiples of q_0, at `level`."""
        ...


def bootstrap(ev: ComplexEvaluator[C], a: C, plan: Bootstrap, constants: Mapping[str, Floats]) -> C:
    """Refresh a ciphertext and apply a function to its slots.

    Args:
        ev: with keys for rotations, conjugation, relinearisation, and those to and from the sparse
            secret if it is encapsulated.
        a: degree 1, at level `plan.to_coefficients` or above.
        plan: what to do.
        constants: holds the series.

    Raises:
        UnknownKeyError: a key is missing.
        LevelError: the input's level is too low, or the parameters have too few levels.
    """
    at = ev.type_of(a)
    bootstrapped_type(at, plan)
    series = complex_series(constants[plan.series])
    top = raised_level(ev.params, plan, len(series) - 1)
    if at.level > plan.to_coefficients:
        a = ev.drop(a, plan.to_coefficients)
    inside = _through(ev, a, first_stages(ev.params, plan))
    fractions = to_slots(ev, ev.raised(inside, top), plan)
    z = unit_circle(ev, fractions, plan)
    half = polynomial_by_powers(ev, z, series / 2.0, key=plan.series, fused=ev.fused)
    return ev.add(half, ev.conjugate(half))


def to_slots(ev: ComplexEvaluator[C], a: C, plan: Bootstrap) -> C:
    """Bring coefficients to slots, in units of q_0 and of the bound; real ones only."""
    slots = ev.params.slots
    repeats = slots >> plan.log_slots
    for i in range(1, repeats.bit_length()):  # the part in X^repeats, times `repeats`
        a = ev.add(a, ev.rotate(a, slots >> i))
    half = _through(ev, a, last_stages(ev.params, plan, ev.type_of(a).level))
    return ev.add(half, ev.conjugate(half))


def unit_circle(ev: ComplexEvaluator[C], a: C, plan: Bootstrap) -> C:
    """Return exp(2 pi i t) for slots t / bound."""
    how = exponential(ev.params, plan.period)
    key = f"exp/{how.bound}/{how.doublings}"
    z = chebyshev_by_powers(ev, a, how.coefficients, key=key, fused=ev.fused)
    for _ in range(how.doublings):
        z = ev.rescale(ev.multiply(z, z))
    return z


def first_stages(params: CryptoParams, plan: Bootstrap) -> tuple[Stage, ...]:
    """Return the matrices from slots to coefficients, from level `plan.to_coefficients` down."""
    factor = params.moduli[0] / (plan.period * params.scale(0))
    repeats = params.slots >> plan.log_slots
    return slots_to_coefficients(plan.log_slots, plan.to_coefficients, factor, repeats)


def last_stages(params: CryptoParams, plan: Bootstrap, top: int) -> tuple[Stage, ...]:
    """Return the matrices from coefficients to slots, from level `top` down."""
    bound = exponential(params, plan.period).bound
    repeats = params.slots >> plan.log_slots
    factor = params.scale(top) / (2.0 * params.moduli[0] * bound * repeats)
    return coefficients_to_slots(plan.log_slots, plan.to_slots, factor, repeats)


def every_stage(
    params: CryptoParams, plan: Bootstrap, series: Floats
) -> Iterator[tuple[LinearPlan, Floats, int]]:
    """Yield each matrix of a bootstrap: its plan, rows and the level of what it is applied to.

    Rows are complex numbers, which encoders take for what they are.

    Raises:
        LevelError: the parameters have too few levels.
    """
    top = raised_level(params, plan, series.shape[1] - 1)
    low = plan.to_coefficients
    for level, stages in (
        (low, first_stages(params, plan)),
        (top, last_stages(params, plan, top)),
    ):
        for down, stage in enumerate(stages):
            yield stage.plan, stage.rows, level - down  # type: ignore[misc]


def _through(ev: ComplexEvaluator[C], a: C, stages: Sequence[Stage]) -> C:
    for stage in stages:
        rows = {stage.plan.diagonals: stage.rows}
        a = ev.linear([a], stage.plan, rows)[0]  # type: ignore[arg-type]
    return a
