"""ai.onnx.ml operators: Scaler, linear models, column selection."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from tacit.model_compiler.onnx_ops.builder import (
    Floats,
    Value,
    diagonal_matrix,
    element_numbers,
)
from tacit.model_compiler.onnx_ops.call import Call, rank_of
from tacit.model_compiler.onnx_ops.loading import OnnxNode
from tacit.model_compiler.onnx_ops.parts import part

POST_TRANSFORMS = {"NONE": "Identity", "LOGISTIC": "Sigmoid", "SOFTMAX": "Softmax"}


def scaler(call: Call) -> list[Value]:
    """(x - offset) * scale, per feature."""
    value = call.value(0)
    offset, factor = scaler_parameters(call, value.shape)
    matrix = diagonal_matrix(factor)
    bias = -(offset * factor).ravel()
    return [call.builder.affine([(value, matrix)], bias, value.shape, call.output, call.origin)]


def scaler_parameters(call: Call, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Return offset and scale of a Scaler node, both of the row's shape."""
    offset = np.asarray(call.numbers("offset") or (0.0,), dtype=np.float64)
    factor = np.asarray(call.numbers("scale") or (1.0,), dtype=np.float64)
    try:
        return np.broadcast_to(offset, shape), np.broadcast_to(factor, shape)
    except ValueError:
        call.reject(f"offset and scale do not fit row shape {list(shape)}")


def linear_regressor(call: Call) -> list[Value]:
    """Coefficients times features plus intercepts, one score per target."""
    transform = call.attribute("post_transform", "NONE")
    if transform != "NONE":
        call.reject(f"post_transform={transform!r} is not supported: use NONE")
    return [_scores(call, call.integer("targets", 1))]


def linear_scores(call: Call) -> list[Value]:
    """Raw scores of a LinearClassifier, one per class."""
    return [_scores(call, call.integer("classes", 1))]


def unexpanded_classifier(call: Call) -> list[Value]:
    """Refuse the LinearClassifier nodes that `expand_classifier` left alone."""
    transform, count = call.attribute("post_transform", "NONE"), len(class_labels(call.node))
    call.reject(
        f"post_transform={transform!r} with {count} labels is not supported: use NONE, LOGISTIC "
        "or SOFTMAX and one label per class"
    )


def array_feature_extractor(call: Call) -> list[Value]:
    """Take constant columns of the last axis."""
    value = call.value(0)
    if not value.shape:
        call.reject("the operand has no feature axis")
    columns = call.constant(1, "the column numbers").ravel().astype(np.int64)
    if columns.size == 0 or columns.min() < 0 or columns.max() >= value.shape[-1]:
        call.reject(f"column numbers are outside {value.shape[-1]} columns")
    call.bounded((value.size // value.shape[-1], columns.size))
    numbers = np.take(element_numbers(value.shape), columns, axis=-1)
    return [call.builder.select(value, numbers, call.output, call.origin)]


def expand_classifier(node: OnnxNode) -> list[OnnxNode]:
    """Split a LinearClassifier into scores (encrypted), post-transform and label (client).

    Returns:
        The parts, or the node itself if it cannot be split.
    """
    labels = class_labels(node)
    transform = str(node.attributes.get("post_transform", "NONE"))
    coefficients = node.attributes.get("coefficients", ())
    if transform not in POST_TRANSFORMS or len(labels) < 2 or not isinstance(coefficients, tuple):
        return [node]
    attributes = {**node.attributes, "classes": len(labels)}
    return label_parts(node, "LinearScores", attributes, labels, transform)


def label_parts(
    node: OnnxNode,
    op: str,
    attributes: dict[str, object],
    labels: tuple[object, ...],
    transform: str,
) -> list[OnnxNode]:
    """Return the parts of a classifier: raw scores by `op`, their transform, and the label."""
    label, scores = (*node.outputs, "")[:2]
    scores = scores or f"{node.name}/scores"
    raw, index = (scores if transform == "NONE" else f"{scores}/raw"), f"{scores}/index"
    parts = [part(node, op, node.inputs, raw, attributes, "tacit")]
    if raw != scores:
        parts.append(part(node, POST_TRANSFORMS[transform], (raw,), scores, {"axis": 1}))
    if label:
        place: dict[str, object] = {"axis": 1, "keepdims": 0}
        parts.append(part(node, "ClassIndex", (scores,), index, place, "tacit"))
        parts.append(part(node, "ClassLabel", (index,), label, {"labels": labels}, "tacit"))
    return parts


def class_labels(node: OnnxNode) -> tuple[object, ...]:
    """Return the labels of a classifier; empty if there are none."""
    for key in ("classlabels_strings", "classlabels_ints", "classlabels_int64s"):
        labels = node.attributes.get(key)
        if isinstance(labels, tuple) and labels:
            return labels
    return ()


def _scores(call: Call, count: int) -> Value:
    value = call.value(0)
    if rank_of(value) != 2:
        call.reject(f"the operand must be (rows, features), rows have shape {list(value.shape)}")
    flat = np.asarray(call.numbers("coefficients"), dtype=np.float64)
    if flat.size == 0 or flat.size % value.size:
        call.reject(f"{flat.size} coefficients do not fit {value.size} features")
    weights: Floats = flat.reshape(-1, value.size)
    intercepts: Floats = np.zeros(len(weights))
    given = np.asarray(call.numbers("intercepts"), dtype=np.float64)
    if given.size:
        if given.size != len(weights):
            call.reject(f"{given.size} intercepts do not fit {len(weights)} scores")
        intercepts = given
    if len(weights) == 1 and count == 2:  # one score s for two classes means (-s, s)
        weights, intercepts = np.vstack([-weights, weights]), np.array([-1, 1]) * intercepts
    if len(weights) != count:
        call.reject(f"{len(weights)} rows of coefficients do not fit {count} outputs")
    shape = (count,)
    terms = [(value, csr_array(weights))]
    return call.builder.affine(terms, intercepts, shape, call.output, call.origin)
