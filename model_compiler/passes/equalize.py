"""Spread the channels of rectified layers over the polynomial's whole domain.

One polynomial serves all channels of an activation, on the domain of the widest; its error is a
share of that domain, and drowns channels that hardly move. For a function with f(s x) = s f(x),
s > 0, the map before it can widen a channel and the map after it narrow it again, for free
(cross-layer equalisation: Nagel et al., ICCV 2019, there for quantisation).

What sign and step read may be scaled freely: every comparison gets the whole domain, whatever the
unit of its feature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tacit.model_compiler.functions import SCALE_FREE
from tacit.model_compiler.graph import Activation, Affine, Graph, Node
from tacit.model_compiler.lowering.depths import batch_cost, latency_cost
from tacit.model_compiler.lowering.matrices import with_factors
from tacit.model_compiler.passes.ranges import TensorRange

Floats = NDArray[np.float64]

_HOMOGENEOUS: Final = frozenset({"relu", "leaky_relu", "abs"})
# Widening by less than this is not worth new weights.
_LEAST_GAIN: Final = 1.05
# 1 would give every channel the same range, and the least room to rows that leave it.
_POWER: Final = 0.5
_MOST_FREE_GAIN: Final = 2.0**-24


def equalize(graph: Graph, tensors: Mapping[str, TensorRange]) -> Graph:
    """Rescale the channels that relu, leaky_relu and abs read, where both neighbours are maps.

    Also those that sign and step read, where a map writes them.

    The result computes the same function; only tensors inside such a layer change.

    Args:
        graph: any graph.
        tensors: a range for every tensor of it, margin applied.

    Returns:
        The graph, the same object if nothing is to gain.
    """
    maps = {node.output: node for node in graph.nodes if isinstance(node, Affine)}
    for node in graph.nodes:
        if isinstance(node, Activation) and node.function in SCALE_FREE:
            factors = _free_factors(tensors[node.input])
            if _is_alone(node, graph) and factors.max() >= _LEAST_GAIN:
                maps[node.input] = _widened(maps[node.input], factors)
            continue
        if not (isinstance(node, Activation) and _is_enclosed(node, graph)):
            continue
        factors = _factors(tensors[node.input])
        if factors.max() < _LEAST_GAIN:
            continue
        maps[node.input] = _widened(maps[node.input], factors)
        for name, reader in maps.items():
            if node.output in reader.inputs:
                maps[name] = _narrowed(reader, node.output, factors)
    changed = tuple(maps.get(node.output, node) for node in graph.nodes)
    if all(new is old for new, old in zip(changed, graph.nodes, strict=True)):
        return graph
    return replace(graph, nodes=changed)


def _is_alone(node: Activation, graph: Graph) -> bool:
    """Tell whether a map that takes a level writes what only this node reads."""
    writers = [other for other in graph.nodes if other.output == node.input]
    readers = [other for other in graph.nodes if node.input in other.inputs]
    return bool(writers) and _are_maps(writers) and readers == [node] and (
        node.input not in graph.outputs
    )  # fmt: skip


def _is_enclosed(node: Activation, graph: Graph) -> bool:
    if node.function not in _HOMOGENEOUS or {node.input, node.output} & set(graph.outputs):
        return False
    writers = [other for other in graph.nodes if other.output == node.input]
    readers = [other for other in graph.nodes if node.output in other.inputs]
    others = [other for other in graph.nodes if node.input in other.inputs and other is not node]
    return bool(writers) and not others and _are_maps(writers) and _are_maps(readers)


def _are_maps(nodes: list[Node]) -> bool:
    """Tell whether these are maps that take a level already; a plain sum must stay one."""
    return all(
        isinstance(node, Affine) and latency_cost(node) and batch_cost(node) for node in nodes
    )


def _factors(bounds: TensorRange) -> Floats:
    """Return what to multiply each channel by, at least 1.

    The margin is a share of the widest channel's range, so a factor never leaves a channel less
    room, relative to its own range, than the widest one has.
    """
    reach = np.maximum(np.abs(bounds.low), np.abs(bounds.high))
    least = max(float(reach.max()) * 2.0**-4, 1e-300)
    return np.asarray((max(float(reach.max()), least) / np.maximum(reach, least)) ** _POWER)


def _free_factors(bounds: TensorRange) -> Floats:
    """Return what makes every channel reach as far as the widest."""
    reach = np.maximum(np.abs(bounds.low), np.abs(bounds.high))
    greatest = max(float(reach.max()), 1e-300)
    return np.asarray(greatest / np.maximum(reach, _MOST_FREE_GAIN * greatest))


def _widened(node: Affine, factors: Floats) -> Affine:
    matrices = tuple(with_factors(matrix, rows=factors) for matrix in node.matrices)
    return replace(node, matrices=matrices, bias=factors * node.bias)


def _narrowed(node: Affine, name: str, factors: Floats) -> Affine:
    matrices = tuple(
        with_factors(matrix, columns=1.0 / factors) if source == name else matrix
        for source, matrix in zip(node.inputs, node.matrices, strict=True)
    )
    return replace(node, matrices=matrices)
