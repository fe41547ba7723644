"""The transform against its meaning and against a plain one, on every instruction set."""

from __future__ import annotations

import numpy as np
import pytest

from tacit.errors import InternalError, ParameterError
from tacit.kernels import ntt, reference
from tacit.kernels.library import InstructionSet
from tacit.kernels.ring import Ring
from tacit.moduli import smallest_root
from tests.kernels.residues import extreme, primes, residues

BITS = (30, 40, 49, 50, 51, 59, 60)


@pytest.mark.parametrize("log_n", [1, 2, 3, 5])
def test_the_plain_transform_evaluates_at_odd_powers_of_the_root(log_n: int) -> None:
    (q,) = primes(40, log_n)
    psi = smallest_root(q, log_n)
    a = residues(np.random.default_rng(log_n), (q,), 1 << log_n)[0]
    wanted = reference.transform(a.tolist(), q, psi)
    assert reference.forward(reference.integers(a), q, psi).tolist() == wanted
    assert reference.inverse(reference.integers(wanted), q, psi).tolist() == a.tolist()


@pytest.mark.parametrize("log_n", range(3, 13))
def test_the_transform_equals_the_plain_one(instructions: InstructionSet, log_n: int) -> None:
    moduli = tuple(primes(bits, log_n)[0] for bits in BITS)
    ring = Ring(log_n, moduli, instructions=instructions)
    rng = np.random.default_rng(log_n)
    inputs = [residues(rng, moduli, ring.n)]
    inputs += [extreme(moduli, ring.n, kind) for kind in ("zero", "one", "top", "sawtooth")]
    for a in inputs if log_n < 10 else inputs[:1]:
        x = a.copy()
        ntt.forward(ring, x)
        for row, (q, psi) in enumerate(zip(moduli, ring.roots, strict=True)):
            wanted = reference.forward(reference.integers(a[row]), q, psi)
            assert x[row].tolist() == wanted.tolist(), f"{q.bit_length()} bits"
        ntt.inverse(ring, x)
        np.testing.assert_array_equal(x, a)


@pytest.mark.parametrize("log_n", [13, 14, 15, 16])
def test_large_transforms_agree_on_all_instruction_sets(
    instructions: InstructionSet, log_n: int
) -> None:
    moduli = tuple(primes(bits, log_n)[0] for bits in (45, 50, 60))
    roots = [_some_root(q, log_n) for q in moduli]
    plain = Ring(log_n, moduli, roots=roots, instructions=InstructionSet.SCALAR)
    ring = Ring(log_n, moduli, roots=roots, instructions=instructions)
    for a in (
        residues(np.random.default_rng(log_n), moduli, ring.n),
        np.array([np.full(ring.n, q - 1) for q in moduli], dtype=np.uint64),
    ):
        x, y = a.copy(), a.copy()
        ntt.forward(plain, x)
        ntt.forward(ring, y)
        np.testing.assert_array_equal(x, y)
        ntt.inverse(ring, y)
        np.testing.assert_array_equal(y, a)


@pytest.mark.parametrize("bits", [48, 49, 50])
def test_the_fast_path_is_exact_up_to_its_last_primes(
    instructions: InstructionSet, bits: int
) -> None:
    """Worst cases for a path of limited precision: the largest primes, largest residues."""
    log_n = 8
    moduli = primes(bits, log_n, 4)
    ring = Ring(log_n, moduli, instructions=instructions)
    rng = np.random.default_rng(bits)
    for _ in range(20):
        a = residues(rng, moduli, ring.n)
        half = rng.uniform(size=a.shape) < 0.5
        tops = np.array(moduli, dtype=np.uint64)[:, None] - rng.integers(1, 3, a.shape).astype("u8")
        a[half] = tops[half]
        x = a.copy()
        ntt.forward(ring, x)
        for row, q in enumerate(moduli):
            wanted = reference.forward(reference.integers(a[row]), q, ring.roots[row])
            assert x[row].tolist() == wanted.tolist()
        ntt.inverse(ring, x)
        np.testing.assert_array_equal(x, a)


@pytest.mark.parametrize("threads", [1, 3])
def test_rows_may_be_of_any_moduli_and_shared_by_threads(
    instructions: InstructionSet, threads: int
) -> None:
    log_n = 8
    moduli = primes(50, log_n, 2) + primes(60, log_n)
    ring = Ring(log_n, moduli, instructions=instructions, threads=threads)
    mods = np.array([2, 0, 0, 1, 2, 1], dtype=np.uint32)
    a = residues(np.random.default_rng(0), tuple(moduli[i] for i in mods), ring.n)
    x = a.reshape(2, 3, ring.n).copy()
    ntt.forward(ring, x, mods)
    for row, (i, found) in enumerate(zip(mods, x.reshape(6, -1), strict=True)):
        wanted = reference.forward(reference.integers(a[row]), moduli[i], ring.roots[i])
        assert found.tolist() == wanted.tolist()
    ntt.inverse(ring, x, mods)
    np.testing.assert_array_equal(x.reshape(a.shape), a)


def test_arrays_that_do_not_fit_are_refused(instructions: InstructionSet) -> None:
    ring = Ring(5, primes(40, 5), instructions=instructions)
    bad = [
        np.zeros((1, 16), dtype=np.uint64),
        np.zeros((1, 32), dtype=np.int64),
        np.zeros((2, 32), dtype=np.uint64),
        np.zeros((1, 64), dtype=np.uint64)[:, ::2],
    ]
    for x in bad:
        with pytest.raises(InternalError):
            ntt.forward(ring, x)  # type: ignore[arg-type]


def test_moduli_without_a_transform_are_refused(instructions: InstructionSet) -> None:
    for log_n, q in ((5, 97 * 64 + 1), (2, 97), (18, 97)):
        with pytest.raises(ParameterError):
            Ring(log_n, (q,), instructions=instructions)
    with pytest.raises(ParameterError, match="below 2"):
        Ring(5, ((1 << 61) - 1,), instructions=instructions)


def _some_root(q: int, log_n: int) -> int:
    """Return a primitive root without the long search for the smallest."""
    for base in range(2, 1000):
        root = pow(base, (q - 1) >> (log_n + 1), q)
        if pow(root, 1 << log_n, q) == q - 1:
            return root
    raise AssertionError("no root")
