"""Composite signs: their error, what they cost, and the safety of every stage."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.polynomial import chebyshev

from tacit.errors import CircuitError
from tacit.model_compiler.composite import (
    SIGN_DEGREES,
    STAGE_SLACK,
    best_margin,
    composite_sign,
    relu_loss,
    search_degree_sets,
)

# Degrees of the stages, levels with one more for degrees 2^k - 1 counted as OpenFHE's call needs
# them, and -log2 of the greatest error of relu on [-1, 1].
TABLE = {
    (7,): 4.8,
    (15,): 5.9,
    (27,): 6.5,
    (7, 7): 7.0,
    (7, 15): 7.8,
    (15, 15): 8.8,
    (15, 27): 9.8,
    (7, 15, 13): 11.0,
    (7, 15, 27): 12.0,
    (15, 15, 27): 13.1,
    (15, 27, 29): 14.0,
}


@pytest.mark.parametrize(("degrees", "bits"), TABLE.items(), ids=str)
def test_the_known_sets_of_degrees_reach_their_known_error(
    degrees: tuple[int, ...], bits: float
) -> None:
    loss = relu_loss(best_margin(degrees, relu_loss))
    assert -np.log2(loss) >= bits - 0.06


@pytest.mark.parametrize("bits_of_margin", [4, 6, 8, 9])
def test_beyond_the_margin_the_sign_is_as_good_as_promised(bits_of_margin: int) -> None:
    sign = composite_sign((15, 15, 27), 2.0**-bits_of_margin)
    x = np.concatenate([np.linspace(sign.margin, 1.0, 30001), np.geomspace(sign.margin, 1, 30001)])
    assert np.abs(sign(x) - 1.0).max() <= sign.error * (1.0 + 1e-6) + 1e-12
    assert np.array_equal(sign(-x), -sign(x))


def test_smaller_margins_cost_accuracy_as_tabulated() -> None:
    """Outside 2^-6, 2^-8, 2^-9, 2^-10 the sign of [15, 15, 27] errs by 2^-50, -24, -13, -7."""
    errors = [composite_sign((15, 15, 27), 2.0**-k).error for k in (6, 8, 9, 10)]
    bits = [-np.log2(max(error, 1e-13)) for error in errors]
    assert bits[0] >= 40
    assert bits[1] >= 23.5
    assert bits[2] >= 12.9
    assert bits[3] >= 6.9


@pytest.mark.parametrize("levels", SIGN_DEGREES)
def test_no_stage_can_leave_the_next_ones_domain(levels: int) -> None:
    sign = best_margin(SIGN_DEGREES[levels], relu_loss)
    x = np.linspace(-1.0, 1.0, 20001)
    for stage in sign.stages[:-1]:
        x = chebyshev.chebval(x, stage)
        assert np.abs(x).max() <= 1.0 - 0.4 * STAGE_SLACK
    assert np.abs(chebyshev.chebval(x, sign.stages[-1])).max() <= 1.0 + sign.error + 1e-9


@pytest.mark.parametrize("levels", SIGN_DEGREES)
def test_the_table_uses_the_levels_it_says(levels: int) -> None:
    sign = best_margin(SIGN_DEGREES[levels], relu_loss)
    assert sign.levels == levels
    assert sign.degrees == SIGN_DEGREES[levels]


@pytest.mark.parametrize("levels", [2, 3, 4, 5, 6, 7, 8])
def test_the_table_is_what_the_search_finds(levels: int) -> None:
    assert search_degree_sets(levels) == SIGN_DEGREES[levels]


@pytest.mark.slow
def test_a_longer_row_of_the_table_is_what_the_search_finds() -> None:
    assert search_degree_sets(10) == SIGN_DEGREES[10]


def test_every_level_more_is_more_accurate() -> None:
    losses = [relu_loss(best_margin(degrees, relu_loss)) for degrees in SIGN_DEGREES.values()]
    assert all(better < 0.9 * worse for worse, better in itertools.pairwise(losses))
    assert -np.log2(losses[-1]) >= 15.0


@pytest.mark.parametrize(("degrees", "margin"), [((), 0.1), ((7,), 0.0), ((7,), 1.0), ((4,), 0.1)])
def test_impossible_compositions_are_refused(degrees: tuple[int, ...], margin: float) -> None:
    with pytest.raises(CircuitError):
        composite_sign(degrees, margin)
