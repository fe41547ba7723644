"""Compute equal and opposite outputs once: binary classifiers often give both s and -s.

The client restores them in the clear, as the first steps of the epilogue.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, hstack

from tacit.clear_steps import ClearStep
from tacit.model_compiler.graph import Affine, Graph

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Distinct:
    """The result of `distinct_outputs`.

    Attributes:
        graph: an output that was shortened keeps its name and gets the shape (kept elements,).
        kept: by name, which elements of a shortened output are still computed.
    """

    graph: Graph
    kept: Mapping[str, Ints]


def distinct_outputs(graph: Graph) -> Distinct:
    """Shorten outputs of affine maps that no other node reads and whose rows repeat up to sign."""
    read = {name for node in graph.nodes for name in node.inputs}
    nodes, shapes = list(graph.nodes), dict(graph.shapes)
    kept: dict[str, Ints] = {}
    steps: list[ClearStep] = []
    for index, node in enumerate(graph.nodes):
        wanted = node.output in graph.outputs and node.output not in read
        if not isinstance(node, Affine) or not wanted:
            continue
        first, sign = _repeats(node)
        elements = np.unique(first)
        if len(elements) == len(first):
            continue
        nodes[index] = replace(
            node,
            matrices=tuple(csr_array(matrix[elements]) for matrix in node.matrices),
            bias=node.bias[elements],
        )
        shapes[node.output] = (len(elements),)
        kept[node.output] = elements
        places = np.searchsorted(elements, first)
        steps += _restoring(node.output, places, sign, graph.shapes[node.output])
    epilogue = (*steps, *graph.epilogue)
    shortened = replace(graph, nodes=tuple(nodes), shapes=shapes, epilogue=epilogue)
    return Distinct(shortened, kept)


def _repeats(node: Affine) -> tuple[Ints, Floats]:
    """Return for every row the first row equal to it up to sign, and that sign."""
    bias = csr_array(node.bias[:, None])
    rows = csr_array(hstack([*node.matrices, bias], format="csr"))
    rows.sum_duplicates()
    rows.eliminate_zeros()
    first = np.empty(len(node.bias), dtype=np.int64)
    sign = np.ones(len(node.bias))
    seen: dict[tuple[bytes, bytes], int] = {}
    for row in range(len(node.bias)):
        part = slice(rows.indptr[row], rows.indptr[row + 1])
        columns, values = rows.indices[part].tobytes(), rows.data[part]
        if len(values) and values[0] < 0.0:
            sign[row], values = -1.0, -values
        first[row] = seen.setdefault((columns, values.tobytes()), row)
    return first, np.asarray(sign * sign[first])


def _restoring(name: str, places: Ints, sign: Floats, shape: tuple[int, ...]) -> list[ClearStep]:
    select = ClearStep("select", (name,), (name,), {"axis": 1, "indices": places})
    multiply = ClearStep("multiply", (name,), (name,), {"right": sign})
    steps = [select] if np.all(sign == 1.0) else [select, multiply]
    if len(shape) != 1:
        steps.append(ClearStep("reshape", (name,), (name,), {"row_shape": tuple(shape)}))
    return steps
