"""Ensembles of decision trees: all comparisons at once, then all leaves at once.

step(x[feature] - threshold) is computed for every inner node of every tree in one tensor. A leaf is
reached if all comparisons on its path came out right: their number is counted by a sparse map, and
a polynomial that is 1 at the full count and 0 at every smaller one turns counts into 0 or 1. The
leaves' values follow by another map. So a tree of depth d costs ceil(log2(d + 1)) levels after the
comparisons, and few products, whatever its number of leaves.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from tacit.model_compiler.onnx_ops.builder import Floats, Form, Value
from tacit.model_compiler.onnx_ops.call import Call, rank_of
from tacit.model_compiler.onnx_ops.loading import OnnxNode
from tacit.model_compiler.onnx_ops.ml import POST_TRANSFORMS, class_labels, label_parts
from tacit.model_compiler.onnx_ops.tree_structure import (
    Forest,
    Key,
    numbers_of,
    read_forest,
)

# Longest path that one polynomial counts; longer ones are cut into parts that are multiplied.
MOST_COUNTED = 15


def regressor(call: Call) -> list[Value]:
    """Sum or mean of the leaves' values, plus base values."""
    if call.attribute("post_transform", "NONE") != "NONE":
        call.reject("only post_transform=NONE is supported")
    aggregate = str(call.attribute("aggregate_function", "SUM"))
    if aggregate not in ("SUM", "AVERAGE"):
        call.reject(f"aggregate_function={aggregate} is not supported: use SUM or AVERAGE")
    forest = read_forest(call, _features(call))
    count = call.integer("n_targets", 1)
    if count < 1:
        call.reject(f"n_targets={count} must be at least 1")
    weights = _leaf_weights(call, forest, "target", count)
    if aggregate == "AVERAGE":
        weights = csr_array(weights / len({leaf.key[0] for leaf in forest.leaves}))
    return [_evaluated(call, forest, weights, _base_values(call, count))]


def class_scores(call: Call) -> list[Value]:
    """Raw scores of a TreeEnsembleClassifier, one per class.

    If all leaves vote for class 0 of two, with s, that is a vote for the second class: the scores
    are (1 - s, s) where no vote is negative, and (-s, s) elsewhere, as in onnxruntime.
    """
    count = call.integer("classes", 1)
    forest = read_forest(call, _features(call))
    single = set(call.numbers("class_ids")) == {0} and count == 2
    if not single:
        weights = _leaf_weights(call, forest, "class", count)
        return [_evaluated(call, forest, weights, _base_values(call, count))]
    votes = numbers_of(call, "class_weights")
    row = csr_array(_leaf_weights(call, forest, "class", count).sum(axis=0)[None])
    base = _base_values(call, count).sum()
    plain = call.attribute("post_transform", "NONE") == "NONE"
    rest = 1.0 if plain and not np.any(votes < 0.0) else 0.0
    weights = csr_array(np.array([[-1.0], [1.0]]) @ row.toarray())
    return [_evaluated(call, forest, weights, np.array([rest - base, base]))]


def unexpanded_classifier(call: Call) -> list[Value]:
    """Refuse the TreeEnsembleClassifier nodes that `expand_tree_classifier` left alone."""
    call.reject(
        f"post_transform={call.attribute('post_transform', 'NONE')!r} with "
        f"{len(class_labels(call.node))} labels is not supported: use NONE, LOGISTIC or SOFTMAX "
        "and at least two labels"
    )


def expand_tree_classifier(node: OnnxNode) -> list[OnnxNode]:
    """Split a TreeEnsembleClassifier into scores (encrypted), post-transform and label (client).

    Returns:
        The parts, or the node itself if it cannot be split.
    """
    labels = class_labels(node)
    transform = str(node.attributes.get("post_transform", "NONE"))
    if transform not in POST_TRANSFORMS or len(labels) < 2:
        return [node]
    attributes = {**node.attributes, "classes": len(labels)}
    return label_parts(node, "TreeScores", attributes, labels, transform)


def _features(call: Call) -> int:
    value = call.value(0)
    if rank_of(value) != 2:
        call.reject(f"the operand must be (rows, features), rows have shape {list(value.shape)}")
    return value.size


def _evaluated(call: Call, forest: Forest, weights: csr_array, base: Floats) -> Value:
    """Return weights times the 0/1 vector of leaves, plus base values."""
    reached = _leaves(call, forest)
    shape = (weights.shape[0],)
    return call.builder.affine([(reached, weights)], base, shape, call.output, call.origin)


