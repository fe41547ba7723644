"""Multiply consecutive affine maps where that is cheaper, and drop what nothing needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, eye_array

from tacit.model_compiler.graph import Affine, Graph, Node, Product
from tacit.model_compiler.lowering.choose_orders import ImageCosts

Floats = NDArray[np.float64]
CostOf = Callable[[Affine], float]

# What one level is worth in the unit of `diagonal_cost`: each makes all operations above longer.
LEVEL_VALUE = 256.0
_ENTRIES_PER_DIAGONAL = 1024.0
# What a rotation costs in that unit, where the order of a tensor is open.
_DIAGONALS_PER_ROTATION = 20.0
_MOST_ENTRIES = 1 << 25


def compose(graph: Graph, cost_of: CostOf | None = None, level_value: float = LEVEL_VALUE) -> Graph:
    """Multiply affine maps into the affine maps that read them, merge, and drop dead nodes.

    Composing removes one level from the path. It is done when the composed maps cost at most
    `level_value` more than the separate ones. Constant factors of products become affine maps,
    equal inputs of one map are merged, identity maps and nodes that no output needs vanish.

    Args:
        graph: any graph.
        cost_of: cost of one affine map; default `default_costs`.
        level_value: what removing a level may cost, in the same unit.

    Returns:
        A graph with the same inputs and outputs, equal up to rounding.
    """
    cost_of = cost_of or default_costs(graph)
    refused: set[tuple[int, ...]] = set()
    kept = graph.nodes  # keeps the numbers of `refused` from being used again
    graph = _with_nodes(graph, [_simplified(node, graph) for node in graph.nodes])
    while True:
        graph = without_dead_nodes(_without_identities(graph))
        composed = _compose_one(graph, cost_of, level_value, refused)
        if composed is None:
            return graph
        kept += graph.nodes
        graph = composed


def default_costs(graph: Graph) -> CostOf:
    """Return `diagonal_cost` for graphs of vectors; for images, the cost of the best orders."""
    shapes = graph.image_shapes()
    if all(len(shape) < 2 for shape in shapes.values()):
        return diagonal_cost
    images = ImageCosts(shapes)
    return lambda node: _DIAGONALS_PER_ROTATION * images(node)


def diagonal_cost(node: Affine) -> float:
    """Estimate an affine map's cost: one per nonzero diagonal, plus 1/1024 per entry.

    Diagonals are plaintext multiplications of the latency plan; entries, those of the batch plan.
    """
    diagonals = sum(np.unique(_diagonals(matrix)).size for matrix in node.matrices)
    entries = sum(int(matrix.nnz) for matrix in node.matrices)
    return diagonals + entries / _ENTRIES_PER_DIAGONAL


def affine(
    output: str, inputs: Sequence[str], matrices: Sequence[csr_array], bias: Floats, origin: str
) -> Affine:
    """Build an Affine node: equal inputs summed, zero entries and inputs without entries dropped.

    A map without any entry keeps its first input, so that it still has one row per row of input.
    """
    sums: dict[str, csr_array] = {}
    for name, matrix in zip(inputs, matrices, strict=True):
        sums[name] = csr_array(sums[name] + matrix) if name in sums else matrix
    sums = {name: _without_zeros(matrix) for name, matrix in sums.items()}
    kept = {name: matrix for name, matrix in sums.items() if matrix.nnz} or dict(
        list(sums.items())[:1]
    )
    return Affine(output, tuple(kept), tuple(kept.values()), np.asarray(bias), origin)


def _without_zeros(matrix: csr_array) -> csr_array:
    if np.all(matrix.data):
        return matrix
    matrix = csr_array(matrix.copy())
    matrix.eliminate_zeros()
    return matrix


def consumers_of(graph: Graph) -> dict[str, list[int]]:
    """List, for every tensor, the indices of the nodes that read it (once each)."""
    readers: dict[str, list[int]] = {name: [] for name in graph.shapes}
    for index, node in enumerate(graph.nodes):
        for name in dict.fromkeys(node.inputs):
            readers.setdefault(name, []).append(index)
    return readers


def _diagonals(matrix: csr_array) -> NDArray[np.int64]:
    entries = matrix.tocoo()
    return np.asarray(entries.col.astype(np.int64) - entries.row.astype(np.int64))


def _simplified(node: Node, graph: Graph) -> Node:
    """Merge a map's equal inputs; turn a product with a constant into a diagonal map."""
    match node:
        case Affine():
            return affine(node.output, node.inputs, node.matrices, node.bias, node.origin)
        case Product():
            constants = {
                n.output: n.bias
                for n in graph.nodes
                if isinstance(n, Affine) and not any(matrix.nnz for matrix in n.matrices)
            }
            for factor, other in ((node.left, node.right), (node.right, node.left)):
                if factor in constants:
                    diagonal = _diagonal(constants[factor])
                    zero = np.zeros(constants[factor].size)
                    return affine(node.output, (other,), (diagonal,), zero, node.origin)
    return node


