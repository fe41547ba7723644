"""Ways between bootstraps are shortened where that is worth the work, and compute the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from tacit.model_compiler.graph import Activation, Affine, Graph, Node, evaluate
from tacit.model_compiler.passes.shorten import longest_way_after_bootstraps, shorten_ways

Floats = NDArray[np.float64]
SIZE = 4


def _graph(pools: int) -> Graph:
    """A layer and, twice, the greater one of two halves: what is compared is read again later."""
    random = np.random.default_rng(pools)
    nodes: list[Node] = []
    shapes = {"x0": (SIZE,)}

    def affine(output: str, *inputs: str, rows: int = SIZE) -> str:
        matrices = tuple(csr_array(random.normal(size=(rows, shapes[n][0]))) for n in inputs)
        nodes.append(Affine(output, inputs, matrices, random.normal(size=rows), output))
        shapes[output] = (rows,)
        return output

    def relu(output: str, source: str) -> str:
        nodes.append(Activation(output, source, "relu", (), output))
        shapes[output] = shapes[source]
        return output

    for i in range(pools):
        conv = affine(f"conv{i}", relu(f"r{i}", f"x{i}"))
        gap = relu(f"relu{i}", affine(f"gap{i}", conv))
        greatest = affine(f"greatest{i}", conv, gap)
        after = relu(f"after{i}", affine(f"gap'{i}", greatest))
        affine(f"x{i + 1}", greatest, after)
    affine("y", relu("end", f"x{pools}"), rows=2)
    return Graph("g", ("x0",), ("y",), shapes, tuple(nodes))


def _dear_for_products_of_layers(node: Affine) -> float:
    return 1000.0 if "conv" in node.origin and " + " in node.origin else 1.0


def test_ways_lose_a_level_each_and_the_function_stays() -> None:
    graph = _graph(2)
    assert longest_way_after_bootstraps(graph) == (3, 2)
    shorter = shorten_ways(graph, _dear_for_products_of_layers, level_value=8.0)
    assert longest_way_after_bootstraps(shorter)[0] == 2
    rows = {"x0": np.random.default_rng(0).normal(size=(20, SIZE))}
    expected, got = evaluate(graph, rows)["y"], evaluate(shorter, rows)["y"]
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)
    assert not any(node.output.startswith("greatest") for node in shorter.nodes)


def test_levels_cost_no_more_than_they_are_worth() -> None:
    graph = _graph(2)
    assert (
        shorten_ways(graph, lambda node: 1000.0 * (" + " in node.origin), level_value=8.0) is graph
    )
    assert longest_way_after_bootstraps(shorten_ways(graph, lambda _node: 1.0))[0] == 1


def test_a_chain_of_single_maps_stays_as_it_is() -> None:
    graph = _graph(0)
    assert shorten_ways(graph) is graph
