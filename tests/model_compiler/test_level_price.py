"""The price of levels, against the ring that each depth needs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from tacit.model_compiler.choose_params import secure_params
from tacit.model_compiler.level_price import level_price


@pytest.mark.parametrize("bits", [8.0, 16.0, 24.0])
def test_each_level_costs_more(bits: float) -> None:
    prices = [level_price(depth, bits) for depth in range(1, 30)]
    assert all(low < high or high == np.inf for low, high in pairwise(prices))
    assert prices[0] < np.inf


def test_more_precision_never_costs_less() -> None:
    for depth in range(1, 25):
        prices = [level_price(depth, bits) for bits in (8.0, 12.0, 16.0, 20.0, 24.0)]
        assert prices == sorted(prices)


def test_the_step_to_a_larger_ring_doubles_the_price() -> None:
    """Depths 1 to 25 pass through several rings; within one, a level costs less than half again."""
    steps = [level_price(d + 1, 16.0) / level_price(d, 16.0) for d in range(4, 20)]
    jumps = [step for step in steps if step > 2.0]
    assert 1 <= len(jumps) <= 3
    assert all(step < 1.5 for step in steps if step not in jumps)


def test_depths_beyond_every_ring_have_no_price() -> None:
    assert level_price(200, 16.0) == np.inf
    assert not list(secure_params(16, 200))
