"""Support vector machines with any of the four kernels, as scikit-learn exports them."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.polynomial import polynomial
from scipy.sparse import csr_array

from tacit.model_compiler.onnx_ops.builder import MAX_DEGREE, Floats, Form, Value
from tacit.model_compiler.onnx_ops.call import Call, rank_of
from tacit.model_compiler.onnx_ops.loading import OnnxNode
from tacit.model_compiler.onnx_ops.parts import part

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


def pair_scores(call: Call) -> list[Value]:
    """One decision for every pair of classes (i, j), i < j: positive where i wins.

    Row j - 1 of the coefficients holds those of class i's vectors against class j, row i those of
    class j's vectors against class i.
    """
    counts = [int(count) for count in call.numbers("vectors_per_class")]
    classes, total = len(counts), sum(counts)
    coefficients = np.asarray(call.numbers("coefficients"), dtype=np.float64)
    if min(counts, default=0) < 0 or coefficients.size != (classes - 1) * total:
        call.reject(f"{coefficients.size} coefficients do not fit the vectors per class {counts}")
    rows = coefficients.reshape(classes - 1, total)
    owner = np.repeat(np.arange(classes), counts)
    pairs = itertools.combinations(range(classes), 2)
    mix = [np.where(owner == i, rows[j - 1], 0) + (owner == j) * rows[i] for i, j in pairs]
    rho = np.asarray(call.numbers("rho"), dtype=np.float64)
    if rho.size != len(mix):
        call.reject(f"{len(mix)} pairs of classes need as many rho, there are {rho.size}")
    vectors = np.asarray(call.numbers("support_vectors"), dtype=np.float64)
    return [_mixed_kernels(call, vectors, np.array(mix), rho, call.output)]


def unexpanded_classifier(call: Call) -> list[Value]:
    """Refuse the SVMClassifier nodes that `expand_vector_machine` left alone."""
    call.reject(
        f"kernel {call.attribute('kernel_type', 'LINEAR')} with these labels and this "
        "post_transform is not supported: use an SVC as scikit-learn exports it, or LinearSVC or "
        "LogisticRegression"
    )


def expand_vector_machine(node: OnnxNode) -> list[OnnxNode]:
    """Split an SVMClassifier into decisions (encrypted) and what the client makes of them.

    Of two classes without probabilities, the label is the one with the smaller score, as
    onnxruntime has it; otherwise the class that wins most of its pairs.

    Returns:
        The parts, or the node itself if it cannot be split.
    """
    labels = node.attributes.get("classlabels_strings") or node.attributes.get("classlabels_ints")
    plain = node.attributes.get("post_transform", "NONE") == "NONE"
    kernel = node.attributes.get("kernel_type", "LINEAR")
    if not plain or not isinstance(labels, tuple) or len(labels) < 2 or kernel not in KERNELS:
        return [node]
    if not node.attributes.get("support_vectors"):
        return [node]
    if len(labels) > 2 or node.attributes.get("prob_a"):
        counts = node.attributes.get("vectors_per_class")
        matching = isinstance(counts, tuple) and len(counts) == len(labels)
        return _pair_parts(node, labels) if matching else [node]
    label, scores = (*node.outputs, "")[:2]
    scores = scores or f"{node.name}/scores"
    parts = [part(node, "MachineScores", node.inputs, scores, dict(node.attributes), "tacit")]
    if label:
        index = f"{scores}/index"
        place: dict[str, object] = {"axis": 1, "keepdims": 0}
        parts.append(part(node, "ArgMin", (scores,), index, place))
        parts.append(part(node, "ClassLabel", (index,), label, {"labels": labels}, "tacit"))
    return parts


def _pair_parts(node: OnnxNode, labels: tuple[object, ...]) -> list[OnnxNode]:
    """Decisions by pairs, votes for the label, and probabilities coupled from those of pairs."""
    label, scores = (*node.outputs, "")[:2]
    scale, shift = node.attributes.get("prob_a"), node.attributes.get("prob_b")
    likely = isinstance(scale, tuple) and isinstance(shift, tuple)
    scores = scores or f"{node.name}/scores"
    pairs = f"{scores}/pairs" if likely else scores
    parts = [part(node, "PairScores", node.inputs, pairs, dict(node.attributes), "tacit")]
    if likely and node.outputs[1:] and node.outputs[1]:
        platt: dict[str, object] = {"scale": scale, "shift": shift}
        parts.append(part(node, "CouplePairs", (pairs,), scores, platt, "tacit"))
    if label:
        index = f"{scores}/index"
        count: dict[str, object] = {"classes": len(labels)}
        parts.append(part(node, "PairVotes", (pairs,), index, count, "tacit"))
        parts.append(part(node, "ClassLabel", (index,), label, {"labels": labels}, "tacit"))
    return parts


def _decision(call: Call, weights: Floats, output: str) -> Value:
    """Return weights (outputs, 1) times the decision, plus weights times rho."""
    value = call.value(0)
    coefficients = np.asarray(call.numbers("coefficients"), dtype=np.float64)
    vectors = np.asarray(call.numbers("support_vectors"), dtype=np.float64)
    rho = np.asarray(call.numbers("rho") or (0.0,), dtype=np.float64)
    if rank_of(value) != 2 or rho.size != 1:
        call.reject("the operand must be (rows, features), and there must be one rho")
    if not vectors.size and coefficients.size == value.size:  # weights instead of vectors
        vectors, coefficients = coefficients, np.ones(1)
    mix = weights @ coefficients[None]
    return _mixed_kernels(call, vectors, mix, weights[:, 0] * rho[0], output)


def _mixed_kernels(call: Call, numbers: Floats, mix: Floats, bias: Floats, output: str) -> Value:
    """Return mix (outputs, vectors) times the kernels of all support vectors, plus bias."""
    value = call.value(0)
    kernel = call.attribute("kernel_type", "LINEAR")
    if kernel not in KERNELS:
        call.reject(f"the kernel {kernel} is not supported: use one of {', '.join(KERNELS)}")
    if rank_of(value) != 2 or mix.shape[1] * value.size != numbers.size or not numbers.size:
        call.reject(f"{numbers.size} numbers are not {mix.shape[1]} rows of {value.size}")
    vectors, shape = numbers.reshape(-1, value.size), (len(mix),)
    if kernel == "LINEAR":
        matrix = csr_array(mix @ vectors)
        return call.builder.affine([(value, matrix)], bias, shape, output, call.origin)
    made = {"POLY": _polynomial_kernels, "RBF": _radial_kernels, "SIGMOID": _sigmoid_kernels}
    kernels = made[str(kernel)](call, value, vectors)
    return call.builder.affine([(kernels, csr_array(mix))], bias, shape, output, call.origin)


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
