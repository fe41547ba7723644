"""Limbs equal to OpenFHE's: every number of digits, level and kind of secret, backends mixed.

Rotations are OpenFHE's own here, without the correction that our backends add.
"""

from __future__ import annotations

from collections.abc import Callable
from ctypes import CDLL
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest

pytest.importorskip("openfhe", reason="openfhe does not import here")

import openfhe

from tacit.kernels import elementwise
from tacit.kernels.cpu_kernels import CpuKernels
from tacit.kernels.library import InstructionSet, available
from tacit.openfhe_context import template_from_context
from tacit.params import CryptoParams, SecretDistribution, Security
from tacit.runtime.backends.native import NativeEvaluator
from tacit.runtime.backends.native_engine import NativeEngine
from tacit.runtime.backends.native_keys import load_keys
from tacit.runtime.backends.openfhe import OpenFHEEvaluator
from tacit.runtime.backends.openfhe_parameters import make_context
from tests.conformance.exchange import KEY_ID, Exchange, evaluation_keys

STEPS = (1, -7)
# Digits of one, two and more limbs, and last ones that are shorter.
DEPTHS = {1: 7, 2: 7, 3: 7, 4: 7, 5: 8, 6: 10, 7: 6, 8: 7}
SECRETS = ("UNIFORM_TERNARY", "SPARSE_TERNARY", "SPARSE_ENCAPSULATED")
# (log_n, depth, log_scale, log_first, dnum)
LARGE = {"2^14": (14, 8, 40, 50, 3), "2^15": (15, 14, 45, 55, 4), "2^16": (16, 9, 49, 60, 2)}


@cache
def _exchange(
    chosen: tuple[int, int, int, int, int], secret: str, instructions: InstructionSet
) -> Exchange:
    params = CryptoParams.choose(*chosen, Security.UNCHECKED_INSECURE, SecretDistribution[secret])
    context = make_context(params)
    keys = context.KeyGen()
    context.EvalMultKeyGen(keys.secretKey)
    context.EvalRotateKeyGen(keys.secretKey, list(STEPS))
    engine = NativeEngine(params, CpuKernels(params, instructions=instructions))
    limbs = load_keys(engine, KEY_ID, evaluation_keys(params, keys))
    native = NativeEvaluator(limbs, correct_rotations=False)
    template = template_from_context(openfhe.Serialize(context, openfhe.BINARY))
    oracle = OpenFHEEvaluator(params, context, correct_rotations=False)
    return Exchange(params, context, keys, template, oracle, native, limbs)


