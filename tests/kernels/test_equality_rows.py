"""Row kernels against plain integers at every path's edges: widths, residues, lengths of sums."""

from __future__ import annotations

import numpy as np
import pytest

from tacit.kernels import automorphism, elementwise, ntt, reference
from tacit.kernels.basis import Basis, mod_down, mod_up
from tacit.kernels.library import InstructionSet
from tacit.kernels.rescale import rescale
from tacit.kernels.ring import Ring
from tests.kernels.residues import Limbs, extreme, primes, residues

# Paths change at 46 bits (AVX-512, forward transform), 50 bits and nowhere else.
BITS = (30, 45, 46, 47, 49, 50, 51, 59, 60)
KINDS = ("zero", "one", "top", "sawtooth")
LOG_N = 7
MODULI = tuple(primes(bits, LOG_N)[0] for bits in BITS)
COLUMN = reference.integers(list(MODULI))[:, None]
EVERY_LENGTH = range(1, 34)


def _inputs(seed: int) -> list[Limbs]:
    n, rng = 1 << LOG_N, np.random.default_rng(seed)
    return [*(extreme(MODULI, n, kind) for kind in KINDS), residues(rng, MODULI, n)]


def _same(found: Limbs, wanted: reference.Integers) -> None:
    assert found.tolist() == (wanted % COLUMN).tolist()


def test_two_operands_of_every_kind(instructions: InstructionSet) -> None:
    ring = Ring(LOG_N, MODULI, instructions=instructions)
    for a in _inputs(0):
        for b in _inputs(1):
            x, y = reference.integers(a), reference.integers(b)
            _same(elementwise.add(ring, a, b), x + y)
            _same(elementwise.subtract(ring, a, b), x - y)
            _same(elementwise.dot(ring, [a], [b]), x * y)
            constants = np.ascontiguousarray(b[:, -1])
            c = reference.integers(constants)[:, None]
            _same(elementwise.scale(ring, a, constants), x * c)
            _same(elementwise.scale(ring, a, constants, plus=b), x * c + y)
            _same(elementwise.add_constant(ring, a, constants), x + c)


@pytest.mark.parametrize("kind", ["top", "mixed"])
def test_sums_of_every_length(instructions: InstructionSet, kind: str) -> None:
    """Sums carry and reduce after 7, 14, 16 or 64 terms, and change their order after 4."""
    ring = Ring(LOG_N, MODULI, instructions=instructions)
    top, rng = extreme(MODULI, ring.n, "top"), np.random.default_rng(2)
    most = max(EVERY_LENGTH)
    a = [top if kind == "top" else residues(rng, MODULI, ring.n) for _ in range(most)]
    b = [top if kind == "top" else residues(rng, MODULI, ring.n) for _ in range(most)]
    total = reference.integers(np.zeros_like(top))
    weighted = reference.integers(np.zeros_like(top))
    weights = np.stack([x[:, 0] for x in b], axis=-1)[:, None, :]
    for terms in EVERY_LENGTH:
        x, y = reference.integers(a[terms - 1]), reference.integers(b[terms - 1])
        total = total + x * y
        weighted = weighted + x * y[:, :1]
        _same(elementwise.dot(ring, a[:terms], b[:terms]), total)
        chosen = np.ascontiguousarray(weights[..., :terms])
        _same(elementwise.combine(ring, a[:terms], chosen)[0], weighted)


@pytest.mark.parametrize("log_n", [4, 5, 6, 7, 9])
def test_automorphisms_of_every_kind_of_element(instructions: InstructionSet, log_n: int) -> None:
    moduli = tuple(primes(bits, log_n)[0] for bits in (40, 60))
    ring = Ring(log_n, moduli, instructions=instructions)
    rng = np.random.default_rng(log_n)
    a = residues(rng, moduli, ring.n)
    values = a.copy()
    ntt.forward(ring, values)
    for element in range(1, 2 * ring.n, 2 if log_n < 7 else 26):
        moved = automorphism.apply(ring, automorphism.automorphism(ring, element), values)
        ntt.inverse(ring, moved)
        for row, q in enumerate(moduli):
            wanted = reference.automorphism(reference.integers(a[row]), q, element)
            assert moved[row].tolist() == wanted.tolist()


@pytest.mark.parametrize("log_n", range(10, 14))
def test_transforms_at_sampled_points(instructions: InstructionSet, log_n: int) -> None:
    _check_transforms(instructions, log_n, BITS)


@pytest.mark.slow
@pytest.mark.parametrize("log_n", range(14, 18))
def test_large_transforms_at_sampled_points(instructions: InstructionSet, log_n: int) -> None:
    _check_transforms(instructions, log_n, BITS)


