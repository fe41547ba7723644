"""Decrypted linear models as ONNX files, in the form scikit-learn's exporters give them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tacit.errors import UserError

Floats = NDArray[np.float64]

_OPSET, _ML_OPSET = 17, 3


def classifier(coefficients: Floats, intercepts: Floats) -> bytes:
    """Return an ONNX file's bytes: input `rows`, outputs `label` and `probabilities`.

    Args:
        coefficients: shape (1 or classes, features).
        intercepts: shape (1 or classes,).

    Raises:
        UserError: package onnx is missing.
    """
    onnx = _onnx()
    helper, numbers = onnx.helper, onnx.TensorProto
    if len(coefficients) == 1:
        coefficients = np.concatenate([-coefficients, coefficients])
        intercepts = np.concatenate([-intercepts, intercepts])
    classes, features = coefficients.shape
    raw = "raw" if classes > 2 else "probabilities"
    nodes = [
        helper.make_node(
            "LinearClassifier",
            ["rows"],
            ["label", raw],
            domain="ai.onnx.ml",
            coefficients=coefficients.ravel().tolist(),
            intercepts=intercepts.tolist(),
            classlabels_ints=list(range(classes)),
            multi_class=0,
            post_transform="LOGISTIC",
        )
    ]
    if classes > 2:
        nodes.append(
            helper.make_node("Normalizer", [raw], ["probabilities"], domain="ai.onnx.ml", norm="L1")
        )
    graph = helper.make_graph(
        nodes,
        "tacit_logistic_regression",
        [helper.make_tensor_value_info("rows", numbers.FLOAT, ["N", features])],
        [
            helper.make_tensor_value_info("label", numbers.INT64, ["N"]),
            helper.make_tensor_value_info("probabilities", numbers.FLOAT, ["N", classes]),
        ],
    )
    return _file(onnx, graph)


def regressor(coefficients: Floats, intercept: float) -> bytes:
    """Return an ONNX file's bytes: input `rows`, output `prediction`.

    Args:
        coefficients: shape (features,).
        intercept: the constant.

    Raises:
        UserError: package onnx is missing.
    """
    onnx = _onnx()
    helper, numbers = onnx.helper, onnx.TensorProto
    node = helper.make_node(
        "LinearRegressor",
        ["rows"],
        ["prediction"],
        domain="ai.onnx.ml",
        coefficients=coefficients.tolist(),
        intercepts=[intercept],
        targets=1,
    )
    graph = helper.make_graph(
        [node],
        "tacit_linear_regression",
        [helper.make_tensor_value_info("rows", numbers.FLOAT, ["N", len(coefficients)])],
        [helper.make_tensor_value_info("prediction", numbers.FLOAT, ["N", 1])],
    )
    return _file(onnx, graph)


def written(content: bytes, path: Path | str | None) -> bytes:
    """Write a file, if a path is given; returns its bytes.

    Raises:
        UserError: it cannot be written.
    """
    if path is not None:
        try:
            Path(path).write_bytes(content)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from error
    return content


def _onnx() -> Any:
    try:
        import onnx
        import onnx.helper
    except ImportError as error:
        raise UserError("models are exported with package onnx: install it") from error
    return onnx


def _file(onnx: Any, graph: Any) -> bytes:
    versions = [
        onnx.helper.make_opsetid("", _OPSET),
        onnx.helper.make_opsetid("ai.onnx.ml", _ML_OPSET),
    ]
    model = onnx.helper.make_model(graph, opset_imports=versions, producer_name="tacit")
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content
