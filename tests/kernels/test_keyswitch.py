"""Base conversion, key switching and rescaling against plain integers, at every level."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tacit.errors import InternalError
from tacit.kernels import reference
from tacit.kernels.automorphism import apply, automorphism
from tacit.kernels.basis import Basis, mod_down, mod_up
from tacit.kernels.keyswitch import (
    KeyPointers,
    Turn,
    key_product,
    switch,
    switch_scratch,
)
from tacit.kernels.library import InstructionSet
from tacit.kernels.rescale import rescale
from tacit.kernels.ring import Ring
from tests.kernels.residues import Limbs, extreme, primes, residues

LOG_N = 7
# Moduli of Q, of P, digits: narrow and wide primes in every combination of source and target.
BASES = {
    "narrow": ([45, 40, 40, 40], [60], 4),
    "wide first": ([60, 49, 50, 50, 50, 50], [60, 60], 3),
    "all wide": ([60, 55, 55], [60, 60, 60], 1),
    "narrow specials": ([50, 30, 45, 36, 50], [50, 49, 48], 2),
    "one limb": ([51], [60], 1),
}


def _ring(name: str, instructions: InstructionSet, threads: int = 1) -> tuple[Ring, int, int]:
    bits, special, dnum = BASES[name]
    moduli: list[int] = []
    for size in (*bits, *special):
        moduli.append(next(q for q in primes(size, LOG_N, 8) if q not in moduli))
    return Ring(LOG_N, moduli, instructions=instructions, threads=threads), len(bits), dnum


def _inputs(rng: np.random.Generator, moduli: tuple[int, ...], n: int) -> list[Limbs]:
    return [residues(rng, moduli, n), extreme(moduli, n, "top"), extreme(moduli, n, "sawtooth")]


def _same(found: Limbs, wanted: Any) -> None:
    assert found.tolist() == [row.tolist() for row in wanted]


@pytest.fixture(params=list(BASES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("threads", [1, 2])
def test_key_switches_equal_plain_ones(
    instructions: InstructionSet, name: str, threads: int
) -> None:
    ring, full, dnum = _ring(name, instructions, threads)
    rng = np.random.default_rng(full)
    special, n = ring.moduli[full:], ring.n
    key = np.stack([[residues(rng, ring.moduli, n) for _ in range(dnum)] for _ in range(2)])
    for limbs in range(1, full + 1):
        basis = Basis(ring, limbs, full, dnum)
        rows = [*range(limbs), *range(full, len(ring.moduli))]
        roots = [ring.roots[i] for i in rows]
        digits = np.empty((basis.digits, basis.rows, n), dtype=np.uint64)
        product = np.empty((2, basis.rows, n), dtype=np.uint64)
        again = np.empty_like(product)
        out = np.empty((2, limbs, n), dtype=np.uint64)
        scratch = np.empty_like(out)
        rows_of_scratch = np.empty((switch_scratch(basis), n), dtype=np.uint64)
        for a in _inputs(rng, ring.moduli[:limbs], n)[: 1 if limbs < full else 3]:
            half = reference.integers(key[:, :, rows])
            wanted = reference.key_switch(
                reference.integers(a), half, ring.moduli[:limbs], special, basis.alpha, roots
            )
            mod_up(basis, a, digits, scratch[0])
            key_product(basis, a, digits, key, product)
            switch(basis, a, key, again, rows_of_scratch)
            np.testing.assert_array_equal(product, again)
            mod_down(basis, product, (None, a), out)
            _same(out[0], wanted[0])
            plain = reference.integers(a)
            sums = [(w + p) % q for w, p, q in zip(wanted[1], plain, ring.moduli, strict=False)]
            _same(out[1], sums)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("batch", [1, 2])
def test_products_are_permuted_as_afterwards(
    instructions: InstructionSet, name: str, threads: int, batch: int
) -> None:
    ring, full, dnum = _ring(name, instructions, threads)
    rng = np.random.default_rng(full)
    keys = [
        np.stack([[residues(rng, ring.moduli, ring.n) for _ in range(dnum)] for _ in range(2)])
        for _ in range(batch)
    ]
    pointers, moved = (
        KeyPointers(ring, keys, len(ring.moduli) - full),
        automorphism(ring, 2 * ring.n - 5),
    )
    for limbs in (1, full):
        basis = Basis(ring, limbs, full, dnum)
        rows = ring.moduli[:limbs] + ring.moduli[full:]
        mods, shape = np.tile(basis.mods, 2), (2, basis.rows, batch, ring.n)

        def draw(moduli: tuple[int, ...], batch: int = batch) -> Limbs:
            entries = [residues(rng, moduli, ring.n) for _ in range(batch)]
            return np.ascontiguousarray(np.stack(entries, axis=1))

        a, plus = draw(rows[:limbs]), draw(rows)
        before = np.stack([draw(rows), draw(rows)])
        product = np.empty(shape, dtype=np.uint64)
        scratch = np.empty((switch_scratch(basis), batch, ring.n), dtype=np.uint64)
        switch(basis, a, pointers, product, scratch)
        digits = np.empty((basis.digits, basis.rows, batch, ring.n), dtype=np.uint64)
        mod_up(basis, a, digits, np.empty_like(a), batch=batch)
        for accumulate in (False, True):
            wanted = before.copy()
            apply(
                *(ring, moved, product, mods),
                plus=plus,
                accumulate=accumulate,
                out=wanted,
                batch=batch,
            )
            turn = Turn(moved, plus, accumulate)
            found = before.copy()
            switch(basis, a, pointers, found, scratch, turn=turn)
            np.testing.assert_array_equal(found, wanted)
            found = before.copy()
            sums = np.empty((2 * threads, batch, ring.n), dtype=np.uint64)
            key_product(basis, a, digits, pointers, found, turn=turn, scratch=sums)
            np.testing.assert_array_equal(found, wanted)
        with pytest.raises(InternalError, match="scratch"):
            key_product(basis, a, digits, pointers, product, turn=turn)


@pytest.mark.parametrize("threads", [1, 2])
def test_trimmed_keys_have_all_that_lower_levels_read(
    instructions: InstructionSet, name: str, threads: int
) -> None:
    """Whatever a key is trimmed to, the products below are those of the full key."""
    ring, full, dnum = _ring(name, instructions, threads)
    rng, n = np.random.default_rng(full), ring.n
    key = np.stack([[residues(rng, ring.moduli, n) for _ in range(dnum)] for _ in range(2)])
    for held in range(1, full + 1):
        digits = Basis(ring, held, full, dnum).digits
        rows = [*range(held), *range(full, len(ring.moduli))]
        small = np.ascontiguousarray(key[:, :digits, rows])
        for limbs in range(1, held + 1):
            basis = Basis(ring, limbs, full, dnum)
            a = residues(rng, ring.moduli[:limbs], n)
            scratch = np.empty((switch_scratch(basis), n), dtype=np.uint64)
            extended = np.empty((basis.digits, basis.rows, n), dtype=np.uint64)
            wanted, found, again = (np.empty((2, basis.rows, n), dtype=np.uint64) for _ in range(3))
            mod_up(basis, a, extended, scratch[:limbs])
            switch(basis, a, key, wanted, scratch)
            switch(basis, a, small, found, scratch)
            key_product(basis, a, extended, small, again)
            np.testing.assert_array_equal(found, wanted)
            np.testing.assert_array_equal(again, wanted)
        if held < full:
            higher = Basis(ring, held + 1, full, dnum)
            a = np.zeros((held + 1, n), dtype=np.uint64)
            out = np.zeros((2, higher.rows, n), dtype=np.uint64)
            space = np.zeros((higher.digits, higher.rows, n), dtype=np.uint64)
            with pytest.raises(InternalError, match="a key of"):
                key_product(higher, a, space, small, out)


def test_rescaling_rounds_to_the_nearest(instructions: InstructionSet, name: str) -> None:
    ring, full, dnum = _ring(name, instructions)
    rng = np.random.default_rng(full)
    for limbs in range(2, full + 1):
        moduli, roots = ring.moduli[:limbs], ring.roots[:limbs]
        basis = Basis(ring, limbs, full, dnum)
        x = np.stack(_inputs(rng, moduli, ring.n))
        out = np.empty((3, limbs - 1, ring.n), dtype=np.uint64)
        rescale(basis, x, out, np.empty((3, ring.n), dtype=np.uint64))
        for found, a in zip(out, x, strict=True):
            coefficients = [
                reference.inverse(row, q, r)
                for row, q, r in zip(reference.integers(a), moduli, roots, strict=True)
            ]
            low = reference.rescale(coefficients, moduli)
            _same(
                found,
                [reference.forward(c, q, r) for c, q, r in zip(low, moduli, roots, strict=False)],
            )


def test_the_plain_conversion_is_off_by_less_than_its_number_of_moduli() -> None:
    source, target = primes(40, 4, 3), primes(60, 4)[0]
    product = source[0] * source[1] * source[2]
    rng = np.random.default_rng(0)
    values = [int(v) * product >> 62 for v in rng.integers(0, 1 << 62, 50)]
    x = [reference.integers([v % q for v in values]) for q in source]
    for value, found in zip(values, reference.convert(x, source, target), strict=True):
        assert found in {(value + u * product) % target for u in range(len(source))}


def test_a_plain_rescale_divides_and_rounds() -> None:
    moduli = primes(30, 4, 3)
    product = moduli[0] * moduli[1] * moduli[2]
    values = [0, 1, moduli[2] // 2, moduli[2] // 2 + 1, product // 3, product // 2]
    low = reference.rescale([reference.integers([v % q for v in values]) for q in moduli], moduli)
    for i, value in enumerate(values):
        nearest = (2 * value + moduli[2]) // (2 * moduli[2])
        assert [int(limb[i]) for limb in low] == [nearest % q for q in moduli[:2]]


def test_keys_of_another_shape_are_refused(instructions: InstructionSet) -> None:
    ring, full, dnum = _ring("narrow", instructions)
    basis = Basis(ring, full, full, dnum)
    a = np.zeros((full, ring.n), dtype=np.uint64)
    digits = np.zeros((basis.digits, basis.rows, ring.n), dtype=np.uint64)
    out = np.zeros((2, basis.rows, ring.n), dtype=np.uint64)
    for shape in ((2, dnum - 1, basis.rows), (1, dnum, basis.rows), (2, dnum, basis.rows - 1)):
        with pytest.raises(InternalError, match="a key of"):
            key_product(basis, a, digits, np.zeros((*shape, ring.n), dtype=np.uint64), out)
