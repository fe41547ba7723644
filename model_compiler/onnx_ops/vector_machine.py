"""Support vector machines with any of the four kernels, as scikit-learn exports them."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.polynomial import polynomial
from scipy.sparse import csr_array

from tacit.model_compiler.onnx_ops.builder import MAX_DEGREE, Floats, Form, Value
from tacit.model_compiler.onnx_ops.call import Call, rank_of
from tacit.model_compiler.onnx_ops.loading import OnnxNode

KERNELS = ("LINEAR", "POLY", "RBF", "SIGMOID")


def regressor(call: Call) -> list[Value]:
    """Sum of coefficients times kernels, plus rho."""
    transform = call.attribute("post_transform", "NONE")
    if transform != "NONE" or call.integer("one_class", 0):
        call.reject("only post_transform=NONE and one_class=0 are supported")
    return [_decision(call, np.ones((1, 1)), call.output)]


def two_class_scores(call: Call) -> list[Value]:
    """Scores (-d, d) of the decision d."""
    return [_decision(call, np.array([[-1.0], [1.0]]), call.output)]


def unexpanded_classifier(call: Call) -> list[Value]:
    """Refuse the SVMClassifier nodes that `expand_vector_machine` left alone."""
    call.reject(
        f"kernel {call.attribute('kernel_type', 'LINEAR')} with these labels and probabilities is "
        "not supported: use an SVC with two classes and without probability=True, or LinearSVC or "
        "LogisticRegression"
    )


def expand_vector_machine(node: OnnxNode) -> list[OnnxNode]:
    """Split an SVMClassifier for two classes into scores (encrypted) and label (client).

    The label is the one with the smaller score, as onnxruntime has it.

    Returns:
        The parts, or the node itself if it cannot be split.
    """
    labels = node.attributes.get("classlabels_strings") or node.attributes.get("classlabels_ints")
    plain = node.attributes.get("post_transform", "NONE") == "NONE"
    kernel = node.attributes.get("kernel_type", "LINEAR")
    two = isinstance(labels, tuple) and len(labels) == 2
    supported = plain and two and kernel in KERNELS and not node.attributes.get("prob_a")
    if not supported or not node.attributes.get("support_vectors"):
        return [node]
    label, scores = (*node.outputs, "")[:2]
    scores = scores or f"{node.name}/scores"
    parts = [_part(node, "tacit", "MachineScores", scores, node.inputs, dict(node.attributes))]
    if label:
        index = f"{scores}/index"
        place: dict[str, object] = {"axis": 1, "keepdims": 0}
        parts.append(_part(node, "", "ArgMin", index, (scores,), place))
        parts.append(_part(node, "tacit", "ClassLabel", label, (index,), {"labels": labels}))
    return parts


def _decision(call: Call, weights: Floats, output: str) -> Value:
    """Return weights (outputs, 1) times the decision, plus weights times rho."""
    value = call.value(0)
    kernel = call.attribute("kernel_type", "LINEAR")
    if kernel not in KERNELS:
        call.reject(f"the kernel {kernel} is not supported: use one of {', '.join(KERNELS)}")
    coefficients = np.asarray(call.numbers("coefficients"), dtype=np.float64)
    vectors = np.asarray(call.numbers("support_vectors"), dtype=np.float64)
    rho = np.asarray(call.numbers("rho") or (0.0,), dtype=np.float64)
    if rank_of(value) != 2 or rho.size != 1:
        call.reject("the operand must be (rows, features), and there must be one rho")
    if not vectors.size and coefficients.size == value.size:  # weights instead of vectors
        vectors, coefficients = coefficients, np.ones(1)
    if coefficients.size * value.size != vectors.size or not vectors.size:
        call.reject(f"{vectors.size} numbers are not {coefficients.size} rows of {value.size}")
    vectors = vectors.reshape(-1, value.size)
    shape, bias = (len(weights),), weights[:, 0] * rho[0]
    if kernel == "LINEAR":
        matrix = csr_array(weights @ (coefficients @ vectors)[None])
        return call.builder.affine([(value, matrix)], bias, shape, output, call.origin)
    made = {"POLY": _polynomial_kernels, "RBF": _radial_kernels, "SIGMOID": _sigmoid_kernels}
    kernels = made[str(kernel)](call, value, vectors)
    matrix = csr_array(weights @ coefficients[None])
    return call.builder.affine([(kernels, matrix)], bias, shape, output, call.origin)


def _polynomial_kernels(call: Call, value: Value, vectors: Floats) -> Value:
    """(gamma x.v + constant) ** degree."""
    degree = (*call.numbers("kernel_params"), 1.0, 0.0, 3.0)[2]
    if degree not in range(1, MAX_DEGREE + 1):
        call.reject(f"the degree must be an integer from 1 to {MAX_DEGREE}, it is {degree}")
    products = _products(call, value, vectors)
    power = tuple(polynomial.polypow((0.0, 1.0), int(degree)).tolist())
    form = Form(products.tensor, power)
    return call.builder.polynomial(form, products.shape, call.inner("kernels"), call.origin)


def _sigmoid_kernels(call: Call, value: Value, vectors: Floats) -> Value:
    """tanh(gamma x.v + constant)."""
    products = _products(call, value, vectors)
    return call.builder.activation(products, "tanh", (), call.inner("kernels"), call.origin)


def _radial_kernels(call: Call, value: Value, vectors: Floats) -> Value:
    """exp(-gamma |x - v|^2), with |x - v|^2 = |x|^2 - 2 x.v + |v|^2."""
    gamma = (*call.numbers("kernel_params"), 1.0)[0]
    square = Form(value.tensor, (0.0, 0.0, 1.0))
    squares = call.builder.polynomial(square, value.shape, call.inner("squares"), call.origin)
    distances = call.builder.affine(
        [
            (squares, csr_array(np.full(vectors.shape, -gamma))),
            (value, csr_array(2.0 * gamma * vectors)),
        ],
        -gamma * (vectors**2).sum(axis=1),
        (len(vectors),),
        call.inner("distances"),
        call.origin,
    )
    return call.builder.activation(distances, "exp", (), call.inner("kernels"), call.origin)


def _products(call: Call, value: Value, vectors: Floats) -> Value:
    """Gamma x.v + constant for every support vector."""
    gamma, constant = (*call.numbers("kernel_params"), 1.0, 0.0)[:2]
    matrix = csr_array(gamma * vectors)
    inner = call.inner("products")
    return call.builder.affine([(value, matrix)], constant, (len(vectors),), inner, call.origin)


def _part(
    node: OnnxNode,
    domain: str,
    op: str,
    output: str,
    inputs: tuple[str, ...],
    attributes: dict[str, object],
) -> OnnxNode:
    return dataclasses.replace(
        node,
        op=op,
        domain=domain,
        inputs=inputs,
        outputs=(output,),
        attributes=attributes,
        version=13,
        proto=None,
    )
