"""The price of a graph while activations are being chosen: its depth, and its products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np

from tacit.model_compiler.graph import Activation, Affine, Graph, Node, Polynomial, Product
from tacit.model_compiler.lowering.depths import latency_cost, required_levels
from tacit.model_compiler.passes.compose import diagonal_cost
from tacit.model_compiler.polynomial_cost import node_products

DepthPrice = Callable[[int], float]

# Levels assumed of an activation before any is chosen.
_TYPICAL_LEVELS = 4
_LEAST_LEVEL_VALUE, _MOST_LEVEL_VALUE = 2.0, 64.0


class Pricer:
    """Prices a graph with its activations replaced, by depth and products of ciphertexts.

    The work of a circuit is counted in key switches: an affine map of d diagonals takes about
    2 sqrt(d) rotations, a product one relinearisation.
    """

    def __init__(self, graph: Graph, price: DepthPrice) -> None:
        """Count what does not depend on the activations.

        Args:
            graph: with Activation nodes.
            price: of a circuit of some depth; inf for one that cannot be run.
        """
        fixed = [node for node in graph.nodes if not isinstance(node, Activation)]
        self._graph = graph
        self._costs = {node.output: latency_cost(node) for node in fixed}
        self._rotations = sum(_rotations(node) for node in fixed if isinstance(node, Affine))
        self._of_depth = cache(price)

    def __call__(self, nodes: tuple[Node, ...]) -> float:
        """Price the graph with these nodes.

        An affine map in place of an activation costs no level: a neighbour will absorb it.
        """
        work = 1.0 + self._rotations + node_products(nodes)
        return self._of_depth(self._depth(nodes)) * work / (1.0 + self._rotations)

    @property
    def level_in_products(self) -> float:
        """Tell how many products of ciphertexts one more level is worth."""
        count = sum(isinstance(node, Activation) for node in self._graph.nodes)
        depth = sum(self._costs.values()) + _TYPICAL_LEVELS * count
        work = self._rotations + 2 * _TYPICAL_LEVELS * count
        return min(max(2.0 * work / (depth + 1), _LEAST_LEVEL_VALUE), _MOST_LEVEL_VALUE)

    def _depth(self, nodes: tuple[Node, ...]) -> int:
        needed = required_levels(replace(self._graph, nodes=nodes), self._levels)
        return max(1, *(needed[name] for name in self._graph.inputs))

    def _levels(self, node: Node) -> int:
        if node.output in self._costs:
            return self._costs[node.output]
        return latency_cost(node) if isinstance(node, Polynomial | Product) else 0


def _rotations(node: Affine) -> float:
    return 2.0 * float(np.sqrt(diagonal_cost(node)))
