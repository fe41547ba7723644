"""Equalised channels: the same function, and a smaller error once polynomials come."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_array, eye_array

from tacit.model_compiler.functions import real_function
from tacit.model_compiler.graph import Activation, Affine, Graph, Node, evaluate
from tacit.model_compiler.passes.approximate import approximate
from tacit.model_compiler.passes.calibrate import calibrate
from tacit.model_compiler.passes.equalize import equalize
from tests.model_compiler.random_graphs import random_graph, random_rows

Floats = NDArray[np.float64]


def uneven(function: str, parameters: tuple[float, ...] = (), seed: int = 0) -> Graph:
    """Draw a net whose 16 hidden channels differ in width by a factor of 20."""
    generator = np.random.default_rng(seed)
    widths = np.geomspace(0.1, 2.0, 16)
    first = csr_array(widths[:, None] * generator.normal(size=(16, 8)))
    second = csr_array(generator.normal(size=(3, 16)) / widths)
    nodes = (
        Affine("h", ("x",), (first,), generator.normal(size=16) * widths, "h"),
        Activation("a", "h", function, parameters, "a"),
        Affine("y", ("a",), (second,), generator.normal(size=3), "y"),
    )
    return Graph("net", ("x",), ("y",), {"x": (8,), "h": (16,), "a": (16,), "y": (3,)}, nodes)


@pytest.mark.parametrize(
    ("function", "parameters"), [("relu", ()), ("leaky_relu", (0.1,)), ("abs", ())]
)
def test_the_function_stays_and_the_channels_come_closer(
    function: str, parameters: tuple[float, ...]
) -> None:
    graph = uneven(function, parameters)
    rows = random_rows(graph, 1, 400)
    before = calibrate(graph, rows)
    changed = equalize(graph, before.tensors)
    got, expected = evaluate(changed, rows)["y"], evaluate(graph, rows)["y"]
    np.testing.assert_allclose(got, expected, atol=1e-12 * np.abs(expected).max())

    def spread(net: Graph) -> float:
        seen: dict[str, Floats] = {}
        evaluate(net, rows, lambda name, values: seen.update({name: values}))
        reach = np.abs(seen["h"]).max(axis=0)
        return float(reach.max() / reach.min())

    assert spread(changed) < 0.7 * spread(graph)


@pytest.mark.parametrize("seed", range(3))
def test_the_same_degree_then_errs_less_on_rows_never_seen(seed: int) -> None:
    graph = uneven("relu", seed=seed)
    rows, unseen = random_rows(graph, seed, 1000), random_rows(graph, seed + 50, 2000)
    changed = equalize(graph, calibrate(graph, rows).tensors)
    expected = evaluate(graph, unseen)["y"]

    def error(net: Graph) -> float:
        ranges = calibrate(net, rows)
        found = approximate(
            net,
            ranges,
            rows,
            accuracy=1e-9,
            max_degree=15,
            max_sign_levels=0,
            price=lambda _depth: 1.0,
        )
        assert found.activations[0].degree in (14, 15)
        return float(np.sqrt(np.mean((evaluate(found.graph, unseen)["y"] - expected) ** 2)))

    assert error(changed) < 0.8 * error(graph)


@pytest.mark.parametrize("function", ["sigmoid", "tanh", "elu"])
def test_functions_that_do_not_scale_are_left_alone(function: str) -> None:
    assert real_function("relu", ())(np.array([2.0])) == 2.0
    graph = uneven(function, (1.0,) if function == "elu" else ())
    assert equalize(graph, calibrate(graph, random_rows(graph, 0)).tensors) is graph


@pytest.mark.parametrize("seed", range(10))
def test_random_graphs_keep_their_meaning(seed: int) -> None:
    graph = random_graph(seed)
    rows = random_rows(graph, seed)
    rectified = tuple(
        Activation(n.output, n.input, "relu", (), n.origin) if isinstance(n, Activation) else n
        for n in graph.nodes
    )
    graph = Graph("random", graph.inputs, graph.outputs, graph.shapes, rectified)
    changed = equalize(graph, calibrate(graph, rows).tensors)
    expected = evaluate(graph, rows)["y"]
    np.testing.assert_allclose(
        evaluate(changed, rows)["y"], expected, atol=1e-10 * np.abs(expected).max()
    )


def test_a_plain_sum_stays_one_and_costs_no_level() -> None:
    graph = uneven("relu")
    first, activation, _ = graph.nodes
    unit = csr_array(eye_array(16, format="csr"))
    nodes: tuple[Node, ...] = (first, activation, Affine("y", ("a", "h"), (unit, unit),
                               np.zeros(16), "add"))  # fmt: skip
    residual = Graph("sum", ("x",), ("y",), {**graph.shapes, "y": (16,)}, nodes)
    assert equalize(residual, calibrate(residual, random_rows(residual, 0)).tensors) is residual
