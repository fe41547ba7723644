"""Limbs equal to OpenFHE's, operation by operation, level by level."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

pytest.importorskip("openfhe", reason="openfhe does not import here")

from tacit.circuit import Plain
from tacit.kernels.library import InstructionSet
from tacit.params import CryptoParams, Security
from tests.conformance.exchange import Exchange, make_exchange

# (log_n, depth, log_scale, log_first, dnum)
SETS = {
    "dnum1": (10, 3, 45, 55, 1),
    "dnum2": (11, 5, 40, 50, 2),
    "dnum3": (10, 7, 50, 60, 3),
    "dnum4": (10, 6, 30, 40, 4),
    "dnum8": (10, 7, 59, 60, 8),
    "edge49": (11, 4, 49, 51, 3),
}
STEPS = (1, 5, -3, 100)


@cache
def _exchange(name: str, instructions: InstructionSet) -> Exchange:
    params = CryptoParams.choose(*SETS[name], Security.UNCHECKED_INSECURE)
    corrected = name != "dnum3"
    return make_exchange(params, STEPS, instructions=instructions, correct_rotations=corrected)


@pytest.fixture(params=list(SETS))
def exchange(request: pytest.FixtureRequest, instructions: InstructionSet) -> Exchange:
    return _exchange(request.param, instructions)


def _operands(exchange: Exchange, level: int, count: int = 1) -> list[Any]:
    rng = np.random.default_rng(level)
    slots = exchange.params.slots
    return [exchange.encrypt(rng.uniform(-1, 1, slots), level) for _ in range(count)]


def _check(exchange: Exchange, expected: Any, found: Any) -> None:
    wanted = exchange.to_native(expected)
    assert (found.level, found.degree) == (wanted.level, wanted.degree)
    download = exchange.native_keys.download
    np.testing.assert_array_equal(download(found), download(wanted))


def test_sums_differences_and_negatives(exchange: Exchange) -> None:
    for level in range(exchange.params.depth + 1):
        a, b = _operands(exchange, level, 2)
        x, y = exchange.to_native(a), exchange.to_native(b)
        _check(exchange, exchange.openfhe.add(a, b), exchange.native.add(x, y))
        _check(exchange, exchange.openfhe.subtract(a, b), exchange.native.subtract(x, y))
        _check(exchange, exchange.openfhe.negate(a), exchange.native.negate(x))


def test_products_relinearised_and_rescaled(exchange: Exchange) -> None:
    for level in range(1, exchange.params.depth + 1):
        a, b = _operands(exchange, level, 2)
        x, y = exchange.to_native(a), exchange.to_native(b)
        product, found = exchange.openfhe.multiply(a, b), exchange.native.multiply(x, y)
        _check(exchange, product, found)
        _check(exchange, exchange.openfhe.multiply(a, a), exchange.native.multiply(x, x))
        _check(exchange, exchange.openfhe.rescale(product), exchange.native.rescale(found))


def test_rotations_one_by_one_and_hoisted(exchange: Exchange) -> None:
    for level in range(exchange.params.depth + 1):
        (a,) = _operands(exchange, level)
        x = exchange.to_native(a)
        for step in STEPS:
            _check(exchange, exchange.openfhe.rotate(a, step), exchange.native.rotate(x, step))
        if level:
            square, found = exchange.openfhe.multiply(a, a), exchange.native.multiply(x, x)
            _check(exchange, exchange.openfhe.rotate(square, 5), exchange.native.rotate(found, 5))
        hoisted = exchange.native.rotate_many(x, STEPS)
        for expected, found in zip(exchange.openfhe.rotate_many(a, STEPS), hoisted, strict=True):
            _check(exchange, expected, found)


def test_products_with_positive_constants_and_drops(exchange: Exchange) -> None:
    """OpenFHE rounds negative constants towards zero; positive ones, like us, to the nearest."""
    half = Plain("half", np.asarray(0.40625))
    for level in range(1, exchange.params.depth + 1):
        (a,) = _operands(exchange, level)
        x = exchange.to_native(a)
        expected = exchange.openfhe.multiply_plain(a, half)
        _check(exchange, expected, exchange.native.multiply_plain(x, half))
        for target in range(level):
            _check(exchange, exchange.openfhe.drop(a, target), exchange.native.drop(x, target))


def test_ciphertexts_change_backends_at_any_point(exchange: Exchange) -> None:
    a, b = _operands(exchange, exchange.params.depth, 2)
    x, y = exchange.to_native(a), exchange.to_native(b)
    one, other = exchange.openfhe, exchange.native
    pure = one.rescale(one.rotate(one.multiply(a, b), 5))
    there = exchange.to_openfhe(other.multiply(x, y))
    back = exchange.to_native(one.rotate(there, 5))
    _check(exchange, pure, other.rescale(back))
