"""How many levels every tensor needs: the graph's longest paths, counted from its outputs."""

from __future__ import annotations

from collections.abc import Callable

from tacit.decompose import chebyshev_depth
from tacit.model_compiler.graph import Affine, Graph, Node, Polynomial
from tacit.model_compiler.lowering.matrices import has_only_unit_entries, is_signs, scalars_of

LevelCost = Callable[[Node], int]


def latency_cost(node: Node) -> int:
    """Return the levels a node takes in the latency plan."""
    if isinstance(node, Affine):
        factors = scalars_of(node)
        return 0 if factors is not None and is_signs(factors) else 1
    return _elementwise_cost(node)


def batch_cost(node: Node) -> int:
    """Return the levels a node takes in the batch plan, where relabelling is free."""
    if isinstance(node, Affine):
        return 0 if has_only_unit_entries(node) else 1
    return _elementwise_cost(node)


def _elementwise_cost(node: Node) -> int:
    if isinstance(node, Polynomial):
        return chebyshev_depth(len(node.coefficients) - 1)
    return 1


def required_levels(graph: Graph, cost: LevelCost) -> dict[str, int]:
    """Return the level each tensor must have when it is written; unread tensors and outputs 0."""
    levels: dict[str, int] = dict.fromkeys(graph.inputs, 0)
    levels.update((node.output, 0) for node in graph.nodes)
    for node in reversed(graph.nodes):
        needed = levels[node.output] + cost(node)
        for name in node.inputs:
            levels[name] = max(levels[name], needed)
    return levels


def circuit_depth(graph: Graph) -> int:
    """Return the levels that either plan needs at most."""
    return max(
        required_levels(graph, cost)[name]
        for cost in (latency_cost, batch_cost)
        for name in graph.inputs
    )
