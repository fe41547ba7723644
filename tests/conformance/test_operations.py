"""Every fine operation, its type and its values, on every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tacit.circuit import Plain, ValueType
from tacit.errors import CircuitError, LevelError, UnknownKeyError
from tests.conformance.backends import Backend

Floats = NDArray[np.float64]


def _values(backend: Backend, count: int, seed: int = 0) -> list[Floats]:
    rng = np.random.default_rng(seed)
    return [rng.uniform(-1, 1, backend.params.slots) for _ in range(count)]


def _plain(values: Floats | float, key: str = "constant") -> Plain:
    return Plain(key, np.asarray(values, dtype=np.float64))


def _type(backend: Backend, ciphertext: Any) -> ValueType:
    return backend.evaluator.type_of(ciphertext)


def test_a_fresh_ciphertext_has_the_level_it_was_made_for(backend: Backend) -> None:
    (x,) = _values(backend, 1)
    for level in range(backend.params.depth + 1):
        fresh = backend.encrypt(x, level)
        assert _type(backend, fresh) == ValueType(level, 1)
        backend.check(lambda ev, c: c, [x], [x], level)


def test_sums_and_differences_are_slot_by_slot(backend: Backend) -> None:
    x, y = _values(backend, 2)
    backend.check(lambda ev, c: [ev.add(c[0], c[1])], [x, y], [x + y])
    backend.check(lambda ev, c: [ev.subtract(c[0], c[1])], [x, y], [x - y])
    backend.check(lambda ev, c: [ev.negate(c[0])], [x], [-x])
    backend.check(lambda ev, c: [ev.add(c[0], c[0])], [x], [2 * x], level=0)


@pytest.mark.parametrize("constant", [0.375, -0.7, 1.0, 0.0, -3.5])
def test_scalar_constants_work_at_every_level(backend: Backend, constant: float) -> None:
    (x,) = _values(backend, 1)
    plain = _plain(constant)
    for level in range(backend.params.depth + 1):
        backend.check(lambda ev, c: [ev.add_plain(c[0], plain)], [x], [x + constant], level)
    for level in range(1, backend.params.depth + 1):
        backend.check(
            lambda ev, c: [ev.rescale(ev.multiply_plain(c[0], plain))], [x], [x * constant], level
        )


@pytest.mark.parametrize("length", ["one", "some", "all"])
def test_vector_constants_fill_the_slots_by_repeating_elements(
    backend: Backend, length: str
) -> None:
    slots = backend.params.slots
    count = {"one": 1, "some": 8, "all": slots}[length]
    weights = np.random.default_rng(1).uniform(-1, 1, count)
    spread = np.array([weights[i * count // slots] for i in range(slots)])
    plain = _plain(weights, f"weights of {count}")
    (x,) = _values(backend, 1)
    for level in (backend.params.depth, 1):
        backend.check(lambda ev, c: [ev.add_plain(c[0], plain)], [x], [x + spread], level)
        backend.check(
            lambda ev, c: [ev.rescale(ev.multiply_plain(c[0], plain))], [x], [x * spread], level
        )


def test_constants_are_added_at_degree_two(backend: Backend) -> None:
    x, w = _values(backend, 2)

    def program(ev: Any, c: list[Any]) -> list[Any]:
        product = ev.multiply_plain(c[0], _plain(w, "w"))
        assert ev.type_of(product) == ValueType(ev.type_of(c[0]).level, 2)
        total = ev.add_plain(ev.add_plain(product, _plain(0.25)), _plain(w, "w"))
        assert ev.type_of(total).degree == 2
        return [ev.rescale(total)]

    for level in (backend.params.depth, 1):
        backend.check(program, [x], [x * w + 0.25 + w], level)


def test_products_use_one_level_each_down_to_level_zero(backend: Backend) -> None:
    x, y = _values(backend, 2)

    def program(ev: Any, c: list[Any]) -> list[Any]:
        value = c[0]
        for level in range(backend.params.depth, 0, -1):
            assert ev.type_of(value) == ValueType(level, 1)
            factor = ev.drop(c[1], level) if level < backend.params.depth else c[1]
            product = ev.multiply(value, factor)
            assert ev.type_of(product) == ValueType(level, 2)
            value = ev.rescale(product)
        assert ev.type_of(value) == ValueType(0, 1)
        return [value]

    backend.check(program, [x, y], [x * y**backend.params.depth])


def test_squares(backend: Backend) -> None:
    (x,) = _values(backend, 1)
    for level in range(1, backend.params.depth + 1):
        backend.check(lambda ev, c: [ev.rescale(ev.multiply(c[0], c[0]))], [x], [x * x], level)


@pytest.mark.parametrize("steps", [1, 5, 64, 256, -1, -7, 0])
def test_rotations_move_slots_to_the_left(backend: Backend, steps: int) -> None:
    (x,) = _values(backend, 1)
    expected = np.concatenate([x[steps:], x[:steps]])
    for level in (backend.params.depth, 0):
        backend.check(lambda ev, c: [ev.rotate(c[0], steps)], [x], [expected], level)


def test_rotation_steps_count_modulo_the_slots(backend: Backend) -> None:
    (x,) = _values(backend, 1)
    slots = backend.params.slots
    expected = np.concatenate([x[-1:], x[:-1]])
    backend.check(lambda ev, c: [ev.rotate(c[0], slots - 1)], [x], [expected])
    backend.check(lambda ev, c: [ev.rotate(c[0], slots)], [x], [x])


def test_rotations_keep_level_and_degree(backend: Backend) -> None:
    (x,) = _values(backend, 1)

    def program(ev: Any, c: list[Any]) -> list[Any]:
        product = ev.multiply(c[0], c[0])
        moved = ev.rotate(product, 3)
        assert ev.type_of(moved) == ev.type_of(product) == ValueType(2, 2)
        return [ev.rescale(moved)]

    backend.check(program, [x], [np.roll(x * x, -3)], level=2)


def test_many_rotations_come_in_the_order_asked_for(backend: Backend) -> None:
    (x,) = _values(backend, 1)
    steps = [4, 0, -1, 4, 100]
    expected = [np.roll(x, -step) for step in steps]
    backend.check(lambda ev, c: ev.rotate_many(c[0], steps), [x], expected)


def test_no_rotation_at_all(backend: Backend) -> None:
    (x,) = _values(backend, 1)
    assert backend.evaluator.rotate_many(backend.encrypt(x, 1), []) == []


def test_a_dropped_ciphertext_adds_to_one_computed_at_that_level(backend: Backend) -> None:
    x, y = _values(backend, 2)
    depth = backend.params.depth
    for target in range(depth):

        def program(ev: Any, c: list[Any], target: int = target) -> list[Any]:
            computed = c[0]
            for _ in range(depth - target):
                computed = ev.rescale(ev.multiply_plain(computed, _plain(y, "y")))
            dropped = ev.drop(c[0], target)
            assert ev.type_of(dropped) == ev.type_of(computed) == ValueType(target, 1)
            return [ev.add(dropped, computed), dropped]

        backend.check(program, [x], [x + x * y ** (depth - target), x])


def test_a_drop_corrects_the_scale(backend: Backend) -> None:
    # Scales differ by so little between levels that only large values show it above the noise.
    x = 200.0 * _values(backend, 1)[0]
    for target in range(backend.params.depth):

        def program(ev: Any, c: list[Any], target: int = target) -> list[Any]:
            return [ev.drop(c[0], target)]

        backend.check(program, [x], [x])


def test_drops_in_steps_agree_with_a_drop_at_once(backend: Backend) -> None:
    (x,) = _values(backend, 1)

    def program(ev: Any, c: list[Any]) -> list[Any]:
        by_steps = ev.drop(ev.drop(c[0], 1), 0)
        return [ev.subtract(by_steps, ev.drop(c[0], 0))]

    backend.check(program, [x], [0 * x])


def test_operations_leave_their_operands_alone(backend: Backend) -> None:
    x, y = _values(backend, 2)
    ev = backend.evaluator
    a, b = backend.encrypt(x, 2), backend.encrypt(y, 2)
    ev.add(a, b)
    ev.rescale(ev.multiply(a, b))
    ev.drop(a, 0)
    ev.rotate_many(a, [0, 1, 2])
    ev.add_plain(a, _plain(1.0))
    backend.check(lambda ev, c: c, [x], [backend.decrypt(a)], level=2)
    assert _type(backend, a) == _type(backend, b) == ValueType(2, 1)


def test_values_beyond_the_modulus_wrap_around(backend: Backend) -> None:
    modulus = backend.params.moduli[0] / backend.params.scale(0)
    x = np.full(backend.params.slots, 0.4 * modulus)
    total = backend.run(lambda ev, c: [ev.add(c[0], c[0])], [x], 0)[0]
    # One coefficient carries everything here; the noise is far below a thousandth of the modulus.
    np.testing.assert_allclose(total, -0.2 * modulus, rtol=1e-3)


def test_different_levels_do_not_add(backend: Backend) -> None:
    (x,) = _values(backend, 1)
    high, low = backend.encrypt(x, 2), backend.encrypt(x, 1)
    for operation in (backend.evaluator.add, backend.evaluator.subtract):
        with pytest.raises(LevelError, match="levels 2 and 1: drop"):
            operation(high, low)
    with pytest.raises(LevelError, match="levels 2 and 1: drop"):
        backend.evaluator.multiply(high, low)


def test_different_degrees_do_not_add(backend: Backend) -> None:
    (x,) = _values(backend, 1)
    a = backend.encrypt(x, 2)
    product = backend.evaluator.multiply_plain(a, _plain(0.5))
    with pytest.raises(CircuitError, match="degrees 2 and 1"):
        backend.evaluator.add(product, a)


def test_degree_two_is_rescaled_before_the_next_product_or_drop(backend: Backend) -> None:
    (x,) = _values(backend, 1)
    ev = backend.evaluator
    a = backend.encrypt(x, 2)
    product = ev.multiply(a, a)
    with pytest.raises(CircuitError, match="rescale it first"):
        ev.multiply(product, a)
    with pytest.raises(CircuitError, match="rescale it first"):
        ev.multiply_plain(product, _plain(0.5))
    with pytest.raises(CircuitError, match="rescale it first"):
        ev.drop(product, 0)
    with pytest.raises(CircuitError, match="degree 1"):
        ev.rescale(a)


def test_nothing_is_multiplied_at_level_zero(backend: Backend) -> None:
    (x,) = _values(backend, 1)
    bottom = backend.encrypt(x, 0)
    with pytest.raises(LevelError, match="level 0"):
        backend.evaluator.multiply(bottom, bottom)
    with pytest.raises(LevelError, match="level 0"):
        backend.evaluator.multiply_plain(bottom, _plain(0.5))


@pytest.mark.parametrize("target", [2, 3, -1])
def test_a_drop_goes_down(backend: Backend, target: int) -> None:
    (x,) = _values(backend, 1)
    with pytest.raises(LevelError, match="target must be lower"):
        backend.evaluator.drop(backend.encrypt(x, 2), target)


def test_a_constant_must_fit_the_slots(backend: Backend) -> None:
    (x,) = _values(backend, 1)
    with pytest.raises(CircuitError, match=r"'odd' has shape \(3,\)"):
        backend.evaluator.add_plain(backend.encrypt(x, 1), _plain(np.ones(3), "odd"))


def test_a_rotation_without_its_key_is_named(encrypted_backend: Backend) -> None:
    (x,) = _values(encrypted_backend, 1)
    ev = encrypted_backend.evaluator
    a = encrypted_backend.encrypt(x, 1)
    with pytest.raises(UnknownKeyError, match="rotations by 11 slots"):
        ev.rotate(a, 11)
    with pytest.raises(UnknownKeyError, match="rotations by 11 slots"):
        ev.rotate_many(a, [1, 11])
