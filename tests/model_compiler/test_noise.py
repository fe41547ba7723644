"""Predicted errors of linear transforms, against the same transform rotation by rotation."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tacit.circuit import LinearPlan, LinearTerm, ValueType
from tacit.decompose import linear_by_rotations
from tacit.model_compiler.noise import NoiseModel, Uncertain
from tacit.packed_rows import PackedRows, pack_rows, rotated
from tacit.params import CryptoParams, Security

Floats = NDArray[np.float64]
SLOTS = 512


def _plan(random: np.random.Generator, repeat: int, in_sequence: bool) -> LinearPlan:
    giants = [0, 48, 96, 144] if not in_sequence else [-48, 0, 48, 96]
    steps = [(giant, baby) for giant in giants for baby in (0, 1, 5, 40)]
    terms = [
        LinearTerm(output, source, giant * repeat, baby * repeat, 0)
        for output in range(2)
        for source in range(2)
        for giant, baby in steps
        if random.random() < 0.7 or (giant, baby) == steps[0]
    ]
    numbered = tuple(
        LinearTerm(t.output, t.input, t.giant, t.baby, row) for row, t in enumerate(terms)
    )
    folds = (64 * repeat, 32 * repeat)
    return LinearPlan(2, numbered, "rows", "bias", folds, (), in_sequence)


def _packed(random: np.random.Generator, plan: LinearPlan, length: int, repeat: int) -> PackedRows:
    shape = (len(plan.terms), length // 2)
    places = np.divmod(np.arange(shape[0] * shape[1]), shape[1])
    rows = pack_rows(places, random.choice([-0.5, 0.25, 1.0], shape[0] * shape[1]), shape, length)
    return rotated(rows, np.array([t.giant // repeat for t in plan.terms]), length)


@pytest.mark.parametrize("packed", [False, True], ids=["array", "packed"])
@pytest.mark.parametrize("in_sequence", [False, True], ids=["apart", "in sequence"])
@pytest.mark.parametrize("repeat", [1, 4])
def test_errors_of_a_linear_transform_are_those_of_its_rotations(
    packed: bool, in_sequence: bool, repeat: int
) -> None:
    random = np.random.default_rng(repeat + 2 * in_sequence)
    params = CryptoParams.choose(10, 3, 30, 36, 2, Security.UNCHECKED_INSECURE)
    plan = _plan(random, repeat, in_sequence)
    length = SLOTS // repeat
    rows = random.normal(size=(len(plan.terms), length))
    constants: dict[str, Floats] = {
        "rows": _packed(random, plan, length, repeat) if packed else rows,  # type: ignore[dict-item]
        "bias": random.normal(size=(2, length)),
    }
    model = NoiseModel(params)
    inputs = [
        Uncertain(ValueType(2), 1e-12 * random.uniform(size=SLOTS)),
        Uncertain(ValueType(2), np.asarray(3e-13)),
    ]
    expected = linear_by_rotations(model, inputs, plan, constants)
    found = model.linear(inputs, plan, constants)
    assert [value.type for value in found] == [value.type for value in expected]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours.variance, theirs.variance, rtol=1e-12)
