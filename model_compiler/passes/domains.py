"""On which interval each activation's polynomial is fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tacit.model_compiler.approximation import is_symmetric
from tacit.model_compiler.functions import BOUND_BY_ZERO, real_function
from tacit.model_compiler.graph import Activation, Graph, Product
from tacit.model_compiler.passes.ranges import TensorRange

Domain = tuple[float, float]

# A domain this close to symmetric is made symmetric when the function then needs half the terms.
_ALMOST_CENTERED = 0.1
_LEAST_HALF_WIDTH = 2.0**-10
# A product is stored with the product of its factors' scales; a domain up to this much wider than
# needed is cheaper than the level of a map that changes the scale.
_WIDER_FOR_PRODUCT = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """A tensor that activations read.

    Attributes:
        activations: the nodes that read it.
        centered: a product reads or writes it, so it is stored without an offset.
        factors: what is multiplied to write it, if a product does.
    """

    activations: tuple[Activation, ...]
    centered: bool
    factors: tuple[str, ...]


def readings(graph: Graph) -> dict[str, Reading]:
    """Return, by name, the tensors that activations read."""
    products = [node for node in graph.nodes if isinstance(node, Product)]
    factors = {node.output: node.inputs for node in products}
    centered = {name for node in products for name in (node.output, *node.inputs)}
    read: dict[str, list[Activation]] = {}
    for node in graph.nodes:
        if isinstance(node, Activation):
            read.setdefault(node.input, []).append(node)
    return {
        name: Reading(tuple(nodes), name in centered, factors.get(name, ()))
        for name, nodes in read.items()
    }


def choose_domain(name: str, reading: Reading, tensors: Mapping[str, TensorRange]) -> Domain:
    """Choose (center, half width) for a tensor's activations: its range, or a simpler one."""
    bounds = tensors[name]
    half_width = max(bounds.half_width, _LEAST_HALF_WIDTH * max(1.0, abs(bounds.center)))
    if any(node.function in BOUND_BY_ZERO for node in reading.activations):
        return bounds.center, bounds.half_width or _LEAST_HALF_WIDTH * abs(bounds.center)
    nearly = abs(bounds.center) <= _ALMOST_CENTERED * half_width
    symmetric = nearly and any(
        is_symmetric(real_function(node.function, node.parameters), bounds.magnitude)
        for node in reading.activations
        if node.function != "polynomial"
    )
    if not (reading.centered or symmetric):
        return bounds.center, half_width
    magnitude = max(bounds.magnitude, _LEAST_HALF_WIDTH)
    if reading.factors:
        stored = float(np.prod([tensors[factor].magnitude for factor in reading.factors]))
        magnitude = stored if magnitude < stored <= _WIDER_FOR_PRODUCT * magnitude else magnitude
    return 0.0, magnitude
