"""Every operation under fibres equals the CPU engine, entry by entry of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tacit.errors import CircuitError, InternalError, ParameterError
from tacit.kernels import elementwise, encode
from tacit.kernels.cuda.driver import Driver
from tacit.kernels.cuda.memory import DeviceArray
from tacit.kernels.cuda.shim import Shim
from tacit.kernels.cuda.structures import MOST_TERMS
from tacit.kernels.rescale import rescale
from tests.kernels.cuda.engines import Engines, entry, make_engines
from tests.kernels.cuda.oracle import divided, with_sums
from tests.kernels.residues import Limbs

BATCH = 3


def _empty(*shape: int) -> Limbs:
    return np.empty(shape, dtype=np.uint64)


def _levels(engines: Engines) -> Sequence[int]:
    top = engines.params.depth
    return sorted({0, top // 2, top})


def _mods(rows: int, components: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint32]]:
    return np.tile(np.arange(rows, dtype=np.uint32), components)


def _check(engines: Engines, found: DeviceArray, wanted: Sequence[Limbs]) -> None:
    """Compare with one array [component][row][N] per batch entry."""
    words = engines.cuda.download(found)
    assert words.shape[2] == len(wanted)
    for index, expected in enumerate(wanted):
        np.testing.assert_array_equal(entry(words, index), expected)


def test_sums_differences_and_negatives(engines: Engines) -> None:
    cuda, ring = engines.cuda, engines.ring
    for level in _levels(engines):
        a, b = (engines.over_q(level, batch=BATCH) for _ in range(2))
        x, y = cuda.upload(a), cuda.upload(b)
        mods = _mods(level + 1, 2)
        pairs = [(entry(a, i), entry(b, i)) for i in range(BATCH)]
        _check(engines, cuda.add(x, y), [elementwise.add(ring, u, v, mods) for u, v in pairs])
        differences = [elementwise.subtract(ring, u, v, mods) for u, v in pairs]
        _check(engines, cuda.subtract(x, y), differences)
        _check(engines, cuda.negate(x), [elementwise.negate(ring, u, mods) for u, _ in pairs])


def test_products_with_constants_and_sums_with_plaintexts(engines: Engines) -> None:
    cuda, ring = engines.cuda, engines.ring
    for level in _levels(engines):
        a, plain = engines.over_q(level, batch=BATCH), engines.over_q(level, 1)
        x = cuda.upload(a)
        constants = np.ascontiguousarray(plain[0, :, 0, 0])
        mods, twice = _mods(level + 1, 2), np.tile(constants, 2)
        entries = [entry(a, i) for i in range(BATCH)]
        scaled = [elementwise.scale(ring, u, twice, mods) for u in entries]
        _check(engines, cuda.scale(x, constants), scaled)
        shorter = [np.ascontiguousarray(s[:, :level]) for s in scaled]
        if level:
            _check(engines, cuda.scale(x, constants[:level].copy()), shorter)
        shifted = [elementwise.add_constant(ring, u[0], constants) for u in entries]
        added = [elementwise.add(ring, u[0], np.ascontiguousarray(plain[0, :, 0])) for u in entries]
        for found, first in (
            (cuda.add_constant(x, constants), shifted),
            (cuda.add_plain(x, cuda.upload(plain)), added),
        ):
            _check(
                engines, found, [np.stack([f, u[1]]) for f, u in zip(first, entries, strict=True)]
            )


@pytest.mark.parametrize("extended", [False, True])
def test_sums_of_products_with_plaintexts(engines: Engines, extended: bool) -> None:
    cuda, level = engines.cuda, engines.params.depth
    draw = engines.over_qp if extended else engines.over_q
    mods = engines.basis(level).mods if extended else None
    counts = (1, 5, MOST_TERMS + 3)
    a = [draw(level, batch=2) for _ in range(4)]
    b = [draw(level, 1) for _ in range(4)]
    x, y = [cuda.upload(u) for u in a], [cuda.upload(v) for v in b]
    picks = [[(t % 4, (t * t + t) // 2 % 4) for t in range(count)] for count in counts]
    found = cuda.dot_pairs(
        [[(x[s], y[t]) for s, t in terms] for terms in picks], level, extended=extended
    )
    out = [[_empty(2, a[0].shape[1], a[0].shape[3]) for _ in counts] for _ in range(2)]
    for index in range(2):
        terms = [[(entry(a[s], index), b[t][0, :, 0].copy()) for s, t in pick] for pick in picks]
        elementwise.dot_pairs(engines.ring, terms, out[index], mods)
    for o, made in enumerate(found):
        _check(engines, made, [out[index][o] for index in range(2)])


@pytest.mark.parametrize("terms", [1, 7, MOST_TERMS + 2])
def test_weighted_sums(engines: Engines, terms: int) -> None:
    cuda, level, outputs = engines.cuda, engines.params.depth, 6
    distinct = [engines.over_q(level, batch=2) for _ in range(3)]
    uploaded = [cuda.upload(u) for u in distinct]
    moduli = engines.params.moduli
    weights = np.array(
        [engines.rng.integers(0, q, (outputs, terms), dtype=np.uint64) for q in moduli]
    )
    found = cuda.combine([uploaded[t % 3] for t in range(terms)], cuda.upload(weights))
    doubled = np.ascontiguousarray(np.concatenate([weights, weights]))
    mods = _mods(level + 1, 2)
    wanted = [
        elementwise.combine(
            engines.ring, [entry(distinct[t % 3], i) for t in range(terms)], doubled, mods
        )
        for i in range(2)
    ]
    for o, made in enumerate(found):
        _check(engines, made, [wanted[i][o] for i in range(2)])


def test_batches_are_joined_and_split(engines: Engines) -> None:
    cuda, level = engines.cuda, engines.params.depth
    parts = [engines.over_q(level, batch=batch) for batch in (1, 3, 2)]
    joined = cuda.join([cuda.upload(part) for part in parts])
    whole = np.concatenate(parts, axis=2)
    np.testing.assert_array_equal(cuda.download(joined), whole)
    for index, alone in enumerate(cuda.split(joined)):
        np.testing.assert_array_equal(cuda.download(alone)[:, :, 0], whole[:, :, index])
    np.testing.assert_array_equal(cuda.download(cuda.part(joined, 1)), whole[1:])


def test_rescaling(engines: Engines) -> None:
    cuda = engines.cuda
    for level in [at for at in _levels(engines) if at > 0]:
        for components in (2, 3):
            a = engines.over_q(level, components, BATCH)
            wanted = []
            for i in range(BATCH):
                out = _empty(components, level, engines.params.n)
                scratch = _empty(components, engines.params.n)
                rescale(engines.basis(level), entry(a, i), out, scratch)
                wanted.append(out)
            _check(engines, cuda.rescale(cuda.upload(a)), wanted)


def test_division_by_p_with_everything_that_may_be_added(engines: Engines) -> None:
    cuda = engines.cuda
    for level in _levels(engines):
        x = engines.over_qp(level, 2, BATCH)
        plus = engines.over_q(level, 1, BATCH)
        shared = engines.over_q(engines.params.depth, 1)
        plain = cuda.mod_down(level, cuda.upload(x))
        full = cuda.mod_down(
            *(level, cuda.upload(x)),
            plus=(cuda.upload(plus), None),
            shared=cuda.upload(shared),
        )
        wanted = [divided(engines, entry(x, i), 1) for i in range(BATCH)]
        _check(engines, plain, wanted)
        sums = [
            with_sums(engines, found, entry(plus, i)[0], shared[0, : level + 1, 0].copy())
            for i, found in enumerate(wanted)
        ]
        _check(engines, full, sums)


def test_products_with_p(engines: Engines) -> None:
    cuda, ring = engines.cuda, engines.ring
    for level in _levels(engines):
        basis = engines.basis(level)
        a = engines.over_q(level, batch=BATCH)
        wanted = []
        for i in range(BATCH):
            out = np.zeros((2, basis.rows, engines.params.n), dtype=np.uint64)
            for part, target in zip(entry(a, i), out, strict=True):
                target[: basis.limbs] = elementwise.scale(ring, part, basis.p_product)
            wanted.append(out)
        _check(engines, cuda.times_p(cuda.upload(a)), wanted)


def test_complex_slots_are_encoded_as_on_the_cpu(engines: Engines) -> None:
    angles = engines.rng.uniform(0, 2 * np.pi, engines.params.slots)
    slots = np.exp(1j * angles)
    level, transform = engines.params.depth, encode.SlotTransform(engines.params.log_n)
    coefficients = transform.coefficients(slots)
    wanted = encode.encode(engines.ring, coefficients, 2.0**55, None, level + 1)
    found = engines.cuda.encode(slots, 2.0**55, level)
    _check(engines, found, [wanted[None]])


@pytest.mark.parametrize("log_scale", [0, 20, 55, 62, 70, 300, 900])
def test_encoding_takes_doubles_of_any_size(engines: Engines, log_scale: int) -> None:
    cuda, ring = engines.cuda, engines.ring
    slots = engines.rng.uniform(-1, 1, engines.params.slots)
    slots[:3] = (0, 1, -1)
    coefficients = encode.SlotTransform(engines.params.log_n).coefficients(slots)
    for level in _levels(engines):
        basis = engines.basis(level)
        for extended, mods, rows in ((False, None, basis.limbs), (True, basis.mods, basis.rows)):
            wanted = encode.encode(ring, coefficients, 2.0**log_scale, mods, rows)
            found = cuda.encode(slots, 2.0**log_scale, level, extended=extended)
            _check(engines, found, [wanted[None]])


@pytest.fixture(scope="module")
def one(shim: Shim, shim_driver: Driver) -> Engines:
    return make_engines(shim, shim_driver, "narrow")


def test_constants_that_are_not_finite_are_refused(one: Engines) -> None:
    slots = np.zeros(one.params.slots)
    for value, scale in ((np.nan, 1.0), (np.inf, 1.0), (1e300, 1e300), (1.0, 1e305)):
        slots[1] = value
        with pytest.raises(CircuitError, match="not finite"):
            one.cuda.encode(slots, scale, 0)


def test_elements_that_are_no_automorphism_are_refused(one: Engines) -> None:
    for element in (0, 2, -1, 2 * one.params.n, 2 * one.params.n + 1):
        with pytest.raises(ParameterError, match="odd number"):
            one.cuda.galois(element)


def test_shapes_that_do_not_fit_are_refused(one: Engines) -> None:
    cuda = one.cuda
    a, b = (cuda.upload(one.over_q(level)) for level in (2, 1))
    key = cuda.upload_key(one.key())
    with pytest.raises(InternalError, match="differ"):
        cuda.add(a, b)
    with pytest.raises(InternalError, match="does not fit"):
        cuda.add_plain(a, cuda.upload(one.over_q(1, 1)))
    table, one_turn = cuda.key_table([key]), [cuda.galois(5)]
    with pytest.raises(InternalError, match="two ciphertexts"):
        cuda.multiply(a, b, table)
    with pytest.raises(InternalError, match="does not fit"):
        cuda.join([a, b])
    with pytest.raises(InternalError, match="does not give"):
        cuda.dot_pairs([[(a, cuda.upload(one.over_q(1, 1)))]], 2)
    with pytest.raises(InternalError, match="upload_key"):
        cuda.key_table([a])  # type: ignore[list-item]
    with pytest.raises(InternalError, match="key of shape"):
        cuda.upload_key(one.over_q(2))
    with pytest.raises(InternalError, match="keys"):
        cuda.turned(cuda.part(a, 0), [cuda.key_table([key, key])], one_turn)
    with pytest.raises(InternalError, match="keys for batches"):
        cuda.switch_down(cuda.part(a, 0), [table, table], one_turn)
    with pytest.raises(InternalError, match="digits"):
        cuda.switch_down(a, [table], one_turn)
    with pytest.raises(InternalError, match="over QP expected"):
        cuda.turned(cuda.part(a, 0), [table], one_turn, into=a)
    with pytest.raises(InternalError, match="no sparse secret"):
        cuda.to_sparse(a, table)
    with pytest.raises(InternalError, match="over QP"):
        cuda.mod_down(2, a)
    with pytest.raises(InternalError, match="weights"):
        cuda.combine([a], cuda.upload(np.zeros((1, 1, 1), dtype=np.uint64)))
