"""Sums, products, combinations and automorphisms against plain integers."""

from __future__ import annotations

import numpy as np
import pytest

from tacit.errors import InternalError, ParameterError
from tacit.kernels import automorphism, elementwise, ntt, reference
from tacit.kernels.library import InstructionSet
from tacit.kernels.ring import Ring
from tests.kernels.residues import Limbs, extreme, primes, residues

LOG_N = 8
MODULI = (
    *primes(30, LOG_N),
    *primes(45, LOG_N),
    *primes(50, LOG_N, 2),
    *primes(51, LOG_N),
    *primes(60, LOG_N, 2),
)
COLUMN = reference.integers(list(MODULI))[:, None]


@pytest.fixture
def ring(instructions: InstructionSet) -> Ring:
    return Ring(LOG_N, MODULI, instructions=instructions)


def _pairs(count: int) -> list[Limbs]:
    rng = np.random.default_rng(count)
    tops = [extreme(MODULI, 1 << LOG_N, "top")] * count
    return [*tops, *(residues(rng, MODULI, 1 << LOG_N) for _ in range(count))]


def _same(found: Limbs, wanted: reference.Integers) -> None:
    assert found.tolist() == (wanted % COLUMN).tolist()


def test_sums_and_differences(ring: Ring) -> None:
    for a, b in zip(_pairs(3), _pairs(3)[::-1], strict=True):
        x, y = reference.integers(a), reference.integers(b)
        _same(elementwise.add(ring, a, b), x + y)
        _same(elementwise.subtract(ring, a, b), x - y)
        _same(elementwise.negate(ring, a), -x)
        c = b.copy()
        elementwise.subtract(ring, a, c, out=c)
        _same(c, x - y)


def test_products_with_one_constant_per_row(ring: Ring) -> None:
    for a, b in zip(_pairs(2), _pairs(2)[::-1], strict=True):
        x, y = reference.integers(a), reference.integers(b)
        for column in range(0, 40, 7):
            constants = np.ascontiguousarray(b[:, column])
            c = reference.integers(constants)[:, None]
            _same(elementwise.scale(ring, a, constants), x * c)
            _same(elementwise.scale(ring, a, constants, plus=b), x * c + y)
            _same(elementwise.add_constant(ring, a, constants), x + c)


