"""Shorten the longest way between two bootstraps, by multiplying the maps on it.

All bootstraps of a circuit reach the same level, that of the longest way; each level less makes all
of them cheaper, and may fit into a smaller ring. So maps are worth more work here than elsewhere:
where two follow each other on a longest way, the first is multiplied into the second, although a
tensor between them that others read is then computed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from tacit.model_compiler.graph import Affine, Graph, Node
from tacit.model_compiler.lowering.depths import is_refreshing, latency_cost, required_levels
from tacit.model_compiler.passes.compose import (
    composed,
    consumers_of,
    default_costs,
    is_too_large,
    without_dead_nodes,
)

# What a level less is worth for each bootstrap, in the unit of `compose.default_costs`: the time of
# 16 rotations at low levels, a twentieth of a bootstrap.
_LEVEL_VALUE = 320.0


def shorten_ways(
    graph: Graph,
    cost_of: Callable[[Affine], float] | None = None,
    level_value: float = _LEVEL_VALUE,
) -> Graph:
    """Multiply maps as long as every bootstrap saves a level and the work stays worth it.

    Args:
        graph: any graph; activations count as bootstraps, but for exact polynomials.
        cost_of: cost of one map; default `compose.default_costs`.
        level_value: what a level is worth for each bootstrap, in the same unit.

    Returns:
        An equal graph; the same object if nothing is to gain.
    """
    bootstraps = sum(is_refreshing(node) for node in graph.nodes)
    if longest_way_after_bootstraps(graph)[0] < 2:
        return graph
    cost_of = cost_of or default_costs(graph)
    shorter = _shorter(graph, cost_of, level_value * bootstraps)
    while shorter is not None:
        graph = shorter
        shorter = _shorter(graph, cost_of, level_value * bootstraps)
    return graph


def longest_way_after_bootstraps(graph: Graph) -> tuple[int, int]:
    """Return the levels that the longest way from one bootstrap to the next takes, and how many."""
    levels = required_levels(graph, latency_cost)
    ways = [levels[node.output] for node in graph.nodes if is_refreshing(node)]
    return max(ways, default=0), ways.count(max(ways, default=0))


def _shorter(graph: Graph, cost_of: Callable[[Affine], float], most: float) -> Graph | None:
    """Take a level off all longest ways, one map after the other; None if that costs too much."""
    goal, spent = longest_way_after_bootstraps(graph)[0] - 1, 0.0
    while longest_way_after_bootstraps(graph)[0] > goal:
        before = longest_way_after_bootstraps(graph)
        steps = []
        for changed in _compositions(graph):
            if longest_way_after_bootstraps(changed) < before:
                steps.append((_added_cost(graph, changed, cost_of), changed))
        if not steps:
            return None
        added, graph = min(steps, key=lambda step: step[0])
        spent += added
        if spent > most:
            return None
    return graph


def _added_cost(graph: Graph, changed: Graph, cost_of: Callable[[Affine], float]) -> float:
    def cost(nodes: tuple[Node, ...], others: tuple[Node, ...]) -> float:
        known = set(map(id, others))
        maps = [n for n in nodes if isinstance(n, Affine) and id(n) not in known]
        return sum(cost_of(node) for node in maps if latency_cost(node))

    return cost(changed.nodes, graph.nodes) - cost(graph.nodes, changed.nodes)


def _compositions(graph: Graph) -> Iterator[Graph]:
    """Multiply each map on a longest way into the maps that follow it there."""
    levels, readers = required_levels(graph, latency_cost), consumers_of(graph)
    critical = _on_longest_ways(graph, levels)
    for node in graph.nodes:
        if not isinstance(node, Affine) or node.output not in critical or not latency_cost(node):
            continue
        following = {
            index: reader
            for index in readers[node.output]
            if isinstance(reader := graph.nodes[index], Affine)
            and reader.output in critical
            and latency_cost(reader)
        }
        if following and not any(is_too_large(node, reader) for reader in following.values()):
            products = {index: composed(node, reader) for index, reader in following.items()}
            nodes = tuple(products.get(i, other) for i, other in enumerate(graph.nodes))
            yield without_dead_nodes(replace(graph, nodes=nodes))


def _on_longest_ways(graph: Graph, levels: dict[str, int]) -> set[str]:
    """Return the tensors on the longest ways that begin at a bootstrap."""
    refreshed = [node.output for node in graph.nodes if is_refreshing(node)]
    longest = max(levels[name] for name in refreshed)
    found = {name for name in refreshed if levels[name] == longest}
    for node in graph.nodes:
        if is_refreshing(node):
            continue
        needed = levels[node.output] + latency_cost(node)
        if any(name in found and levels[name] == needed for name in node.inputs):
            found.add(node.output)
    return found
