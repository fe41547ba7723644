"""Tree ensembles, against ONNX's reference, onnxruntime and scikit-learn."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from tacit.errors import UnsupportedModelError
from tacit.model_compiler.graph import Activation, Graph
from tacit.model_compiler.onnx_import import import_onnx
from tacit.model_compiler.onnx_ops.trees import MOST_COUNTED, full_count_polynomial
from tests.model_compiler.onnx_models import reference, run_imported

Floats = NDArray[np.float64]

FEATURES = 5


def _random_tree(
    generator: np.random.Generator, depth: int, mode: str, tree: int, chain: bool = False
) -> dict[str, list[float | str]]:
    """Draw a tree: nodes as columns; a chain has one leaf and one inner node per level."""
    columns: dict[str, list[float | str]] = {
        name: [] for name in ("nodeids", "featureids", "values", "modes", "true", "false")
    }

    def node(*cells: float | str) -> int:
        for column, cell in zip(columns.values(), cells, strict=True):
            column.append(cell)
        return len(columns["nodeids"]) - 1

    def grow(level: int) -> int:
        number = len(columns["nodeids"])
        if level == depth or (level > 1 and not chain and generator.random() < 0.2):
            return node(number, 0, 0.0, "LEAF", 0, 0)
        feature, threshold = int(generator.integers(FEATURES)), float(generator.normal())
        kind = mode if mode != "mixed" else str(generator.choice(sorted(MODES)))
        node(number, feature, float(np.float32(threshold)), kind, 0, 0)
        children = [grow(level + 1), grow(depth if chain else level + 1)]
        columns["true"][number], columns["false"][number] = children
        return number

    grow(0)
    columns["treeids"] = [tree] * len(columns["nodeids"])
    return columns


MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GT", "BRANCH_GTE")


def _ensemble(
    seed: int,
    depths: Sequence[int],
    *,
    mode: str = "BRANCH_LEQ",
    classes: int = 0,
    chain: bool = False,
    **attributes: object,
) -> onnx.ModelProto:
    """Make a TreeEnsembleRegressor of two targets, or a classifier."""
    generator = np.random.default_rng(seed)
    trees = [_random_tree(generator, depth, mode, tree, chain) for tree, depth in enumerate(depths)]
    joined = {name: list(itertools.chain(*(t[name] for t in trees))) for name in trees[0]}
    leaves = [i for i, kind in enumerate(joined["modes"]) if kind == "LEAF"]
    kind, outputs = ("class", classes) if classes else ("target", 2)
    pairs = [(leaf, output) for leaf in leaves for output in range(outputs)]
    leaf_values = {
        f"{kind}_treeids": [joined["treeids"][leaf] for leaf, _ in pairs],
        f"{kind}_nodeids": [joined["nodeids"][leaf] for leaf, _ in pairs],
        f"{kind}_ids": [output for _, output in pairs],
        f"{kind}_weights": [float(w) for w in generator.normal(size=len(pairs))],
    }
    names = ["label", "scores"] if classes else ["Y"]
    own: dict[str, object] = (
        {"classlabels_int64s": [10 * (k + 1) for k in range(classes)]}
        if classes
        else {"n_targets": outputs, "aggregate_function": "SUM"}
    )
    values: dict[str, Any] = {**leaf_values, **own, **attributes}
    node = helper.make_node(
        "TreeEnsembleClassifier" if classes else "TreeEnsembleRegressor",
        ["X"],
        names,
        domain="ai.onnx.ml",
        nodes_treeids=joined["treeids"],
        nodes_nodeids=joined["nodeids"],
        nodes_featureids=joined["featureids"],
        nodes_values=[float(v) for v in joined["values"]],
        nodes_modes=joined["modes"],
        nodes_truenodeids=joined["true"],
        nodes_falsenodeids=joined["false"],
        **values,
    )
    inputs = [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["N", FEATURES])]
    graph = helper.make_graph(
        [node], "trees", inputs, [helper.make_empty_tensor_value_info(name) for name in names]
    )
    for item, name in zip(graph.output, names, strict=True):
        item.type.tensor_type.elem_type = (
            TensorProto.INT64 if name == "label" else TensorProto.FLOAT
        )
        item.type.tensor_type.shape.SetInParent()
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def _rows(count: int = 40, seed: int = 9) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, FEATURES)).astype(np.float32)


def _agree(model: onnx.ModelProto) -> Graph:
    graph = import_onnx(model, name="trees")
    feeds = {"X": _rows()}
    for expected, got in zip(reference(model, feeds), run_imported(graph, feeds), strict=True):
        np.testing.assert_allclose(got.reshape(expected.shape), expected, rtol=1e-5, atol=1e-5)
    return graph


@pytest.mark.parametrize("mode", [*MODES, "mixed"])
@pytest.mark.parametrize("depths", [(1,), (3,), (2, 4, 3), (0, 2)], ids=str)
def test_a_regressor_equals_the_reference(mode: str, depths: tuple[int, ...]) -> None:
    _agree(_ensemble(sum(depths), depths, mode=mode))


def test_averages_and_base_values_equal_the_reference() -> None:
    _agree(_ensemble(3, (2, 3, 4), aggregate_function="AVERAGE", base_values=[0.5, -1.0]))


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC", "SOFTMAX"])
def test_a_classifier_equals_the_reference(transform: str, classes: int) -> None:
    _agree(_ensemble(4, (3, 2, 3), classes=classes, post_transform=transform))


@pytest.mark.parametrize("depth", [MOST_COUNTED - 1, MOST_COUNTED + 1, 3 * MOST_COUNTED])
def test_paths_of_any_length_are_counted(depth: int) -> None:
    graph = _agree(_ensemble(5, (depth,), chain=True))
    exact = [n for n in graph.nodes if isinstance(n, Activation) and n.function == "polynomial"]
    assert len(exact) == -(-depth // MOST_COUNTED)
    assert all(len(n.parameters) <= MOST_COUNTED + 1 for n in exact)


@pytest.mark.parametrize("length", range(1, MOST_COUNTED + 1))
def test_only_the_full_count_gives_one(length: int) -> None:
    coefficients = full_count_polynomial(length)
    places = 2.0 * np.arange(length + 1) / length - 1.0
    values = np.polynomial.polynomial.polyval(places, coefficients)
    expected = np.zeros(length + 1)
    expected[-1] = 1.0
    np.testing.assert_allclose(values, expected, atol=1e-9)


def test_all_comparisons_are_one_activation() -> None:
    graph = _agree(_ensemble(6, (4, 4, 4, 4), mode="mixed"))
    functions = [n.function for n in graph.nodes if isinstance(n, Activation)]
    assert functions == ["step", "polynomial"]


@pytest.mark.parametrize("seed", range(4))
def test_a_classifier_that_votes_for_one_class_is_as_in_onnxruntime(seed: int) -> None:
    """Votes of both signs give (-s, s); votes that are never negative give (1 - s, s)."""
    runtime = pytest.importorskip("onnxruntime")
    model = _ensemble(seed, (3, 3), classes=2)
    attributes = {a.name: a for a in model.graph.node[0].attribute}
    kept = [i for i, c in enumerate(attributes["class_ids"].ints) if c == 0]
    for name in ("class_treeids", "class_nodeids", "class_ids"):
        values = [attributes[name].ints[i] for i in kept]
        attributes[name].CopyFrom(helper.make_attribute(name, values))
    weights = [attributes["class_weights"].floats[i] for i in kept]
    weights = [abs(w) / 4 for w in weights] if seed % 2 else weights
    attributes["class_weights"].CopyFrom(helper.make_attribute("class_weights", weights))
    session = runtime.InferenceSession(model.SerializeToString())
    label, scores = session.run(None, {"X": _rows()})
    got = run_imported(import_onnx(model, name="trees"), {"X": _rows()})
    np.testing.assert_allclose(got[1], scores, atol=1e-6)
    assert np.array_equal(got[0], label)


def _changed(name: str, value: object) -> onnx.ModelProto:
    model = _ensemble(7, (2,))
    for attribute in list(model.graph.node[0].attribute):
        if attribute.name == name:
            model.graph.node[0].attribute.remove(attribute)
    if value is not None:
        model.graph.node[0].attribute.append(helper.make_attribute(name, value))
    return model


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("nodes_values", None, "one entry per node"),
        ("nodes_modes", ["BRANCH_EQ"] * 7, "BRANCH_EQ"),
        ("nodes_featureids", [9] * 7, "feature 9"),
        ("nodes_truenodeids", [0] * 7, "twice"),
        ("nodes_truenodeids", [77] * 7, "does not exist"),
        ("target_ids", [5] * 8, "outside 2 outputs"),
        ("target_weights", [1.0], "one entry per leaf"),
        ("aggregate_function", "MIN", "MIN"),
        ("post_transform", "PROBIT", "post_transform"),
        ("base_values", [1.0, 2.0, 3.0], "base values"),
    ],
)
def test_trees_that_do_not_fit_are_refused(name: str, value: object, reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=reason):
        import_onnx(_changed(name, value), name="trees")
