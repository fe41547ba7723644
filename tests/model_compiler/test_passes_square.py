"""Completing the square, against the polynomial it replaces."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tacit.model_compiler.graph import Affine, Graph, Node, Polynomial, Product, evaluate
from tacit.model_compiler.passes.square import complete_squares
from tests.model_compiler.random_graphs import affine_node, random_rows

Floats = NDArray[np.float64]


def quadratic(
    coefficients: tuple[float, ...],
    center: float = 0.0,
    *,
    source: str = "t",
    output: str = "p",
    half_width: float = 2.0,
) -> Polynomial:
    values = np.array(coefficients, dtype=np.float64)
    return Polynomial(output, source, values, center, half_width, "quadratic")


def network(middle: tuple[Node, ...], last: tuple[str, ...] = ("p",)) -> Graph:
    """Put nodes between an affine map x -> t and an affine map last -> y."""
    generator = np.random.default_rng(0)
    first = affine_node(generator, "t", {"x": 5}, 5)
    final = affine_node(generator, "y", dict.fromkeys(last, 5), 3)
    names = ("x", "t", *(node.output for node in middle))
    shapes = {**dict.fromkeys(names, (5,)), "y": (3,)}
    return Graph("net", ("x",), ("y",), shapes, (first, *middle, final))


def assert_same(graph: Graph, other: Graph) -> None:
    rows = random_rows(graph, 3)
    for name, values in evaluate(graph, rows).items():
        got = evaluate(other, rows)[name]
        np.testing.assert_allclose(got, values, rtol=0, atol=1e-12 * np.abs(values).max())


def kinds(graph: Graph) -> list[type]:
    return [type(node) for node in graph.nodes]


@pytest.mark.parametrize("seed", range(10))
def test_a_quadratic_between_affine_maps_becomes_a_product(seed: int) -> None:
    generator = np.random.default_rng(seed)
    constant, quadratic_term = generator.normal(size=2)
    linear = quadratic_term * generator.uniform(-7.0, 7.0)
    node = quadratic((constant, linear, quadratic_term), float(generator.normal()))
    graph = network((node,))
    squared = complete_squares(graph)
    assert kinds(squared) == [Affine, Product, Affine]
    assert_same(graph, squared)


def test_a_vertex_far_outside_the_domain_is_left_alone() -> None:
    graph = network((quadratic((0.0, 9.0, 1.0)),))
    assert kinds(complete_squares(graph)) == [Affine, Polynomial, Affine]


def test_the_shift_can_go_into_a_polynomial_before() -> None:
    before = quadratic((0.1, 1.0, 0.2, 0.3), output="q")
    graph = network((before, quadratic((0.0, 1.0, 1.0), source="q")))
    squared = complete_squares(graph)
    assert kinds(squared) == [Affine, Polynomial, Product, Affine]
    assert_same(graph, squared)


def test_a_graph_input_is_squared_but_never_shifted() -> None:
    pure = network((quadratic((2.0, 0.0, 2.0), source="x"),), ("p", "t"))
    squared = complete_squares(pure)
    assert Product in kinds(squared)
    assert_same(pure, squared)
    with_vertex = network((quadratic((0.0, 1.0, 1.0), source="x"),), ("p", "t"))
    assert Product not in kinds(complete_squares(with_vertex))


def test_a_tensor_with_other_readers_is_not_shifted() -> None:
    graph = network((quadratic((0.0, 1.0, 1.0)),), ("p", "t"))
    assert Product not in kinds(complete_squares(graph))


def test_a_quadratic_read_by_something_else_stays() -> None:
    after = quadratic((0.0, 1.0, 0.5, 0.5), source="p", output="q")
    graph = network((quadratic((0.0, 1.0, 1.0)), after), ("p", "q"))
    assert kinds(complete_squares(graph)) == kinds(graph)


def test_a_quadratic_that_is_an_output_stays() -> None:
    node = quadratic((0.0, 1.0, 1.0), source="x")
    graph = Graph("out", ("x",), ("p",), {"x": (5,), "p": (5,)}, (node,))
    assert kinds(complete_squares(graph)) == [Polynomial]


@pytest.mark.parametrize("coefficients", [(0.5, 1.0), (0.5, 1.0, 0.5, 0.25)])
def test_other_degrees_stay(coefficients: tuple[float, ...]) -> None:
    graph = network((quadratic(coefficients),))
    assert kinds(complete_squares(graph)) == [Affine, Polynomial, Affine]


def test_two_quadratics_in_a_row_of_layers_both_complete() -> None:
    generator = np.random.default_rng(4)
    second = affine_node(generator, "u", {"p": 5}, 5)
    graph = network(
        (quadratic((0.1, 1.0, 1.0)), second, quadratic((0.3, -1.0, 0.5), source="u", output="q")),
        ("q",),
    )
    squared = complete_squares(graph)
    assert kinds(squared) == [Affine, Product, Affine, Product, Affine]
    assert_same(graph, squared)
