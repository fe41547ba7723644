"""Files written by PyTorch, Keras and scikit-learn exporters, against ONNX's reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tacit.clear_operations import Array
from tacit.clear_steps import steps_from_json, steps_to_json
from tacit.model_compiler.graph import Activation, Graph, Product
from tacit.model_compiler.onnx_import import import_onnx
from tests.model_compiler.onnx_models import reference, run_imported

FOLDER = Path(__file__).parent / "exported"
FILES = sorted(path.stem for path in FOLDER.glob("*.onnx"))
ROWS = 16
CENTERS = np.array([0.0, 5.0, 1.0, -3.0, 0.0, 50.0, 0.2, 0.0])  # of the scikit-learn features
SPREADS = np.array([1.0, 2.0, 0.5, 3.0, 1.0, 10.0, 0.1, 1.0])


def _load(name: str) -> onnx.ModelProto:
    return onnx.load(FOLDER / f"{name}.onnx")


def _feeds(model: onnx.ModelProto, name: str) -> dict[str, Array]:
    """Draw rows like those the models were trained on."""
    generator = np.random.default_rng(7)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [item for item in model.graph.input if item.name not in weights]
    feeds: dict[str, Array] = {}
    for position, item in enumerate(inputs):
        shape = tuple(axis.dim_value for axis in item.type.tensor_type.shape.dim[1:])
        rows = generator.normal(size=(ROWS, *shape))
        if name.startswith("sklearn"):
            columns = slice(None) if shape == (8,) else slice(position, position + 1)
            rows = rows * SPREADS[columns] + CENTERS[columns]
        if item.type.tensor_type.elem_type == onnx.TensorProto.INT64:
            rows = (rows > 0).astype(np.int64)
        feeds[item.name] = rows
    return feeds


def _expected(model: onnx.ModelProto, feeds: dict[str, Array], name: str) -> list[Array]:
    if "batch_of_8" not in name:
        return reference(model, feeds)
    halves = [
        reference(model, {key: rows[start : start + 8] for key, rows in feeds.items()})
        for start in (0, 8)
    ]
    return [np.concatenate(parts) for parts in zip(*halves, strict=True)]


def _functions(graph: Graph) -> set[str]:
    return {node.function for node in graph.nodes if isinstance(node, Activation)}


@pytest.mark.parametrize("name", FILES)
def test_an_exported_file_equals_the_reference(name: str) -> None:
    model = _load(name)
    feeds = _feeds(model, name)
    graph = import_onnx(model, name="test")
    got = run_imported(graph, feeds)
    for want, found in zip(_expected(model, feeds, name), got, strict=True):
        assert found.shape == want.shape
        if want.dtype.kind == "f":
            np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)
        else:
            assert found.tolist() == want.tolist()


@pytest.mark.parametrize("name", FILES)
def test_the_clear_steps_of_an_exported_file_survive_json(name: str) -> None:
    graph = import_onnx(_load(name), name="test")
    for steps in (graph.prologue, graph.epilogue):
        document = steps_to_json(steps)
        assert steps_to_json(steps_from_json(document)) == document


@pytest.mark.parametrize(
    ("name", "functions"),
    [
        ("torch_dynamo_softplus", {"softplus"}),
        ("torch_script_logsigmoid", {"softplus"}),
        ("torch_dynamo_columns", {"relu"}),
        ("keras_relu_layer", {"relu", "thresholded_relu"}),
    ],
)
def test_comparisons_that_tell_pieces_apart_become_activations(
    name: str, functions: set[str]
) -> None:
    assert _functions(import_onnx(_load(name), name="test")) == functions


@pytest.mark.parametrize(
    "name", ["sklearn_poly2", "sklearn_power", "sklearn_imputer", "torch_dynamo_normalize_input"]
)
def test_preparation_that_only_the_client_can_do_is_done_before_encryption(name: str) -> None:
    graph = import_onnx(_load(name), name="test")
    assert graph.prologue
    assert not any(isinstance(node, Product) for node in graph.nodes)
    assert len(graph.inputs) == 1


def test_missing_values_are_filled_in_before_encryption() -> None:
    model = _load("sklearn_imputer")
    rows = _feeds(model, "sklearn_imputer")["X"]
    rows[::3, 2] = np.nan
    got = run_imported(import_onnx(model, name="test"), {"X": rows})
    want = reference(model, {"X": rows})
    np.testing.assert_allclose(got[1], want[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["sklearn_gnb", "sklearn_calib_sig3"])
def test_weights_stay_encrypted_though_every_operator_could_run_at_the_client(name: str) -> None:
    graph = import_onnx(_load(name), name="test")
    assert not [step for step in graph.prologue if step.op not in ("reshape", "scale")]
    assert graph.nodes