def _diagonal(values: Floats) -> csr_array:
    index = np.arange(values.size)
    return csr_array((values, (index, index)), shape=(values.size, values.size))


def _with_nodes(graph: Graph, nodes: Iterable[Node]) -> Graph:
    return replace(graph, nodes=tuple(nodes))


def _compose_one(
    graph: Graph, cost_of: CostOf, level_value: float, refused: set[tuple[int, ...]]
) -> Graph | None:
    """Multiply one affine map into all affine maps that read it, if that pays; else None.

    Args:
        graph: the graph.
        cost_of: cost of one affine map.
        level_value: what removing a level may cost.
        refused: maps and readers that were found not to pay; more are added.
    """
    readers = consumers_of(graph)
    for index, node in enumerate(graph.nodes):
        if not isinstance(node, Affine):
            continue
        targets = {
            i: reader for i in readers[node.output] if isinstance(reader := graph.nodes[i], Affine)
        }
        stays = node.output in graph.outputs or len(targets) < len(readers[node.output])
        attempt = (id(node), *map(id, targets.values()))
        if not targets or attempt in refused:
            continue
        composed = _composed_if_it_pays(node, targets, stays, cost_of, level_value)
        if composed is not None:
            nodes: list[Node] = [composed.get(i, n) for i, n in enumerate(graph.nodes)]
            return _with_nodes(graph, nodes if stays else nodes[:index] + nodes[index + 1 :])
        refused.add(attempt)
    return None


def _composed_if_it_pays(
    node: Affine, targets: Mapping[int, Affine], stays: bool, cost_of: CostOf, level_value: float
) -> dict[int, Node] | None:
    if any(is_too_large(node, reader) for reader in targets.values()):
        return None
    before = sum(map(cost_of, targets.values())) + (0.0 if stays else cost_of(node))
    products = {i: composed(node, reader) for i, reader in targets.items()}
    after = sum(map(cost_of, products.values()))
    return {**products} if after <= before + level_value else None


def is_too_large(first: Affine, second: Affine) -> bool:
    """Tell whether the product of two maps may have more entries than are worth computing."""
    outer = second.matrices[second.inputs.index(first.output)]
    reads = np.bincount(outer.indices, minlength=outer.shape[1])
    return sum(int(reads @ np.diff(inner.indptr)) for inner in first.matrices) > _MOST_ENTRIES


def composed(first: Affine, second: Affine) -> Affine:
    """Substitute the first map into the second, which reads it exactly once.

    Args:
        first: a map.
        second: another; the result writes its output.
    """
    position = second.inputs.index(first.output)
    matrix = second.matrices[position]
    inputs, matrices = list(second.inputs), list(second.matrices)
    inputs[position : position + 1] = first.inputs
    matrices[position : position + 1] = [csr_array(matrix @ m) for m in first.matrices]
    bias = second.bias + matrix @ first.bias
    origin = " + ".join(dict.fromkeys([first.origin, second.origin]))
    return affine(second.output, inputs, matrices, bias, origin)


def _without_identities(graph: Graph) -> Graph:
    """Drop identity maps; one that writes an output gives its name to the tensor it copies."""
    renamed: dict[str, str] = {}
    fixed = {*graph.inputs, *graph.outputs}
    for node in graph.nodes:
        if not _is_identity(node):
            continue
        source = renamed.get(node.inputs[0], node.inputs[0])
        if node.output not in graph.outputs:
            renamed[node.output] = source
        elif source not in fixed:
            renamed = {name: node.output if to == source else to for name, to in renamed.items()}
            renamed[source] = node.output
            fixed.add(source)
    nodes = [_renamed(node, renamed) for node in graph.nodes]
    return _with_nodes(graph, [node for node in nodes if node.output not in node.inputs])


def _is_identity(node: Node) -> bool:
    if not isinstance(node, Affine) or len(node.inputs) != 1 or np.any(node.bias != 0.0):
        return False
    rows, columns = node.matrices[0].shape
    if rows != columns or np.count_nonzero(node.matrices[0].data) != rows:
        return False
    return bool(abs(node.matrices[0] - eye_array(rows)).nnz == 0)


def _renamed(node: Node, names: Mapping[str, str]) -> Node:
    if not any(name in names for name in (node.output, *node.inputs)):
        return node
    output = names.get(node.output, node.output)
    match node:
        case Affine():
            inputs = [names.get(name, name) for name in node.inputs]
            return affine(output, inputs, node.matrices, node.bias, node.origin)
        case Product():
            left, right = names.get(node.left, node.left), names.get(node.right, node.right)
            return replace(node, output=output, left=left, right=right)
        case _:
            return replace(node, output=output, input=names.get(node.input, node.input))


def without_dead_nodes(graph: Graph) -> Graph:
    """Drop nodes that no output needs."""
    needed = set(graph.outputs)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if node.output in needed:
            needed.update(node.inputs)
            kept.append(node)
    tensors = needed.union(graph.inputs)
    shapes = {name: shape for name, shape in graph.shapes.items() if name in tensors}
    return replace(graph, nodes=tuple(reversed(kept)), shapes=shapes)