def _leaves(call: Call, forest: Forest) -> Value:
    """Return 1 for every leaf that is reached, 0 for the others."""
    size = len(forest.leaves)
    if forest.depth == 0:
        nothing = csr_array((size, call.value(0).size))
        return call.builder.affine(
            [(call.value(0), nothing)], 1.0, (size,), call.inner("leaves"), call.origin
        )
    steps = _comparisons(call, forest)
    parts = -(-forest.depth // MOST_COUNTED)
    length = -(-forest.depth // parts)
    values = [_counted(call, forest, steps, part * length, length) for part in range(parts)]
    while len(values) > 1:
        pairs = list(zip(values[0::2], values[1::2], strict=False))
        joined = [call.builder.product(a, b, call.inner("both"), call.origin) for a, b in pairs]
        values = joined + values[2 * len(pairs) :]
    return values[0]


def _comparisons(call: Call, forest: Forest) -> Value:
    """Return step(sign (x[feature] - threshold)) for every inner node."""
    value, size = call.value(0), len(forest.leaves)
    bias = np.ones(size)
    rows, columns, signs = [], [], []
    for key, number in forest.numbers.items():
        branch = forest.branches[key]
        bias[number] = -branch.sign * branch.threshold
        rows.append(number)
        columns.append(branch.feature)
        signs.append(branch.sign)
    matrix = csr_array((signs, (rows, columns)), shape=(size, value.size))
    distance = call.builder.affine(
        [(value, matrix)], bias, (size,), call.inner("distances"), call.origin
    )
    output = call.inner("comparisons")
    return call.builder.activation(distance, "step", (), output, call.origin)


def _counted(call: Call, forest: Forest, steps: Value, first: int, length: int) -> Value:
    """Return 1 where the comparisons first, ... first + length - 1 of a leaf's path all hold."""
    paths = [leaf.path[first : first + length] for leaf in forest.leaves]
    matrix, bias = _counting_map(paths, forest.numbers, length)
    shape, inner = (len(paths),), call.inner("counts")
    counts = call.builder.affine([(steps, matrix)], bias, shape, inner, call.origin)
    form = Form(counts.tensor, full_count_polynomial(length))
    return call.builder.polynomial(form, shape, call.inner("leaves"), call.origin)


def _counting_map(
    paths: Sequence[tuple[tuple[Key, bool], ...]], numbers: dict[Key, int], length: int
) -> tuple[csr_array, Floats]:
    """Return the map from comparisons to 2 count / length - 1; missing ones count as held."""
    rows, columns, entries = [], [], []
    bias = np.ones(len(paths))
    for row, path in enumerate(paths):
        for key, one in path:
            rows.append(row)
            columns.append(numbers[key])
            entries.append(2.0 / length if one else -2.0 / length)
            bias[row] -= 2.0 / length if one else 0.0
    shape = (len(paths), len(paths))
    return csr_array((entries, (rows, columns)), shape=shape), bias


def full_count_polynomial(length: int) -> tuple[float, ...]:
    """Return c0, c1, ... of the polynomial that is 1 at 1 and 0 at 2 k / length - 1, k < length."""
    zeros = 2.0 * np.arange(length) / length - 1.0
    ascending = np.poly(zeros)[::-1] / np.prod(1.0 - zeros)
    return tuple(float(c) for c in ascending)


def _leaf_weights(call: Call, forest: Forest, kind: str, count: int) -> csr_array:
    """Return the map from leaves to targets or classes, shape (count, leaves)."""
    trees, nodes, ids = (call.numbers(f"{kind}_{n}") for n in ("treeids", "nodeids", "ids"))
    weights = numbers_of(call, f"{kind}_weights")
    if not len(trees) == len(nodes) == len(ids) == len(weights):
        call.reject(f"the attributes {kind}_* must have one entry per leaf value")
    if any(not 0 <= i < count for i in ids):
        call.reject(f"{kind}_ids are outside {count} outputs")
    call.bounded((count,))
    places = {leaf.key: place for place, leaf in enumerate(forest.leaves)}
    keys = [(int(tree), int(node)) for tree, node in zip(trees, nodes, strict=True)]
    absent = [key for key in keys if key not in places and key not in forest.branches]
    if absent:
        call.reject(f"{kind}_nodeids name node {absent[0][1]}, which tree {absent[0][0]} lacks")
    known = [index for index, key in enumerate(keys) if key in places]
    rows = [int(ids[index]) for index in known]
    columns = [places[keys[index]] for index in known]
    return csr_array((weights[known], (rows, columns)), shape=(count, len(forest.leaves)))


def _base_values(call: Call, count: int) -> Floats:
    base = numbers_of(call, "base_values")
    if base.size not in (0, 1, count):
        call.reject(f"{base.size} base values do not fit {count} outputs")
    if base.size == 1 < count:
        last = np.zeros(count)
        last[-1] = base[0]
        return last
    return base if base.size else np.zeros(count)