def _operands(exchange: Exchange, level: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(level)
    a, b = (exchange.encrypt(rng.uniform(-1, 1, exchange.params.slots), level) for _ in range(2))
    return a, b


def _check(exchange: Exchange, expected: Any, found: Any) -> None:
    wanted = exchange.to_native(expected)
    assert (found.level, found.degree) == (wanted.level, wanted.degree)
    download = exchange.native_keys.download
    np.testing.assert_array_equal(download(found), download(wanted))


def _check_level(exchange: Exchange, level: int) -> None:
    """Compare every operation on ciphertexts of one level, and on products of them."""
    (a, b), one, other = _operands(exchange, level), exchange.openfhe, exchange.native
    x, y = exchange.to_native(a), exchange.to_native(b)
    _check(exchange, one.add(a, b), other.add(x, y))
    _check(exchange, one.subtract(a, b), other.subtract(x, y))
    _check(exchange, one.negate(a), other.negate(x))
    for step in STEPS:
        _check(exchange, one.rotate(a, step), other.rotate(x, step))
    for expected, found in zip(one.rotate_many(a, STEPS), other.rotate_many(x, STEPS), strict=True):
        _check(exchange, expected, found)
    for target in range(level):
        _check(exchange, one.drop(a, target), other.drop(x, target))
    if not level:
        return
    _check_plaintext(exchange, level, a)
    product_, found = one.multiply(a, b), other.multiply(x, y)
    _check(exchange, product_, found)
    _check(exchange, one.rescale(product_), other.rescale(found))
    _check(exchange, one.rotate(product_, STEPS[0]), other.rotate(found, STEPS[0]))
    _check(exchange, one.add(product_, product_), other.add(found, found))


def _check_plaintext(exchange: Exchange, level: int, a: Any) -> None:
    """Multiply by the limbs of OpenFHE's own plaintext: those that it adds to a ciphertext."""
    context, download = exchange.context, exchange.native_keys.download
    values = np.random.default_rng(level).uniform(-1, 1, exchange.params.slots)
    plaintext = context.MakeCKKSPackedPlaintext(values, 1, exchange.params.depth - level)
    kernels = exchange.native_keys.engine.kernels
    assert isinstance(kernels, CpuKernels)
    x, moved = exchange.to_native(a), exchange.to_native(context.EvalAdd(a, plaintext))
    low, high = download(x), download(moved)
    np.testing.assert_array_equal(low[1], high[1])
    encoded = elementwise.subtract(kernels.ring, high[0], low[0])
    pairs = [[(x.limbs, kernels.upload(encoded[None, :, None]))]]
    (found,) = kernels.dot_pairs(pairs, level)
    wanted = download(exchange.to_native(context.EvalMult(a, plaintext)))
    np.testing.assert_array_equal(kernels.download(found)[:, :, 0], wanted)


@pytest.mark.parametrize("dnum", list(DEPTHS))
def test_every_level_with_every_number_of_digits(instructions: InstructionSet, dnum: int) -> None:
    exchange = _exchange((10, DEPTHS[dnum], 45, 55, dnum), SECRETS[0], instructions)
    for level in range(DEPTHS[dnum] + 1):
        _check_level(exchange, level)


@pytest.mark.parametrize("secret", SECRETS[1:])
@pytest.mark.parametrize("dnum", [1, 3])
def test_every_level_under_sparse_secrets(
    instructions: InstructionSet, secret: str, dnum: int
) -> None:
    exchange = _exchange((11, 5, 49, 59, dnum), secret, instructions)
    for level in range(6):
        _check_level(exchange, level)


@pytest.mark.parametrize("log_n", [12, 13])
def test_larger_rings_at_their_top_and_lowest_levels(
    instructions: InstructionSet, log_n: int
) -> None:
    exchange = _exchange((log_n, 4, 40, 50, 3), "UNIFORM_TERNARY", instructions)
    for level in (0, 1, 4):
        _check_level(exchange, level)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "secret"),
    [("2^14", secret) for secret in SECRETS] + [("2^15", SECRETS[0]), ("2^16", SECRETS[0])],
)
def test_real_rings_at_sampled_levels(instructions: InstructionSet, name: str, secret: str) -> None:
    exchange = _exchange(LARGE[name], secret, instructions)
    for level in (1, exchange.params.depth // 2, exchange.params.depth):
        _check_level(exchange, level)
    _exchange.cache_clear()


Node = Callable[[Any, Any], Any]
NODES: dict[str, Node] = {
    "multiply": lambda backend, a: backend.multiply(a, a),
    "rotate the product": lambda backend, a: backend.rotate(a, 1),
    "rescale": lambda backend, a: backend.rescale(a),
    "add": lambda backend, a: backend.add(a, backend.rotate(a, -7)),
    "drop": lambda backend, a: backend.drop(a, 1),
    "square": lambda backend, a: backend.rescale(backend.multiply(a, a)),
}


@pytest.mark.parametrize("secret", SECRETS)
def test_a_ciphertext_may_change_backends_before_any_node(library: CDLL, secret: str) -> None:
    """All 64 ways to give the six nodes of a circuit to the two backends give the same limbs."""
    exchange = _exchange((10, 5, 45, 55, 3), secret, available(library)[-1])
    a, _ = _operands(exchange, 5)
    expected = a
    for node in NODES.values():
        expected = node(exchange.openfhe, expected)
    for choice in product((False, True), repeat=len(NODES)):
        value, native = a, False
        for here, node in zip(choice, NODES.values(), strict=True):
            if here != native:
                value = exchange.to_native(value) if here else exchange.to_openfhe(value)
                native = here
            value = node(exchange.native if here else exchange.openfhe, value)
        _check(exchange, expected, value if native else exchange.to_native(value))
