"""How many levels every tensor needs: the graph's longest paths, counted from its outputs."""

from __future__ import annotations

from collections.abc import Callable

from tacit.decompose import chebyshev_depth
from tacit.errors import CircuitError
from tacit.model_compiler.graph import Activation, Affine, Fourier, Graph, Node, Polynomial
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
    if isinstance(node, Activation):
        return chebyshev_depth(max(len(node.parameters) - 1, 1))
    return 1


BOOTSTRAPPED_OUTPUT_LEVEL = 1
"""Bootstrapping wants a first modulus with hardly more room than values at most 1 need; partial
sums of a last linear map may need more."""


def required_levels(graph: Graph, cost: LevelCost, entry: int = 0) -> dict[str, int]:
    """Return the level each tensor must have when it is written; unread tensors 0.

    Outputs are left at `output_level`.

    Args:
        graph: the graph; activations that are not replaced yet count as bootstraps.
        cost: levels that a node takes.
        entry: level a bootstrap needs its input to have; it writes its output at any level.
    """
    levels: dict[str, int] = dict.fromkeys(graph.inputs, 0)
    levels.update((node.output, 0) for node in graph.nodes)
    levels.update(dict.fromkeys(graph.outputs, output_level(graph)))
    for node in reversed(graph.nodes):
        needed = entry if is_refreshing(node) else levels[node.output] + cost(node)
        for name in node.inputs:
            levels[name] = max(levels[name], needed)
    return levels


def output_level(graph: Graph) -> int:
    """Return the level of a graph's outputs."""
    bootstraps = any(isinstance(node, Fourier) for node in graph.nodes)
    return BOOTSTRAPPED_OUTPUT_LEVEL if bootstraps else 0


def refuse_activations(graph: Graph) -> None:
    """Return if every activation has been replaced.

    Raises:
        CircuitError: one has not.
    """
    for node in graph.nodes:
        if isinstance(node, Activation):
            raise CircuitError(
                f"cannot lower an Activation ({node.output!r}): approximate and scale it first"
            )


def is_refreshing(node: Node) -> bool:
    """Tell whether a node is a bootstrap, or an activation that can become one."""
    if isinstance(node, Activation):
        return node.function != "polynomial"
    return isinstance(node, Fourier)


def circuit_depth(graph: Graph) -> int:
    """Return the levels that either plan needs at most."""
    return max(
        required_levels(graph, cost)[name]
        for cost in (latency_cost, batch_cost)
        for name in graph.inputs
    )
