"""The batch plan: one ciphertext per element, one slot per row; no rotation at all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, hstack

from tacit.circuit import WeightedSumPlan
from tacit.errors import CircuitError
from tacit.layout import Layout
from tacit.model_compiler.builder import CircuitBuilder
from tacit.model_compiler.graph import Affine, Graph, Polynomial, Product
from tacit.model_compiler.lowering.depths import (
    batch_cost,
    refuse_activations,
    required_levels,
)
from tacit.model_compiler.lowering.elementwise import (
    Values,
    lower_polynomial,
    lower_product,
    lower_scalars,
)
from tacit.model_compiler.lowering.lowered import Lowered
from tacit.model_compiler.lowering.matrices import has_only_unit_entries
from tacit.model_compiler.noise_course import samples_of

Floats = NDArray[np.float64]


def lower_batch(graph: Graph, slots: int) -> Lowered:
    """Lower a scaled graph to a circuit that works on `slots` rows at once.

    Raises:
        CircuitError: the graph holds an Activation node.
    """
    refuse_activations(graph)
    builder = CircuitBuilder(slots)
    levels = required_levels(graph, batch_cost)
    values: dict[str, Values] = {
        name: tuple(builder.input(levels[name]) for _ in range(graph.size(name)))
        for name in graph.inputs
    }
    for node in graph.nodes:
        start = levels[node.output] + batch_cost(node)
        operands = [
            tuple(builder.drop(v, start, node.origin) for v in values[name]) for name in node.inputs
        ]
        values[node.output] = _lower(builder, node, operands)
    outputs = [builder.drop(value, 0, "output") for name in graph.outputs for value in values[name]]
    return Lowered(
        builder.build(outputs),
        slots,
        {name: _layout(graph.size(name), slots) for name in graph.inputs},
        {name: _layout(graph.size(name), slots) for name in graph.outputs},
        {name: levels[name] for name in graph.inputs},
        samples_of(graph.nodes),
    )


def _layout(size: int, slots: int) -> Layout:
    return Layout(slots, slots, size, np.arange(size, dtype=np.int64)[None, :])


def _lower(builder: CircuitBuilder, node: object, operands: list[Values]) -> Values:
    match node:
        case Affine():
            flat = tuple(value for values in operands for value in values)
            if has_only_unit_entries(node):
                return _additions(builder, node, flat)
            return _weighted_sum(builder, node, flat)
        case Polynomial():
            return lower_polynomial(builder, operands[0], node)
        case Product():
            return lower_product(builder, operands[0], operands[-1], node.origin)
    raise CircuitError(f"cannot lower a {type(node).__name__}: approximate and scale it first")


def _joined(node: Affine) -> csr_array:
    return csr_array(hstack(node.matrices, format="csr"))


def _weighted_sum(builder: CircuitBuilder, node: Affine, values: Values) -> Values:
    """Append one weighted sum; inputs that no row reads are left out."""
    matrix = _joined(node)
    columns = np.unique(matrix.nonzero()[1])
    columns = columns if len(columns) else np.array([0])
    weights = matrix[:, columns].toarray()
    bias = builder.constant(node.bias, f"{node.origin}/bias") if np.any(node.bias) else ""
    name = builder.constant(weights, f"{node.origin}/weights")
    plan = WeightedSumPlan(len(node.bias), name, bias)
    return builder.weighted_sum([values[c] for c in columns], plan, node.origin)


def _additions(builder: CircuitBuilder, node: Affine, values: Values) -> Values:
    """Add and subtract ciphertexts; an entry alone in its row costs nothing."""
    matrix = _joined(node)
    matrix.eliminate_zeros()
    results = []
    for row, bias in enumerate(node.bias):
        part = slice(matrix.indptr[row], matrix.indptr[row + 1])
        terms = [(values[column],) for column in matrix.indices[part]]
        signs = matrix.data[part].tolist()
        (total,) = lower_scalars(builder, terms, signs, np.array([bias]), node.origin)
        results.append(total)
    return tuple(results)
