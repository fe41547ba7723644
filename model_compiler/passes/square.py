"""Turn a quadratic between affine maps into a completed square, which costs one level, not two.

a x^2 + b x + c = a (x + b / 2a)^2 + (c - b^2 / 4a): the shift goes into the bias of the map before,
the factor and the constant into the maps after.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_array

from tacit.model_compiler.graph import Affine, Graph, Node, Polynomial, Product
from tacit.model_compiler.passes.compose import consumers_of

# A shift beyond this many half widths would square values so large that precision suffers.
_MOST_SHIFT = 2.0
_NO_SHIFT = 1e-12


@dataclass(frozen=True, slots=True)
class _Square:
    """p(x) = factor * (x + shift)^2 + constant."""

    shift: float
    factor: float
    constant: float


def complete_squares(graph: Graph) -> Graph:
    """Replace every degree-2 Polynomial read only by affine maps, where its input can be shifted.

    A shifted tensor keeps its name and changes its meaning: calibrate again afterwards.

    Args:
        graph: any graph.

    Returns:
        An equal graph, up to rounding, with Product(x, x) in place of such polynomials.
    """
    nodes = list(graph.nodes)
    readers = consumers_of(graph)
    writers = {node.output: index for index, node in enumerate(nodes)}
    for index, node in enumerate(graph.nodes):
        if not isinstance(node, Polynomial) or node.coefficients.size != 3:
            continue
        square = _completed(node)
        maps = readers[node.output]
        only_maps = all(isinstance(nodes[i], Affine) for i in maps)
        if node.output in graph.outputs or not maps or not only_maps:
            continue
        if square.shift != 0.0:
            alone = len(readers[node.input]) == 1 and node.input not in graph.outputs
            writer = writers.get(node.input)
            shifted = _shifted(nodes[writer], square.shift) if writer is not None else None
            too_far = _distance(node) > _MOST_SHIFT
            if not alone or writer is None or shifted is None or too_far:
                continue
            nodes[writer] = shifted
        nodes[index] = Product(node.output, node.input, node.input, node.origin)
        for i in maps:
            nodes[i] = _absorbed(nodes[i], node.output, square)
    return replace(graph, nodes=tuple(nodes))


def _completed(node: Polynomial) -> _Square:
    constant, linear, quadratic = (float(c) for c in node.coefficients)
    delta = linear / (4.0 * quadratic)
    shift = node.half_width * delta - node.center
    return _Square(
        shift=0.0 if abs(shift) <= _NO_SHIFT * node.half_width else shift,
        factor=2.0 * quadratic / node.half_width**2,
        constant=constant - quadratic - 2.0 * quadratic * delta**2,
    )


def _distance(node: Polynomial) -> float:
    """Measure from the middle of the domain to the vertex, in half widths."""
    return abs(float(node.coefficients[1] / (4.0 * node.coefficients[2])))


def _shifted(node: Node, shift: float) -> Node | None:
    match node:
        case Affine():
            return replace(node, bias=node.bias + shift)
        case Polynomial():
            first = np.zeros_like(node.coefficients)
            first[0] = shift
            return replace(node, coefficients=node.coefficients + first)
        case _:
            return None


def _absorbed(node: Node, tensor: str, square: _Square) -> Node:
    """Fold the square's factor and constant into an affine map that reads it."""
    if not isinstance(node, Affine):
        return node
    matrices, bias = list(node.matrices), node.bias
    for position, name in enumerate(node.inputs):
        if name == tensor:
            matrix = matrices[position]
            bias = bias + square.constant * np.asarray(matrix.sum(axis=1)).ravel()
            matrices[position] = csr_array(square.factor * matrix)
    return replace(node, matrices=tuple(matrices), bias=bias)
