"""Packed rows against the array they stand for, in memory and on disk."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from tacit.constant_file import constants_from_bytes, constants_to_bytes
from tacit.errors import ArtifactError, CircuitError
from tacit.packed_rows import PackedRows, pack_rows, rotated

Floats = NDArray[np.float64]


def _drawn(distinct: int, rows: int, period: int) -> tuple[Floats, PackedRows]:
    """Draw rows of which half is zero, from so many distinct numbers; length 4 periods."""
    generator = np.random.default_rng(distinct)
    dense = generator.normal(size=distinct)[generator.integers(0, distinct, (rows, period))]
    dense *= generator.random((rows, period)) < 0.5
    row, column = np.nonzero(dense)
    packed = pack_rows((row, column), dense[row, column], (rows, period), 4 * period)
    shifts = generator.integers(0, 4 * period, rows)
    expected = [np.roll(np.tile(row, 4), s) for row, s in zip(dense, shifts, strict=True)]
    return np.stack(expected), rotated(packed, shifts, 4 * period)


@pytest.mark.parametrize(
    ("distinct", "kind"), [(3, "uint8"), (255, "uint8"), (300, "uint16"), (9000, "float64")]
)
def test_rows_read_as_the_array_they_stand_for(distinct: int, kind: str) -> None:
    expected, packed = _drawn(distinct, 12, 512)
    assert packed.stored.dtype == kind
    assert packed.shape == expected.shape
    assert np.array_equal(np.asarray(packed), expected)
    assert all(np.array_equal(a, b) for a, b in zip(packed, expected, strict=True))
    assert packed.nbytes < expected.nbytes / 3


@pytest.mark.parametrize("distinct", [3, 300, 9000])
def test_rows_survive_a_file(distinct: int) -> None:
    expected, packed = _drawn(distinct, 12, 512)
    content = constants_to_bytes({"rows": cast("Floats", packed), "bias": expected[0]})
    again = constants_from_bytes(content, "weights")
    rows = cast("object", again["rows"])
    assert isinstance(rows, PackedRows)
    assert np.array_equal(np.asarray(rows), expected)
    assert np.array_equal(again["bias"], expected[0])
    assert constants_to_bytes(again) == content


def test_damage_is_found() -> None:
    _, packed = _drawn(300, 12, 512)
    content = constants_to_bytes({"rows": cast("Floats", packed)})
    with pytest.raises(ArtifactError, match="damaged"):
        constants_from_bytes(content[: len(content) // 2], "weights")
    bad = bytearray(content)
    bad[content.index(b"uint16") : content.index(b"uint16") + 6] = b"uint64"
    with pytest.raises(ArtifactError):
        constants_from_bytes(bytes(bad), "weights")


def test_rows_that_contradict_themselves_are_refused() -> None:
    codes, shifts = np.zeros((2, 4), dtype=np.uint8), np.zeros(2, dtype=np.int64)
    with pytest.raises(CircuitError, match="repeat"):
        PackedRows(codes, np.zeros(1), shifts, 6)
    with pytest.raises(CircuitError, match="codebook"):
        PackedRows(codes, np.zeros(0), shifts, 8)
    with pytest.raises(CircuitError, match="outside"):
        PackedRows(codes + np.uint8(1), np.zeros(1), shifts, 8)
    with pytest.raises(CircuitError, match="shift"):
        PackedRows(codes, np.zeros(1), shifts[:1], 8)