@pytest.mark.parametrize("log_n", [3, 5, 7, 8, 11])
def test_half_a_plaintext_stands_for_its_mirror_image_too(
    instructions: InstructionSet, log_n: int
) -> None:
    moduli = (*primes(30, log_n), *primes(50, log_n), *primes(60, log_n))
    ring, rng, batch = Ring(log_n, moduli, instructions=instructions), np.random.default_rng(0), 2
    a = rng.integers(0, min(moduli), (2, 3, batch, ring.n), dtype=np.uint64)
    halves = [residues(rng, moduli, ring.n // 2) for _ in range(70)]
    whole = [np.concatenate([half, half[:, ::-1]], axis=1) for half in halves]
    counts = (1, 3, 17, 49)
    made: list[list[Limbs]] = []
    for plains in (halves, whole):
        left = iter(plains)
        terms = [[(a, next(left)) for _ in range(count)] for count in counts]
        made.append([np.empty_like(a) for _ in counts])
        elementwise.dot_pairs(ring, terms, made[-1], batch=batch)
    for found, wanted in zip(*made, strict=True):
        np.testing.assert_array_equal(found, wanted)
    with pytest.raises(InternalError, match="rows"):
        elementwise.dot_pairs(ring, [[(a, halves[0]), (a, whole[0])]], [np.empty_like(a)], batch=2)
    with pytest.raises(InternalError, match="rows of"):
        elementwise.dot_pairs(ring, [[(a, halves[0][:, 1:])]], [np.empty_like(a)], batch=2)


@pytest.mark.parametrize("terms", [1, 2, 7, 8, 9, 16, 17, 63, 64, 65, 130])
def test_sums_of_products_reduce_late_and_right(ring: Ring, terms: int) -> None:
    """All residues at q - 1 reach the largest sums the lazy reduction can meet."""
    top = extreme(MODULI, ring.n, "top")
    rng = np.random.default_rng(terms)
    mixed = [residues(rng, MODULI, ring.n) for _ in range(terms)]
    for a, b in (([top] * terms, [top] * terms), (mixed, mixed[::-1])):
        wanted = sum(
            (reference.integers(x) * reference.integers(y) for x, y in zip(a, b, strict=True)),
            start=reference.integers(np.zeros_like(top)),
        )
        _same(elementwise.dot(ring, a, b), wanted)


@pytest.mark.parametrize("terms", [1, 5, 16, 17, 64, 65, 200])
def test_combinations_with_scalars(ring: Ring, terms: int) -> None:
    rng = np.random.default_rng(terms)
    a = [residues(rng, MODULI, ring.n) for _ in range(terms)]
    a[0] = extreme(MODULI, ring.n, "top")
    weights = np.stack([residues(rng, MODULI, 3 * terms).reshape(len(MODULI), 3, terms)])[0]
    weights[:, 0] = np.array(MODULI, dtype=np.uint64)[:, None] - np.uint64(1)
    found = elementwise.combine(ring, a, np.ascontiguousarray(weights))
    for output in range(3):
        w = reference.integers(weights[:, output])
        wanted = sum(
            (reference.integers(x) * w[:, t : t + 1] for t, x in enumerate(a)),
            start=reference.integers(np.zeros_like(a[0])),
        )
        _same(found[output], wanted)


@pytest.mark.parametrize("terms", [1, 70])
def test_weights_of_the_two_halves_differ(ring: Ring, terms: int) -> None:
    sources = [_pairs(1)[t % 2] for t in range(terms)]
    rng, half = np.random.default_rng(terms), 1 << (LOG_N - 1)
    weights = np.stack([residues(rng, MODULI, 2 * 2 * terms)]).reshape(-1, 2, 2, terms)
    found = elementwise.combine(ring, sources, weights)
    for o in range(2):
        for h, part in enumerate((slice(0, half), slice(half, None))):
            wanted = sum(
                reference.integers(a)[:, part] * reference.integers(weights[:, h, o, t])[:, None]
                for t, a in enumerate(sources)
            )
            assert found[o][:, part].tolist() == (wanted % COLUMN).tolist()
    with pytest.raises(InternalError, match="weights"):
        elementwise.combine(ring, sources, weights[:, :1])


@pytest.mark.parametrize("terms", [1, 2, 33])
def test_tensor_products_are_added_up_and_limbs_cut_off(ring: Ring, terms: int) -> None:
    every = _pairs(2)
    limbs = len(MODULI) - 2
    pairs = [
        (np.stack([every[t % 4], every[(t + 1) % 4]]), np.stack([every[3 - t % 4], every[t % 3]]))
        for t in range(terms)
    ]
    out = np.empty((3, limbs, 1 << LOG_N), dtype=np.uint64)
    elementwise.tensor_sum(ring, pairs, out)
    exact = [(reference.integers(a), reference.integers(b)) for a, b in pairs]
    wanted = [
        sum(a[0] * b[0] for a, b in exact),
        sum(a[0] * b[1] + a[1] * b[0] for a, b in exact),
        sum(a[1] * b[1] for a, b in exact),
    ]
    for found, numbers in zip(out, wanted, strict=True):
        assert found.tolist() == (numbers % COLUMN)[:limbs].tolist()
    with pytest.raises(InternalError, match="limbs or more"):
        elementwise.tensor_sum(ring, [(x[:, :3].copy(), y) for x, y in pairs], out)


def test_a_tensor_product_has_three_components(ring: Ring) -> None:
    rng = np.random.default_rng(0)
    a, b = (np.stack([residues(rng, MODULI, ring.n) for _ in range(2)]) for _ in range(2))
    found = elementwise.tensor(ring, a, b)
    x, y = reference.integers(a), reference.integers(b)
    _same(found[0], x[0] * y[0])
    _same(found[1], x[0] * y[1] + x[1] * y[0])
    _same(found[2], x[1] * y[1])


@pytest.mark.parametrize("log_n", [3, 4, 8, 11])
def test_automorphisms_substitute_a_power_of_x(instructions: InstructionSet, log_n: int) -> None:
    moduli = primes(40, log_n) + primes(60, log_n)
    ring = Ring(log_n, moduli, instructions=instructions)
    a = residues(np.random.default_rng(log_n), moduli, ring.n)
    values = a.copy()
    ntt.forward(ring, values)
    for element in (1, 3, 5, 25 % (2 * ring.n), ring.n - 1, ring.n + 1, 2 * ring.n - 1):
        moved = automorphism.apply(ring, automorphism.automorphism(ring, element), values)
        ntt.inverse(ring, moved)
        for row, q in enumerate(moduli):
            wanted = reference.automorphism(reference.integers(a[row]), q, element)
            assert moved[row].tolist() == wanted.tolist()


@pytest.mark.parametrize("rows", [2, 5])
def test_automorphisms_add_before_and_after(ring: Ring, rows: int) -> None:
    rng = np.random.default_rng(rows)
    a, plus, total = (residues(rng, MODULI, ring.n) for _ in range(3))
    moved = automorphism.automorphism(ring, 5)
    sums = a.copy()
    elementwise.add(ring, a[:rows], plus[:rows], out=sums[:rows])
    wanted = elementwise.add(ring, automorphism.apply(ring, moved, sums), total)
    automorphism.apply(ring, moved, a, plus=plus[:rows].copy(), accumulate=True, out=total)
    np.testing.assert_array_equal(total, wanted)


def test_pairs_of_sums_of_products(ring: Ring) -> None:
    rng = np.random.default_rng(0)
    a = [np.stack([residues(rng, MODULI, ring.n) for _ in range(2)]) for _ in range(3)]
    b = [residues(rng, MODULI, ring.n) for _ in range(3)]
    terms = [[(a[0], b[0])], [(a[1], b[2]), (a[2], b[1]), (a[0], b[0])] * 25]
    out = [np.empty_like(a[0]) for _ in terms]
    elementwise.dot_pairs(ring, terms, out)
    for pairs, found in zip(terms, out, strict=True):
        for part in range(2):
            total = reference.integers(np.zeros_like(b[0]))
            for x, y in pairs:
                total = total + reference.integers(x[part]) * reference.integers(y)
            _same(found[part], total)


def test_what_does_not_fit_is_refused(ring: Ring) -> None:
    a = extreme(MODULI, ring.n, "one")
    with pytest.raises(ParameterError, match="odd"):
        automorphism.automorphism(ring, 4)
    with pytest.raises(InternalError):
        elementwise.dot(ring, [], [])
    with pytest.raises(InternalError):
        elementwise.dot(ring, [a], [a, a])
    with pytest.raises(InternalError):
        elementwise.scale(ring, a, np.ones(2, dtype=np.uint64))
    with pytest.raises(InternalError):
        elementwise.combine(ring, [a], np.ones((len(MODULI), 1, 2), dtype=np.uint64))
    with pytest.raises(InternalError):
        elementwise.add(ring, a, a, np.zeros(2, dtype=np.uint32))
    with pytest.raises(InternalError, match="moduli"):
        elementwise.add(ring, np.concatenate([a, a]), np.concatenate([a, a]))