def _check_transforms(instructions: InstructionSet, log_n: int, bits: tuple[int, ...]) -> None:
    """Compare values at a few powers of the root with the polynomial's, summed independently."""
    moduli = tuple(primes(size, log_n)[0] for size in bits)
    roots = [_some_root(q, log_n) for q in moduli]
    ring = Ring(log_n, moduli, instructions=instructions, roots=roots)
    rng = np.random.default_rng(log_n)
    for a in (residues(rng, moduli, ring.n), extreme(moduli, ring.n, "top")):
        x = a.copy()
        ntt.forward(ring, x)
        assert (x < np.array(moduli, dtype=np.uint64)[:, None]).all()
        for position in (0, 1, ring.n // 2, ring.n - 1, int(rng.integers(ring.n))):
            exponent = 2 * int(format(position, f"0{log_n}b")[::-1], 2) + 1
            for row, (q, psi) in enumerate(zip(moduli, roots, strict=True)):
                value = _evaluate(a[row].tolist(), pow(psi, exponent, q), q)
                assert int(x[row, position]) == value, f"{q.bit_length()} bits, {position}"
        ntt.inverse(ring, x)
        np.testing.assert_array_equal(x, a)


def _evaluate(a: list[int], point: int, q: int) -> int:
    value = 0
    for coefficient in reversed(a):
        value = (value * point + coefficient) % q
    return value


def _some_root(q: int, log_n: int) -> int:
    """Return a primitive 2N-th root, which need not be the smallest."""
    for base in range(2, 1000):
        root = pow(base, (q - 1) >> (log_n + 1), q)
        if pow(root, 1 << log_n, q) == q - 1:
            return root
    raise AssertionError("no root")


# (bits of Q, bits of P): one digit, and a division, of up to 17 primes at once.
BASES = {
    "17 wide to narrow": ([45] * 2, [60] * 17),
    "17 wide to wide": ([60] * 2, [60] * 17),
    "17 narrow to both": ([45] * 16 + [50], [45, 60]),
    "15 wide to wide": ([59] * 15, [60] * 15),
    "7 mixed": ([60, 45, 45, 45, 45, 45, 45], [60] * 7),
}


@pytest.mark.parametrize("name", list(BASES))
def test_conversions_from_many_primes_at_once(instructions: InstructionSet, name: str) -> None:
    q_bits, p_bits = BASES[name]
    moduli = _distinct(q_bits + p_bits)
    ring, limbs = Ring(LOG_N, moduli, instructions=instructions), len(q_bits)
    q, p = moduli[:limbs], moduli[limbs:]
    basis, rng, n = Basis(ring, limbs, limbs, 1), np.random.default_rng(limbs), 1 << LOG_N
    for values in (extreme(moduli, n, "top"), residues(rng, moduli, n)):
        exact = reference.integers(values)
        x = values.copy()
        ntt.forward(ring, x)
        digits = np.zeros((1, basis.rows, n), dtype=np.uint64)
        mod_up(basis, x[:limbs].copy(), digits, np.empty((limbs, n), dtype=np.uint64))
        (extended,) = reference.mod_up(list(exact[:limbs]), q, p, limbs)
        mods = np.arange(limbs, len(moduli), dtype=np.uint32)
        special = np.ascontiguousarray(digits[0, limbs:])
        ntt.inverse(ring, special, mods)
        assert special.tolist() == [row.tolist() for row in extended[limbs:]]
        out = np.empty((1, limbs, n), dtype=np.uint64)
        mod_down(basis, x[None].copy(), (None,), out)
        ntt.inverse(ring, out[0])
        assert out[0].tolist() == [row.tolist() for row in reference.mod_down(list(exact), q, p)]


@pytest.mark.parametrize("last_bits", [30, 46, 50, 51, 60])
def test_rescaling_from_a_prime_of_any_width(instructions: InstructionSet, last_bits: int) -> None:
    moduli = _distinct([*BITS, last_bits])
    ring = Ring(LOG_N, moduli, instructions=instructions)
    basis, last, n = Basis(ring, len(moduli), len(moduli), 1), moduli[-1], 1 << LOG_N
    edges = [0, 1, last // 2, last // 2 + 1, last - 1]
    values = residues(np.random.default_rng(last_bits), moduli, n)
    values[-1, : len(edges)] = edges
    x = values.copy()
    ntt.forward(ring, x)
    out = np.empty((1, len(moduli) - 1, n), dtype=np.uint64)
    rescale(basis, x[None], out, np.empty((1, n), dtype=np.uint64))
    ntt.inverse(ring, out[0])
    wanted = reference.rescale(list(reference.integers(values)), moduli)
    assert out[0].tolist() == [row.tolist() for row in wanted]


def _distinct(bits: list[int]) -> tuple[int, ...]:
    chosen: list[int] = []
    for size in bits:
        chosen.append(next(q for q in primes(size, LOG_N, 40) if q not in chosen))
    return tuple(chosen)
