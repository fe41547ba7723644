"""Composition of affine maps, against evaluation of the graph it came from."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array, eye_array

from tacit.model_compiler.graph import Activation, Affine, Graph, Node, Product, evaluate
from tacit.model_compiler.passes.compose import compose, diagonal_cost
from tests.model_compiler.random_graphs import affine_node, random_graph, random_rows


def chain(*nodes: Node, size: int = 4, outputs: tuple[str, ...] = ("y",)) -> Graph:
    shapes = dict.fromkeys(("x", "w", *(node.output for node in nodes)), (size,))
    return Graph("chain", ("x", "w"), outputs, shapes, nodes)


def linear(output: str, *inputs: str, seed: int = 0, size: int = 4) -> Affine:
    generator = np.random.default_rng([seed, *output.encode()])
    return affine_node(generator, output, dict.fromkeys(inputs, size), size)


def identity(output: str, source: str, size: int = 4) -> Affine:
    matrix = csr_array(eye_array(size, format="csr"))
    return Affine(output, (source,), (matrix,), np.zeros(size), "Identity")


def assert_same(graph: Graph, other: Graph) -> None:
    rows = random_rows(graph, 1)
    expected, got = evaluate(graph, rows), evaluate(other, rows)
    assert expected.keys() == got.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(got[name], values, rtol=0, atol=1e-12 * np.abs(values).max())


@pytest.mark.parametrize("level_value", [0.0, 4.0, 1e9])
@pytest.mark.parametrize("seed", range(25))
def test_composing_keeps_the_meaning(seed: int, level_value: float) -> None:
    graph = random_graph(seed)
    composed = compose(graph, level_value=level_value)
    assert composed.inputs == graph.inputs
    assert len(composed.nodes) <= len(graph.nodes)
    assert_same(graph, composed)


@pytest.mark.parametrize("seed", range(5))
def test_a_graph_of_affine_maps_becomes_one_map(seed: int) -> None:
    composed = compose(random_graph(seed, activations=False), level_value=1e9)
    assert len(composed.nodes) == 1
    assert_same(random_graph(seed, activations=False), composed)


def test_the_originals_are_left_alone() -> None:
    matrix = csr_array(np.array([[1.0, 0.0], [0.0, 2.0]]))
    matrix.data[0] = 0.0  # a stored zero, which composing removes from its copy only
    node = Affine("y", ("x",), (matrix,), np.zeros(2), "y")
    graph = Graph("g", ("x",), ("y",), {"x": (2,), "y": (2,)}, (node,))
    composed = compose(graph).nodes[0]
    assert isinstance(composed, Affine)
    assert composed.matrices[0].nnz == 1
    assert matrix.nnz == 2


def test_a_map_through_a_bottleneck_stays_two_maps_when_entries_cost() -> None:
    generator = np.random.default_rng(0)
    first = Affine("t", ("x",), (csr_array(generator.normal(size=(1, 64))),), np.zeros(1), "a")
    second = Affine("y", ("t",), (csr_array(generator.normal(size=(64, 1))),), np.zeros(64), "b")
    graph = Graph("g", ("x",), ("y",), {"x": (64,), "t": (1,), "y": (64,)}, (first, second))

    def entries(node: Affine) -> float:
        return float(sum(matrix.nnz for matrix in node.matrices))

    assert len(compose(graph, entries, level_value=100.0).nodes) == 2
    assert len(compose(graph, entries, level_value=4000.0).nodes) == 1


def test_a_map_read_twice_is_composed_into_both_readers() -> None:
    graph = chain(
        linear("t", "x"),
        linear("a", "t"),
        linear("b", "t", "w"),
        Product("p", "a", "b", "p"),
        linear("y", "p"),
    )
    composed = compose(graph)
    assert [node.output for node in composed.nodes] == ["a", "b", "p", "y"]
    assert_same(graph, composed)


def test_a_map_that_an_activation_also_reads_stays() -> None:
    graph = chain(linear("t", "x"), Activation("a", "t", "tanh", (), "a"), linear("y", "t", "a"))
    composed = compose(graph)
    assert [node.output for node in composed.nodes] == ["t", "a", "y"]
    assert composed.nodes[2].inputs == ("x", "a")
    assert_same(graph, composed)


def test_a_residual_connection_becomes_one_matrix() -> None:
    graph = chain(linear("t", "x"), linear("y", "x", "t"))
    composed = compose(graph)
    assert len(composed.nodes) == 1
    assert composed.nodes[0].inputs == ("x",)
    assert_same(graph, composed)


def test_identities_vanish_in_the_middle_and_before_an_output() -> None:
    graph = chain(
        identity("i", "x"),
        Activation("a", "i", "tanh", (), "a"),
        identity("j", "a"),
        Product("p", "j", "a", "p"),
        identity("k", "p"),
        identity("y", "k"),
    )
    composed = compose(graph)
    assert [type(node) for node in composed.nodes] == [Activation, Product]
    assert_same(graph, composed)


def test_an_identity_stays_where_an_output_needs_a_name() -> None:
    graph = chain(
        Activation("y", "x", "tanh", (), "y"),
        identity("z", "y"),
        identity("v", "x"),
        outputs=("y", "z", "v"),
    )
    composed = compose(graph)
    assert [node.output for node in composed.nodes] == ["y", "z", "v"]
    assert_same(graph, composed)


def test_unused_nodes_vanish() -> None:
    graph = chain(linear("t", "x"), Product("p", "t", "t", "p"), linear("y", "x", "w"))
    composed = compose(graph)
    assert [node.output for node in composed.nodes] == ["y"]
    assert set(composed.shapes) == {"x", "w", "y"}
    assert_same(graph, composed)


def test_a_product_with_a_constant_is_an_affine_map() -> None:
    constant = Affine("c", (), (), np.array([1.0, -2.0, 0.5, 3.0]), "Constant")
    graph = chain(linear("t", "x"), constant, Product("p", "c", "t", "p"), linear("y", "p"))
    composed = compose(graph)
    assert len(composed.nodes) == 1
    assert_same(graph, composed)


def test_a_map_without_entries_still_answers_every_row() -> None:
    zero = Affine("y", ("x",), (csr_array((4, 4)),), np.array([0.0, 1.0, 2.0, 3.0]), "zero")
    composed = compose(chain(zero))
    outputs = evaluate(composed, random_rows(chain(zero), 0, rows=5))
    assert np.array_equal(outputs["y"], np.tile(np.arange(4.0), (5, 1)))


def test_the_origin_names_every_node_it_came_from() -> None:
    composed = compose(chain(linear("t", "x"), linear("y", "t")))
    assert isinstance(composed.nodes[0], Affine)
    assert composed.nodes[0].origin == "t + y"


def test_the_default_cost_counts_diagonals_and_entries() -> None:
    tridiagonal = csr_array(np.eye(8) + np.eye(8, k=1) + np.eye(8, k=-1))
    node = Affine("y", ("x",), (tridiagonal,), np.zeros(8), "y")
    assert diagonal_cost(node) == pytest.approx(3 + 22 / 1024)
    dense = Affine("y", ("x",), (csr_array(np.ones((8, 8))),), np.zeros(8), "y")
    assert diagonal_cost(dense) == pytest.approx(15 + 64 / 1024)
