"""Scaling, against the unscaled graph and the bound of 1 on stored values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_array

from tacit.errors import CircuitError
from tacit.model_compiler.graph import (
    Activation,
    Affine,
    Graph,
    Node,
    Polynomial,
    Product,
    evaluate,
)
from tacit.model_compiler.passes.approximate import approximate
from tacit.model_compiler.passes.calibrate import Bounds, calibrate
from tacit.model_compiler.passes.compose import compose
from tacit.model_compiler.passes.scale import (
    ScaledGraph,
    evaluate_scaled,
    scale,
)
from tacit.model_compiler.passes.square import complete_squares
from tests.model_compiler.random_graphs import affine_node, random_graph, random_rows

Floats = NDArray[np.float64]


def stored_magnitudes(scaled: ScaledGraph, inputs: Mapping[str, Floats]) -> dict[str, float]:
    """Return the greatest |stored value| of every tensor on some rows; at most 1 if all is well."""
    greatest: dict[str, float] = {}

    def observe(name: str, values: Floats) -> None:
        greatest[name] = float(np.abs(values).max())

    evaluate_scaled(scaled, inputs, observe)
    return greatest


def assert_same(graph: Graph, scaled: ScaledGraph, rows: dict[str, Floats]) -> None:
    expected, got = evaluate(graph, rows), evaluate_scaled(scaled, rows)
    for name, values in expected.items():
        np.testing.assert_allclose(got[name], values, rtol=0, atol=1e-9 * np.abs(values).max())


def assert_unit(graph: Graph) -> None:
    for node in graph.nodes:
        assert not isinstance(node, Activation)
        if isinstance(node, Polynomial):
            assert (node.center, node.half_width) == (0.0, 1.0)


def pipeline(graph: Graph, rows: dict[str, Floats] | None) -> tuple[Graph, ScaledGraph]:
    composed = compose(graph)
    polynomial = compose(approximate(composed, calibrate(composed, rows), rows).graph)
    squared = compose(complete_squares(polynomial))
    return polynomial, scale(squared, calibrate(squared, rows).tensors)


def graph_of(*nodes: Node, size: int = 4, outputs: tuple[str, ...] = ("y",)) -> Graph:
    names = ("x", "w", *(node.output for node in nodes))
    return Graph("g", ("x", "w"), outputs, dict.fromkeys(names, (size,)), nodes)


def scaled_on(
    graph: Graph, rows: dict[str, Floats], declared: Mapping[str, Bounds] | None = None
) -> ScaledGraph:
    return scale(graph, calibrate(graph, rows, input_ranges=declared).tensors)


def affine(output: str, *inputs: str, size: int = 4) -> Affine:
    generator = np.random.default_rng([7, *output.encode()])
    return affine_node(generator, output, dict.fromkeys(inputs, size), size)


def polynomial(
    output: str, source: str, coefficients: list[float], center: float, half_width: float
) -> Polynomial:
    return Polynomial(output, source, np.array(coefficients), center, half_width, output)


@pytest.mark.parametrize("seed", range(40))
def test_scaling_keeps_the_meaning_and_data_stays_below_one(seed: int) -> None:
    graph = random_graph(seed)
    rows = random_rows(graph, seed)
    exact, scaled = pipeline(graph, rows)
    assert_unit(scaled.graph)
    assert_same(exact, scaled, rows)
    assert max(stored_magnitudes(scaled, rows).values()) < 0.999


@pytest.mark.parametrize("seed", range(40))
def test_without_data_no_input_in_range_exceeds_one_anywhere(seed: int) -> None:
    graph = random_graph(seed)
    exact, scaled = pipeline(graph, None)
    inside = random_rows(graph, seed, 300)
    corners = {name: np.sign(values) for name, values in inside.items()}
    for rows in (inside, corners):
        assert_same(exact, scaled, rows)
        assert max(stored_magnitudes(scaled, rows).values()) <= 1.0 + 1e-9


def test_tensors_use_most_of_the_interval() -> None:
    """Noise is absolute, so amplitude is precision: with margin 1.25, rows reach 0.8."""
    graph = graph_of(affine("t", "x"), affine("u", "t", "w"), affine("y", "u"))
    rows = random_rows(graph, 0, 500)
    magnitudes = stored_magnitudes(scaled_on(graph, rows), rows)
    for name in ("x", "w", "t", "u"):
        assert magnitudes[name] == pytest.approx(0.8, abs=1e-6)
    assert 0.6 < magnitudes["y"] <= 0.8


def test_a_sigmoid_is_stored_about_one_half() -> None:
    graph = graph_of(Activation("s", "x", "sigmoid", (), "s"), affine("y", "s"))
    rows = {name: 4.0 * values for name, values in random_rows(graph, 0, 500).items()}
    _, scaled = pipeline(graph, rows)
    assert float(scaled.placements["s"].offset) == pytest.approx(0.5, abs=0.02)
    node = next(n for n in scaled.graph.nodes if isinstance(n, Polynomial))
    assert np.all(np.abs(node.coefficients[2::2]) < 1e-15)


def test_features_are_stored_each_on_its_own_range() -> None:
    graph = graph_of(affine("y", "x", "w"))
    rows = random_rows(graph, 1, 400)
    rows["x"] = rows["x"] * np.array([1.0, 500.0, 0.01, 3.0]) + np.array([0.0, 900.0, 4.0, 0.0])
    scaled = scaled_on(graph, rows)
    assert scaled.placements["x"].scale.shape == (4,)
    assert scaled.placements["w"].scale.shape == ()
    stored = scaled.placements["x"].store(rows["x"])
    np.testing.assert_allclose(np.abs(stored).max(axis=0), 0.8, atol=1e-9)
    assert_same(graph, scaled, rows)


def test_input_placements_do_not_depend_on_weights() -> None:
    rows = random_rows(graph_of(affine("y", "x")), 1)
    placements = []
    for factor in (1.0, -7.3):
        first = affine("t", "x", "w")
        matrices = tuple(csr_array(factor * matrix) for matrix in first.matrices)
        nodes = (
            replace(first, matrices=matrices, bias=factor * first.bias),
            Activation("s", "t", "polynomial", (0.2, 1.0, factor), "s"),
            affine("y", "s", "x"),
        )
        _, scaled = pipeline(graph_of(*nodes), rows)
        places = [scaled.placements[name] for name in scaled.graph.inputs]
        placements.append([(place.scale, place.offset) for place in places])
    assert placements[0] == placements[1]


def test_output_placements_say_only_a_few_bits() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        node = affine("y", "x", "w")
        bias = node.bias + 10.0 * generator.normal()
        graph = graph_of(replace(node, bias=bias))
        rows = random_rows(graph, 2)
        scaled = scaled_on(graph, rows)
        size, offset = scaled.output_scale["y"], float(scaled.placements["y"].offset)
        step = 2.0 ** (np.floor(np.log2(size)) - 3)
        assert (size / step).is_integer()
        assert (offset / step).is_integer()
        assert 0.6 < stored_magnitudes(scaled, rows)["y"] < 0.82


def test_a_constant_output_survives() -> None:
    constant = Affine("y", ("x",), (csr_array((4, 4)),), np.full(4, 3.0), "y")
    graph = graph_of(constant)
    rows = random_rows(graph, 0)
    scaled = scaled_on(graph, rows)
    assert_same(graph, scaled, rows)
    assert stored_magnitudes(scaled, rows)["y"] <= 1.0


def test_a_zero_tensor_survives() -> None:
    zero = Affine("t", ("x",), (csr_array((4, 4)),), np.zeros(4), "t")
    graph = graph_of(zero, Product("p", "t", "x", "p"), affine("y", "p"))
    rows = random_rows(graph, 0)
    assert_same(graph, scaled_on(graph, rows), rows)


def test_an_input_that_is_an_output_keeps_one_scale() -> None:
    graph = graph_of(affine("y", "x"), outputs=("y", "x"))
    rows = random_rows(graph, 0)
    rows["x"] = rows["x"] * np.array([1.0, 100.0, 0.01, 1.0])
    scaled = scaled_on(graph, rows)
    assert isinstance(scaled.output_scale["x"], float)
    assert_same(graph, scaled, rows)


def test_products_multiply_scales_and_need_no_offset() -> None:
    graph = graph_of(
        affine("t", "x"), Product("p", "t", "w", "p"), Product("q", "p", "p", "q"), affine("y", "q")
    )
    rows = {name: values + 5.0 for name, values in random_rows(graph, 0).items()}
    scaled = scaled_on(graph, rows)
    places = scaled.placements
    assert float(places["t"].offset) == float(places["w"].offset) == 0.0
    assert float(places["p"].scale) == pytest.approx(float(places["t"].scale * places["w"].scale))
    assert float(places["q"].scale) == pytest.approx(float(places["p"].scale) ** 2)
    assert_same(graph, scaled, rows)


def test_two_polynomials_on_domains_of_their_own_share_the_wider_one() -> None:
    graph = graph_of(
        polynomial("a", "x", [0.0, 1.0, 0.5, 0.2], 0.0, 1.5),
        polynomial("b", "x", [0.3, 0.0, 0.5, 0.1], 0.1, 1.2),
        affine("y", "a", "b"),
    )
    rows = random_rows(graph, 0)
    scaled = scaled_on(graph, rows)
    assert float(scaled.placements["x"].scale) == 1.5
    assert len(scaled.graph.nodes) == len(graph.nodes)
    assert_unit(scaled.graph)
    assert_same(graph, scaled, rows)


def test_a_steep_polynomial_on_a_much_narrower_domain_gets_a_map_before_it() -> None:
    generator = np.random.default_rng(0)
    steep = list(generator.normal(size=32))
    first = affine("t", "x")
    narrow = replace(first, matrices=(csr_array(0.1 * first.matrices[0]),), bias=np.full(4, 0.2))
    graph = graph_of(
        narrow,
        polynomial("a", "t", [0.0, 1.0, 0.5], 0.0, 9.0),
        polynomial("b", "t", steep, 0.2, 1.0),
        affine("y", "a", "b"),
    )
    rows = random_rows(graph, 0)
    scaled = scaled_on(graph, rows)
    assert [type(node) for node in scaled.graph.nodes].count(Affine) == 3
    assert_unit(scaled.graph)
    assert_same(graph, scaled, rows)
    assert max(stored_magnitudes(scaled, rows).values()) <= 1.0


@pytest.mark.parametrize("center", [0.0, 0.3])
def test_a_product_may_feed_a_polynomial(center: float) -> None:
    graph = graph_of(
        Product("p", "x", "w", "p"),
        polynomial("a", "p", [0.1, 1.0, 0.3, 0.2], center, 1.3),
        affine("y", "a"),
    )
    rows = random_rows(graph, 0)
    scaled = scaled_on(graph, rows)
    assert_unit(scaled.graph)
    assert_same(graph, scaled, rows)


def test_a_tensor_read_by_a_product_and_an_off_center_polynomial_stays_exact() -> None:
    graph = graph_of(
        polynomial("a", "x", [0.1, 1.0, 0.3, 0.2], 0.5, 2.0),
        Product("p", "a", "x", "p"),
        affine("y", "p", "a"),
    )
    rows = random_rows(graph, 0)
    scaled = scaled_on(graph, rows)
    assert float(scaled.placements["x"].offset) == 0.0
    assert_same(graph, scaled, rows)


def test_an_observed_range_is_widened_to_what_a_polynomial_can_reach() -> None:
    """Inputs beyond the calibration rows but inside the domain must not overflow the output."""
    graph = graph_of(Activation("a", "x", "relu", (), "a"), affine("y", "a"))
    rows = random_rows(graph, 0)
    _, scaled = pipeline(graph, rows)
    limit = float(scaled.placements["x"].scale)
    extreme = {"x": np.full((1, 4), limit), "w": np.zeros((1, 4))}
    magnitudes = stored_magnitudes(scaled, extreme)
    assert magnitudes["x"] == pytest.approx(1.0)
    assert magnitudes["a"] <= 1.0


def test_an_activation_must_be_approximated_first() -> None:
    graph = graph_of(Activation("y", "x", "tanh", (), "Tanh_3"))
    with pytest.raises(CircuitError, match=r"approximate 'y' \(Tanh_3\) before scaling"):
        scaled_on(graph, random_rows(graph, 0))


def test_every_tensor_needs_a_range() -> None:
    graph = graph_of(affine("t", "x"), affine("y", "t"))
    tensors = dict(calibrate(graph).tensors)
    del tensors["t"]
    with pytest.raises(CircuitError, match=r"no range for tensors \['t'\]"):
        scale(graph, tensors)
