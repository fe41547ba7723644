"""Key switches under fibres, fused with what surrounds them, equal the CPU engine's own steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tacit.errors import InternalError
from tacit.kernels import elementwise
from tacit.kernels.cuda.driver import Driver
from tacit.kernels.cuda.keys import CudaKeyTable
from tacit.kernels.cuda.memory import DeviceArray
from tacit.kernels.cuda.shim import Shim
from tacit.kernels.cuda.structures import MOST_TURNS
from tests.kernels.cuda.engines import Engines, entry, make_engines
from tests.kernels.cuda.oracle import divided, extended_mods, moved, product, with_sums
from tests.kernels.residues import Limbs

ELEMENTS = (1, 3, 77, 255)
OWNERS = (0, 1, 1)  # of the entries of a batch: two share a key
BATCH = len(OWNERS)


def _levels(engines: Engines) -> Sequence[int]:
    top = engines.params.depth
    return sorted({0, top // 2, top})


def _keys(engines: Engines, turns: int) -> tuple[list[list[Limbs]], list[CudaKeyTable]]:
    """Keys [turn][owner], and a table for each turn."""
    keys = [[engines.key() for _ in range(max(OWNERS) + 1)] for _ in range(turns)]
    cuda, tables = engines.cuda, []
    for each in keys:
        uploaded = [cuda.upload_key(key) for key in each]
        tables.append(cuda.key_table([uploaded[owner] for owner in OWNERS]))
    return keys, tables


def _check(engines: Engines, found: DeviceArray, wanted: Sequence[Limbs]) -> None:
    words = engines.cuda.download(found)
    assert words.shape[2] == len(wanted)
    for index, expected in enumerate(wanted):
        np.testing.assert_array_equal(entry(words, index), expected)


def test_digits_are_extended_as_on_the_cpu(engines: Engines) -> None:
    """Through a key whose only entry is one in a digit: the product is the digit itself."""
    cuda, level = engines.cuda, engines.params.depth
    a = engines.over_q(level, 1)
    key = np.zeros_like(engines.key())
    key[0] = 1
    table = cuda.key_table([cuda.upload_key(key)])
    (found,) = cuda.turned(cuda.upload(a), [table], [cuda.galois(1)])
    _check(engines, found, [product(engines, entry(a, 0)[0], key)])


def test_products_with_keys_move_and_take_sums(engines: Engines) -> None:
    cuda = engines.cuda
    keys, tables = _keys(engines, len(ELEMENTS))
    moves = [cuda.galois(element) for element in ELEMENTS]
    for level in _levels(engines):
        a = engines.over_q(level, 1, BATCH)
        x, rows = cuda.upload(a), level + 1 + len(engines.params.special_moduli)
        mods = extended_mods(engines, rows)
        for plus in (None, engines.over_q(level, 1, BATCH), engines.over_qp(level, 1, BATCH)):
            added = None if plus is None else cuda.upload(plus)
            into = engines.over_qp(level, 2, BATCH)
            wanted = [
                [
                    _turned(engines, a, plus, keys[turn][owner], element, i)
                    for i, owner in enumerate(OWNERS)
                ]
                for turn, element in enumerate(ELEMENTS)
            ]
            for found, expected in zip(
                cuda.turned(x, tables, moves, plus=added), wanted, strict=True
            ):
                _check(engines, found, expected)
            target = cuda.upload(into)
            (total,) = cuda.turned(x, tables, moves, plus=added, into=target)
            assert total is target
            sums = [entry(into, i) for i in range(BATCH)]
            for each in wanted:
                sums = [
                    elementwise.add(engines.ring, s, w, mods)  # type: ignore[arg-type]
                    for s, w in zip(sums, each, strict=True)
                ]
            _check(engines, total, sums)


def _turned(
    engines: Engines, a: Limbs, plus: Limbs | None, key: Limbs, element: int, index: int
) -> Limbs:
    made = product(engines, entry(a, index)[0], key)
    if plus is not None:
        added = entry(plus, index)[0]
        rows = len(added)
        mods = extended_mods(engines, made.shape[1])[:rows]
        made[0, :rows] = elementwise.add(engines.ring, made[0, :rows].copy(), added, mods)  # type: ignore[arg-type]
    return moved(engines, made, element, extended_mods(engines, made.shape[1]))


def test_switches_that_are_divided_by_p_take_everything_that_may_be_added(
    engines: Engines,
) -> None:
    cuda = engines.cuda
    keys, tables = _keys(engines, len(ELEMENTS))
    moves = [cuda.galois(element) for element in ELEMENTS]
    for level in _levels(engines):
        a, plus = (engines.over_q(level, 1, BATCH) for _ in range(2))
        shared = engines.over_q(engines.params.depth, 1)
        x, added, common = (cuda.upload(words) for words in (a, plus, shared))
        plain = cuda.switch_down(x, tables, moves)
        full = cuda.switch_down(x, tables, moves, plus=(added, None), shared=common)
        for turn, element in enumerate(ELEMENTS):
            wanted, sums = [], []
            for i, owner in enumerate(OWNERS):
                switched = product(engines, entry(a, i)[0], keys[turn][owner])
                wanted.append(divided(engines, switched, element))
                first = moved(engines, entry(plus, i)[0], element)
                limbs = shared[0, : level + 1, 0].copy()
                sums.append(with_sums(engines, wanted[-1], first, limbs))
            _check(engines, plain[turn], wanted)
            _check(engines, full[turn], sums)


def test_products_of_ciphertexts_are_relinearised(engines: Engines) -> None:
    cuda, ring = engines.cuda, engines.ring
    keys, (table,) = _keys(engines, 1)
    for level in _levels(engines):
        a, b = (engines.over_q(level, batch=BATCH) for _ in range(2))
        wanted = []
        for i, owner in enumerate(OWNERS):
            three = elementwise.tensor(ring, entry(a, i), entry(b, i))
            found = divided(engines, product(engines, three[2], keys[0][owner]), 1)
            low = [elementwise.add(ring, f, t) for f, t in zip(found, three, strict=False)]
            wanted.append(np.stack(low))
        _check(engines, cuda.multiply(cuda.upload(a), cuda.upload(b), table), wanted)


def test_trimmed_keys_have_all_that_lower_levels_read(engines: Engines) -> None:
    """Keys of several shapes as turns of one launch: whole, and cut to a level."""
    cuda, top = engines.cuda, engines.params.depth
    key, special = engines.key(), range(engines.full, len(engines.ring.moduli))
    whole = cuda.key_table([cuda.upload_key(key)])
    moves = [cuda.galois(element) for element in (3, 3, 1)]
    for held in sorted({0, top // 2, top}):
        digits = engines.basis(held).digits
        small = np.ascontiguousarray(key[:, :digits, [*range(held + 1), *special]])
        uploaded = cuda.upload_key(small)
        assert uploaded.nbytes == small.nbytes
        trimmed = cuda.key_table([uploaded])
        for level in sorted({0, held // 2, held}):
            x = cuda.upload(engines.over_q(level, 1))
            for operation in (cuda.turned, cuda.switch_down):
                wanted, found, _ = operation(x, [whole, trimmed, whole], moves)
                np.testing.assert_array_equal(cuda.download(found), cuda.download(wanted))
        if held < top:
            above = cuda.upload(engines.over_q(held + 1, 1))
            with pytest.raises(InternalError, match="limbs of Q"):
                cuda.switch_down(above, [trimmed], moves[:1])
            with pytest.raises(InternalError, match="one shape"):
                cuda.key_table([uploaded, *whole.keys])


def test_sums_of_products_are_relinearised_once(engines: Engines) -> None:
    cuda, ring = engines.cuda, engines.ring
    keys, (table,) = _keys(engines, 1)
    level = engines.params.depth
    a, b, plus = (engines.over_q(level, batch=BATCH) for _ in range(3))
    x, y, added = (cuda.upload(words) for words in (a, b, plus))
    for pairs, more in (([(a, b)], None), ([(a, b), (b, b)], plus), ([(a, a)], plus)):
        wanted = []
        for i, owner in enumerate(OWNERS):
            three: Limbs = np.zeros((3, level + 1, engines.params.n), dtype=np.uint64)
            for first, second in pairs:
                made = elementwise.tensor(ring, entry(first, i), entry(second, i))
                three = np.stack(
                    [elementwise.add(ring, s, m) for s, m in zip(three, made, strict=True)]
                )
            found = divided(engines, product(engines, three[2].copy(), keys[0][owner]), 1)
            low = [elementwise.add(ring, f, t) for f, t in zip(found, three, strict=False)]
            if more is not None:
                low = [
                    elementwise.add(ring, f, p) for f, p in zip(low, entry(more, i), strict=True)
                ]
            wanted.append(np.stack(low))
        device = {id(a): x, id(b): y}
        uploaded = [(device[id(first)], device[id(second)]) for first, second in pairs]
        found_sum = cuda.multiply_sum(uploaded, table, None if more is None else added)
        _check(engines, found_sum, wanted)


@pytest.mark.parametrize("turns", [17, MOST_TURNS + 1])
def test_more_automorphisms_than_one_launch_takes(
    shim: Shim, shim_driver: Driver, turns: int
) -> None:
    engines = make_engines(shim, shim_driver, "narrow")
    cuda, level = engines.cuda, engines.params.depth
    key = engines.key()
    tables = [cuda.key_table([cuda.upload_key(key)])] * turns
    elements = [2 * turn + 1 for turn in range(turns)]
    moves = [cuda.galois(element) for element in elements]
    a = engines.over_q(level, 1)
    x, switched = cuda.upload(a), product(engines, entry(a, 0)[0], key)
    mods = extended_mods(engines, switched.shape[1])
    extended, down = cuda.turned(x, tables, moves), cuda.switch_down(x, tables, moves)
    for element, over_qp, over_q in zip(elements, extended, down, strict=True):
        _check(engines, over_qp, [moved(engines, switched, element, mods)])
        _check(engines, over_q, [divided(engines, switched, element)])
