import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tacit.errors import ArtifactError, InputShapeError
from tacit.layout import Layout


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    slots = 2 ** draw(st.integers(2, 7))
    batch = 2 ** draw(st.integers(0, slots.bit_length() - 1))
    ciphertexts = draw(st.integers(1, 3))
    cells = ciphertexts * (slots // batch)
    size = draw(st.integers(1, cells))
    order = np.array(draw(st.permutations(range(cells))), dtype=np.int64)
    return Layout(slots, batch, ciphertexts, order[None, :size])


@settings(max_examples=100, deadline=None)
@given(layouts(), st.data())
def test_unpack_undoes_pack(layout: Layout, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, layout.batch))
    rows = np.arange(count * layout.size, dtype=np.float64).reshape(count, layout.size) + 1
    np.testing.assert_array_equal(layout.unpack(layout.pack(rows), count), rows)


@settings(max_examples=100, deadline=None)
@given(layouts())
def test_json_keeps_a_layout(layout: Layout) -> None:
    again = Layout.from_json(json.loads(json.dumps(layout.to_json())))
    assert (again.slots, again.batch, again.ciphertexts) == (
        layout.slots,
        layout.batch,
        layout.ciphertexts,
    )
    np.testing.assert_array_equal(again.cells, layout.cells)


def test_every_copy_holds_the_element_and_other_slots_are_zero() -> None:
    layout = Layout(16, 2, 1, np.array([[0, 1, 2], [5, -1, 4]]))
    packed = layout.pack(np.array([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]]))
    cells = packed.reshape(8, 2)
    np.testing.assert_array_equal(cells[[0, 5]], [[1, 10], [1, 10]])
    np.testing.assert_array_equal(cells[[2, 4]], [[3, 30], [3, 30]])
    np.testing.assert_array_equal(cells[[3, 6, 7]], np.zeros((3, 2)))


def test_slot_per_sample_is_one_ciphertext_per_element() -> None:
    layout = Layout(8, 8, 3, np.arange(3)[None])
    rows = np.random.default_rng(1).normal(size=(5, 3))
    packed = layout.pack(rows)
    assert packed.shape == (3, 8)
    np.testing.assert_array_equal(packed[:, :5], rows.T)
    np.testing.assert_array_equal(packed[:, 5:], 0)


def test_too_many_rows_are_refused() -> None:
    layout = Layout(8, 2, 1, np.arange(3)[None])
    with pytest.raises(InputShapeError, match="at most 2 rows of 3"):
        layout.pack(np.zeros((3, 3)))


@pytest.mark.parametrize(
    "cells",
    [np.array([[0, 0]]), np.array([[0, 9]]), np.array([[-1, 1]]), np.zeros((1, 0), dtype=np.int64)],
)
def test_impossible_cells_are_refused(cells: NDArray[np.int64]) -> None:
    with pytest.raises(ArtifactError):
        Layout(8, 2, 1, cells)


@pytest.mark.parametrize("key", ["slots", "batch", "size", "copies", "ciphertexts"])
def test_damaged_json_is_an_artifact_error(key: str) -> None:
    fields = Layout(8, 2, 1, np.arange(3)[None]).to_json()
    values: tuple[object, ...] = ("x", None, [], -1)
    for broken in values:
        with pytest.raises(ArtifactError):
            Layout.from_json({**fields, key: broken})
