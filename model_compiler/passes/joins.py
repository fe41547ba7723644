"""Residual joins of bootstrapped networks: tensors that are only added keep one scale, at no level.

Adding a tensor that is multiplied by a map to one that is not can be one map with two inputs: a
level for both. Where the second one runs through a long chain of joins, as in networks that
normalise before their convolutions, those levels add up, and nothing refreshes it. Then the map is
taken apart; the sum costs no level if all its terms are stored in units of one size. Tensors that
are joined so form a class; its unit is that of the widest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tacit.model_compiler.graph import Affine, Graph, Node, Product
from tacit.model_compiler.lowering.depths import latency_cost, required_levels
from tacit.model_compiler.lowering.matrices import is_signs, scalar_of, scalars_of
from tacit.model_compiler.passes.compose import affine
from tacit.model_compiler.passes.ranges import TensorRange


def part_joins(graph: Graph) -> Graph:
    """Take joins apart where that shortens the longest way between two bootstraps.

    Args:
        graph: any graph; activations count as bootstraps, but for exact polynomials.

    Returns:
        The graph, the same object if nothing is to gain.
    """
    parted = _parted(graph)
    return parted if longest_way(parted) < longest_way(graph) else graph


def longest_way(graph: Graph) -> int:
    """Return the levels that the longest way between two bootstraps takes, ends included.

    Joins whose terms could have one unit cost none.
    """
    return max(required_levels(graph, latency_cost).values(), default=0)


def joint_sizes(graph: Graph, ranges: Mapping[str, TensorRange]) -> dict[str, float]:
    """Return a half width for every tensor that must be stored in units of one size with others.

    Args:
        graph: any graph.
        ranges: of its tensors, margin applied.
    """
    bound = {name for n in graph.nodes if isinstance(n, Product) for name in (n.output, *n.inputs)}
    bound |= {*graph.outputs, *(name for name in graph.inputs if not ranges[name].is_uniform)}
    parent: dict[str, str] = {}

    def find(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    for node in graph.nodes:
        if isinstance(node, Affine) and is_join(node):
            members = [name for name in (node.output, *node.inputs) if name not in bound]
            for name in members[1:]:
                parent[find(name)] = find(members[0])
    widest: dict[str, float] = {}
    for name in parent:
        widest[find(name)] = max(widest.get(find(name), 0.0), ranges[name].half_width)
    return {name: widest[find(name)] for name in parent if widest[find(name)] > 0.0}


def is_join(node: Affine) -> bool:
    """Tell whether a map only adds and subtracts tensors, element by element."""
    factors = scalars_of(node)
    return factors is not None and is_signs(factors)


def _parted(graph: Graph) -> Graph:
    nodes: list[Node] = []
    shapes = dict(graph.shapes)
    for node in graph.nodes:
        if not isinstance(node, Affine) or node.output in graph.outputs:
            nodes.append(node)
            continue
        pairs = list(zip(node.inputs, node.matrices, strict=True))
        added = [scalar_of(matrix) in (1.0, -1.0) for _, matrix in pairs]
        if all(added) or not any(added):
            nodes.append(node)
            continue
        rest = [pair for pair, plain in zip(pairs, added, strict=True) if not plain]
        kept = [pair for pair, plain in zip(pairs, added, strict=True) if plain]
        inner = f"{node.output}/added"
        shapes[inner] = shapes[node.output]
        names, matrices = zip(*rest, strict=True)
        nodes.append(affine(inner, names, matrices, node.bias, node.origin))
        one = abs(kept[0][1])
        names, matrices = zip((inner, one), *kept, strict=True)
        nodes.append(affine(node.output, names, matrices, 0.0 * node.bias, node.origin))
    return replace(graph, nodes=tuple(nodes), shapes=shapes)
