"""Outputs that repeat others up to sign."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array

from tacit.clear_steps import apply_steps, steps_from_json, steps_to_json
from tacit.model_compiler.graph import Affine, Graph, Product, evaluate
from tacit.model_compiler.passes.distinct_outputs import distinct_outputs


def _graph(rows: list[int], signs: list[float], shape: tuple[int, ...], seed: int = 0) -> Graph:
    """Draw a map whose row i is signs[i] times base row rows[i]."""
    generator = np.random.default_rng(seed)
    base = generator.normal(size=(max(rows) + 1, 5))
    bias = generator.normal(size=max(rows) + 1)
    sign = np.array(signs)
    matrix = csr_array(sign[:, None] * base[rows])
    node = Affine("y", ("x",), (matrix,), sign * bias[rows], "dense")
    return Graph("g", ("x",), ("y",), {"x": (5,), "y": shape}, (node,), model_outputs=("y",))


@pytest.mark.parametrize(
    ("rows", "signs", "shape", "size"),
    [
        ([0, 0], [1.0, -1.0], (2,), 1),
        ([0, 0], [-1.0, 1.0], (2,), 1),
        ([0, 1, 0, 2, 1, 1], [1.0, 1.0, -1.0, 1.0, -1.0, 1.0], (2, 3), 3),
        ([0, 1, 0], [1.0, 1.0, 1.0], (3,), 2),
        ([0, 1, 2], [1.0, 1.0, 1.0], (3,), 3),
    ],
)
def test_the_epilogue_restores_what_is_no_longer_computed(
    rows: list[int], signs: list[float], shape: tuple[int, ...], size: int
) -> None:
    graph = _graph(rows, signs, shape)
    result = distinct_outputs(graph)
    assert result.graph.size("y") == size
    values = {"x": np.random.default_rng(1).normal(size=(7, 5))}
    expected = evaluate(graph, values)["y"]
    core = evaluate(result.graph, values)
    if size < len(rows):
        assert np.array_equal(core["y"], expected[:, result.kept["y"]])
    steps = steps_from_json(steps_to_json(result.graph.epilogue))
    got = apply_steps(steps, {"y": core["y"].reshape(7, *result.graph.shapes["y"])})["y"]
    assert got.shape == (7, *shape)
    assert np.array_equal(got.reshape(7, -1), expected)


def test_rows_that_differ_in_their_bias_alone_are_kept() -> None:
    matrix = csr_array(np.ones((2, 3)))
    node = Affine("y", ("x",), (matrix,), np.array([0.0, 1.0]), "dense")
    graph = Graph("g", ("x",), ("y",), {"x": (3,), "y": (2,)}, (node,))
    assert distinct_outputs(graph).kept == {}


def test_an_output_that_another_node_reads_is_left_alone() -> None:
    graph = _graph([0, 0], [1.0, -1.0], (2,))
    square = Product("z", "y", "y", "square")
    shapes = {**graph.shapes, "z": (2,)}
    longer = Graph("g", ("x",), ("y", "z"), shapes, (*graph.nodes, square))
    assert distinct_outputs(longer).kept == {}
