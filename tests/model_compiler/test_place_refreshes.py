"""Placement of bootstraps on random graphs, against trying all subsets of tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np
import pytest
from scipy.sparse import csr_array, eye_array

from tacit.errors import ParameterError
from tacit.model_compiler.graph import Activation, Affine, Graph, Node, Product, evaluate
from tacit.model_compiler.lowering.depths import is_refreshing, latency_cost
from tacit.model_compiler.passes.place_refreshes import Levels, place_refreshes, with_refreshes

SIZE = 2


def _random_graph(seed: int, count: int = 7) -> Graph:
    """Draw a graph in which each node reads one or two earlier tensors, the last one most often."""
    generator = np.random.default_rng(seed)
    names, nodes = ["x"], []
    for index in range(count):
        name = f"t{index}"
        near = names[-1] if generator.random() < 0.7 else str(generator.choice(names))
        other = str(generator.choice(names))
        nodes.append(_node(int(generator.integers(5)), name, near, other))
        names.append(name)
    outputs = tuple(n.output for n in nodes if not any(n.output in m.inputs for m in nodes))
    return Graph("g", ("x",), outputs, dict.fromkeys(names, (SIZE,)), tuple(nodes))


def _node(kind: int, name: str, near: str, other: str) -> Node:
    one = csr_array(eye_array(SIZE))
    if kind == 0:
        return Product(name, near, other, name)
    if kind == 1 and near != other:
        return Affine(name, (near, other), (one, one), np.zeros(SIZE), name)
    if kind == 2:
        return Activation(name, near, "polynomial", (0.0, 0.0, 0.0, 1.0), name)
    if kind == 3:
        return Activation(name, near, "tanh", (), name)
    return Affine(name, (near,), (csr_array(0.5 * one),), np.zeros(SIZE), name)


def _is_feasible(graph: Graph, refreshed: tuple[str, ...], levels: Levels) -> bool:
    held = dict.fromkeys(graph.inputs, levels.inputs)
    for node in graph.nodes:
        lowest = min(held[name] for name in node.inputs)
        if is_refreshing(node):
            if lowest < levels.entry:
                return False
            held[node.output] = levels.top
            continue
        level = lowest - latency_cost(node)
        if level < (levels.outputs if node.output in graph.outputs else 0):
            return False
        if node.output in refreshed:
            if level < levels.entry:
                return False
            level = levels.top
        held[node.output] = level
    return True


def _least(graph: Graph, levels: Levels, prices: Mapping[str, float]) -> float | None:
    names = [node.output for node in graph.nodes if not is_refreshing(node)]

    def subsets() -> Iterator[tuple[str, ...]]:
        for count in range(len(names) + 1):
            yield from combinations(names, count)

    found = [sum(prices[n] for n in s) for s in subsets() if _is_feasible(graph, s, levels)]
    return min(found, default=None)


@pytest.mark.parametrize("seed", range(60))
def test_no_set_of_tensors_is_cheaper_than_the_one_chosen(seed: int) -> None:
    graph = _random_graph(seed)
    generator = np.random.default_rng(seed)
    prices = {node.output: float(generator.integers(1, 4)) for node in graph.nodes}
    levels = Levels(inputs=5, top=2 + seed % 3, entry=1, outputs=seed % 2)
    least = _least(graph, levels, prices)
    if least is None:
        with pytest.raises(ParameterError, match="no bootstraps leave enough levels"):
            place_refreshes(graph, levels, latency_cost, prices.__getitem__)
        return
    chosen = place_refreshes(graph, levels, latency_cost, prices.__getitem__)
    assert _is_feasible(graph, chosen, levels)
    assert sum(prices[name] for name in chosen) == least


def test_some_random_graphs_need_refreshes_and_some_cannot_be_saved() -> None:
    levels = Levels(inputs=5, top=3, entry=1, outputs=0)
    prices = dict.fromkeys([f"t{i}" for i in range(7)], 1.0)
    found = [_least(_random_graph(seed), levels, prices) for seed in range(30)]
    assert {0.0, 1.0} <= {price for price in found if price is not None}
    assert None in [_least(_random_graph(s), Levels(2, 2, 1, 1), prices) for s in range(30)]


def test_refreshing_changes_no_value() -> None:
    graph = _random_graph(3)
    inner = tuple(node.output for node in graph.nodes if node.output not in graph.outputs)
    rows = {"x": np.random.default_rng(0).uniform(-0.5, 0.5, (4, SIZE))}
    refreshed = with_refreshes(graph, inner)
    activations = [n for n in refreshed.nodes if isinstance(n, Activation)]
    assert sum(n.function == "identity" for n in activations) == len(inner)
    expected, got = evaluate(graph, rows), evaluate(refreshed, rows)
    for name, values in expected.items():
        np.testing.assert_array_equal(got[name], values)


def test_a_node_deeper_than_any_bootstrap_is_named() -> None:
    deep = Activation("y", "x", "polynomial", (0.0, *[1.0] * 8), "eighth power")
    graph = Graph("g", ("x",), ("y",), {"x": (SIZE,), "y": (SIZE,)}, (deep,))
    with pytest.raises(ParameterError, match="eighth power"):
        place_refreshes(graph, Levels(3, 3, 1, 0), latency_cost, lambda _name: 1.0)
