"""A bound on the time of a leveled circuit: what its polynomials alone take."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tacit.model_compiler.builder import CircuitBuilder
from tacit.model_compiler.choose_params import LARGEST_RING, SMALLEST_RING, secure_params
from tacit.model_compiler.cost import predict
from tacit.model_compiler.graph import Graph, Polynomial, Product
from tacit.model_compiler.lowering.depths import latency_cost, required_levels
from tacit.model_compiler.op_times import MachineTimes
from tacit.params import CryptoParams

# Deep circuits need at least so many bits to be right to any; see `level_price`.
_LEAST_SCALE = 34


def polynomial_seconds(graph: Graph, times: MachineTimes) -> float:
    """Bound the time of a graph's circuit from below, without lowering it.

    Args:
        graph: activations replaced by polynomials.
        times: prices of the machine.

    Returns:
        Seconds of all polynomials and products; inf where no parameters are deep enough.
    """
    levels = required_levels(graph, latency_cost)
    depth = max(1, *(levels[name] for name in graph.inputs))
    return min(
        (_seconds(graph, params, levels, times) for params in _candidates(depth)),
        default=np.inf,
    )


def _candidates(depth: int) -> Iterator[CryptoParams]:
    """Yield parameters of the smallest ring that has any."""
    for log_n in range(SMALLEST_RING, LARGEST_RING + 1):
        found = [p for p in secure_params(log_n, depth) if p.log_scale >= _LEAST_SCALE]
        yield from found
        if found:
            return


def _seconds(
    graph: Graph, params: CryptoParams, levels: dict[str, int], times: MachineTimes
) -> float:
    builder = CircuitBuilder(params.slots)
    results: list[int] = []
    for node in graph.nodes:
        if not isinstance(node, Polynomial | Product):
            continue
        for _ in range(-(-graph.size(node.output) // params.slots)):
            value = builder.input(levels[node.output] + latency_cost(node))
            if isinstance(node, Polynomial) and node.coefficients.size > 2:
                results.append(builder.chebyshev(value, node.coefficients, node.output))
            elif isinstance(node, Product):
                results.append(builder.rescale(builder.multiply(value, value)))
    return predict(builder.build(results), params, times).seconds if results else 0.0
