"""Decision trees as arrays: which comparisons exist, and which of them lead to which leaf."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tacit.model_compiler.onnx_ops.builder import Floats
from tacit.model_compiler.onnx_ops.call import Call

Ints = NDArray[np.int64]
Key = tuple[int, int]

# mode -> (sign of x - threshold that `step` sees, whether the true branch is where step is 1)
MODES = {
    "BRANCH_LEQ": (1.0, False),
    "BRANCH_GT": (1.0, True),
    "BRANCH_LT": (-1.0, True),
    "BRANCH_GTE": (-1.0, False),
}

# Longest path from a root to a leaf: paths are held for every leaf.
DEEPEST = 255


@dataclass(frozen=True, slots=True)
class Branch:
    """An inner node: step(sign (x[feature] - threshold)) is 1 in one of its two branches."""

    feature: int
    threshold: float
    sign: float
    true_is_one: bool
    children: tuple[Key, Key]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A leaf: (inner node, whether its step must be 1) from the root down, and its own key."""

    key: Key
    path: tuple[tuple[Key, bool], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """All trees of an ensemble, side by side.

    Leaves are numbered from left to right, tree by tree. A comparison has the number of the last
    leaf on its left; as a tree has one comparison less than leaves, the last number of every tree
    has no comparison. So leaves are near their comparisons, at equal distances in every tree.

    Attributes:
        leaves: in order.
        numbers: number of each comparison by the key of its inner node.
        branches: inner nodes by key.
    """

    leaves: tuple[Leaf, ...]
    numbers: dict[Key, int]
    branches: dict[Key, Branch]

    @property
    def depth(self) -> int:
        """Comparisons on the longest path."""
        return max(len(leaf.path) for leaf in self.leaves)


def read_forest(call: Call, features: int) -> Forest:
    """Read the trees of a TreeEnsemble node.

    Raises:
        UnsupportedModelError: attributes that do not fit, a tree with a loop, or a comparison for
            equality.
    """
    branches, leaf_keys, roots = _nodes(call, features)
    leaves: list[Leaf] = []
    numbers: dict[Key, int] = {}
    for root in roots:
        _walk(call, root, branches, leaf_keys, leaves, numbers)
    return Forest(tuple(leaves), numbers, branches)


def _nodes(call: Call, features: int) -> tuple[dict[Key, Branch], set[Key], list[Key]]:
    columns = [call.attribute(f"nodes_{n}", ()) for n in ("treeids", "nodeids", "modes")]
    trees, nodes, modes = (c if isinstance(c, tuple) else () for c in columns)
    feature_ids, true_ids, false_ids = (
        call.numbers(f"nodes_{n}") for n in ("featureids", "truenodeids", "falsenodeids")
    )
    values = numbers_of(call, "nodes_values")
    lists: tuple[Sequence[object] | Floats, ...] = (
        nodes, modes, feature_ids, true_ids, false_ids, values,
    )  # fmt: skip
    if not trees or any(len(column) != len(trees) for column in lists):
        call.reject("the attributes nodes_* must be given and have one entry per node")
    branches: dict[Key, Branch] = {}
    leaf_keys: set[Key] = set()
    roots: dict[int, Key] = {}
    for index, mode in enumerate(modes):
        tree, key = int(trees[index]), (int(trees[index]), int(nodes[index]))
        roots.setdefault(tree, key)
        if key in branches or key in leaf_keys:
            call.reject(f"tree {tree} has two nodes with the number {key[1]}")
        if mode == "LEAF":
            leaf_keys.add(key)
            continue
        if mode not in MODES:
            call.reject(f"comparisons of kind {mode} are not supported: use BRANCH_LEQ")
        feature = int(feature_ids[index])
        if not 0 <= feature < features:
            call.reject(f"a tree compares feature {feature}, rows have {features}")
        sign, true_is_one = MODES[str(mode)]
        children = ((tree, int(true_ids[index])), (tree, int(false_ids[index])))
        branches[key] = Branch(feature, float(values[index]), sign, true_is_one, children)
    return branches, leaf_keys, list(roots.values())


def numbers_of(call: Call, name: str) -> Floats:
    """Return a list of numbers given as floats or, in double precision, as a tensor."""
    tensor = call.attribute(f"{name}_as_tensor")
    given = tensor if isinstance(tensor, np.ndarray) and tensor.size else call.numbers(name)
    return np.asarray(given, dtype=np.float64).ravel()


def _walk(
    call: Call,
    root: Key,
    branches: dict[Key, Branch],
    leaf_keys: set[Key],
    leaves: list[Leaf],
    numbers: dict[Key, int],
) -> None:
    """Number a tree's leaves and comparisons, true branches first."""
    seen: set[Key] = set()
    todo: list[tuple[Key, tuple[tuple[Key, bool], ...], Key | None]] = [(root, (), None)]
    while todo:
        key, path, closes = todo.pop()
        if closes is not None:
            numbers[closes] = len(leaves) - 1
        if key in seen or (key not in branches and key not in leaf_keys):
            call.reject(f"tree {key[0]} reaches node {key[1]} twice, or it does not exist")
        seen.add(key)
        branch = branches.get(key)
        if branch is None:
            leaves.append(Leaf(key, path))
            continue
        if len(path) == DEEPEST:
            call.reject(f"tree {key[0]} is more than {DEEPEST} comparisons deep: prune it")
        true_child, false_child = branch.children
        todo.append((false_child, (*path, (key, not branch.true_is_one)), key))
        todo.append((true_child, (*path, (key, branch.true_is_one)), None))
