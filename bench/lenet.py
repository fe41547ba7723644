"""Question `lenet`: Orion's own LeNet (strided convolutions, dense layers, squares) on MNIST.

The network is that of Orion's examples, without its batch normalisations, which are merged into the
layers before them anyway: 32 and 64 kernels of 5x5 with stride 2, then 512 and 10 neurons.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from bench.mlp import ENCRYPTED_IMAGES, TEST_IMAGES, Adam, Classifier, Labels, load_images
from bench.plots import draw_comparison as draw
from bench.question import Answer, Options, measure
from bench.record import look_around
from bench.task import Array, Task

__all__ = ["NAME", "SUMMARY", "LeNet", "draw", "export", "gradients", "make_tasks", "run", "train"]

NAME = "lenet"
SUMMARY = "LeNet with squares (MNIST): two convolutions, two dense layers: one image"
PEERS = ("tacit:all_threads", "tacit:openfhe", "orion")
KERNELS, HIDDEN, CLASSES, WIDTH = (32, 64), 512, 10, 5
EPOCHS, BATCH, SEED = 5, 50, 7
LEAST_ACCURACY = 0.95


@dataclass(slots=True)
class LeNet:
    """The weights: kernels (out, in, 5, 5), dense weights input-major."""

    kernel_1: Array
    kernel_bias_1: Array
    kernel_2: Array
    kernel_bias_2: Array
    weights_1: Array
    bias_1: Array
    weights_2: Array
    bias_2: Array

    @classmethod
    def drawn(cls, side: int, kernels: tuple[int, int], hidden: int, classes: int) -> LeNet:
        """Draw weights for images of side x side."""
        generator = np.random.default_rng(SEED)
        features = kernels[1] * (-(-side // 4)) ** 2

        def draw(fan_in: int, *shape: int) -> Array:
            return generator.normal(0.0, 0.7 / np.sqrt(fan_in), shape)

        return cls(
            draw(WIDTH**2, kernels[0], 1, WIDTH, WIDTH),
            np.zeros(kernels[0]),
            draw(kernels[0] * WIDTH**2, kernels[1], kernels[0], WIDTH, WIDTH),
            np.zeros(kernels[1]),
            draw(features, features, hidden),
            np.zeros(hidden),
            draw(hidden * 4, hidden, classes),
            np.zeros(classes),
        )

    def arrays(self) -> dict[str, Array]:
        """Return the weights by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def logits(self, images: Array) -> Array:
        """Return the outputs for flat images, shape (rows, classes)."""
        parts = [images[i : i + 100] for i in range(0, len(images), 100)]
        return np.concatenate([_forward(self, part)[-1] for part in parts])


def run(options: Options, console: Console) -> Answer:
    """Train, check the accuracy, and measure side by side."""
    around = look_around()
    with tempfile.TemporaryDirectory(prefix="tacit-bench-") as folder:
        (task,) = make_tasks(Path(folder), console)
        answer, _ = measure(
            task, options.subjects(PEERS), options.pace(ENCRYPTED_IMAGES), around, console
        )
    return answer


def make_tasks(folder: Path, console: Console) -> list[Task]:
    """Train the network, export it and return the workload `one image`.

    Raises:
        RuntimeError: the trained network is less accurate than `LEAST_ACCURACY`.
    """
    images, labels = load_images()
    network = LeNet.drawn(28, KERNELS, HIDDEN, CLASSES)
    with threadpool_limits(limits=1):
        train(network, images[:-TEST_IMAGES], labels[:-TEST_IMAGES])
    model = export(network, 28)
    classifier = Classifier(NAME, network.logits, network.arrays(), model, LEAST_ACCURACY)
    return [classifier.task(images, labels, folder, console)]


def train(network: LeNet, images: Array, labels: Labels, epochs: int = EPOCHS) -> None:
    """Fit the network in place with Adam on the cross-entropy, then round it to float32.

    Args:
        network: the weights to start from.
        images: shape (rows, side * side), values in [0, 1].
        labels: shape (rows,), class numbers.
        epochs: passes over the images.
    """
    generator = np.random.default_rng(SEED)
    steps = {name: Adam(weights) for name, weights in network.arrays().items()}
    for epoch in range(epochs):
        rate = 1e-3 * 0.5 * (1 + np.cos(np.pi * epoch / epochs))
        order = generator.permutation(len(images))
        for start in range(0, len(images), BATCH):
            chosen = order[start : start + BATCH]
            for name, gradient in gradients(network, images[chosen], labels[chosen]).items():
                steps[name].descend(gradient, rate)
    for weights in network.arrays().values():
        weights[...] = weights.astype(np.float32)


def export(network: LeNet, side: int) -> onnx.ModelProto:
    """Write the network with flat images as input and any number of rows."""
    constants = [
        numpy_helper.from_array(a.astype(np.float32), name) for name, a in network.arrays().items()
    ]
    constants.append(numpy_helper.from_array(np.array([-1, 1, side, side]), "image_shape"))
    nodes = [
        helper.make_node("Reshape", ["x", "image_shape"], ["image"]),
        _convolution("image", "1", "a"),
        helper.make_node("Mul", ["a", "a"], ["aa"]),
        _convolution("aa", "2", "b"),
        helper.make_node("Mul", ["b", "b"], ["bb"]),
        helper.make_node("Flatten", ["bb"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights_1", "bias_1"], ["c"]),
        helper.make_node("Mul", ["c", "c"], ["cc"]),
        helper.make_node("Gemm", ["cc", "weights_2", "bias_2"], ["logits"]),
    ]
    outputs = network.weights_2.shape[1]
    graph = helper.make_graph(
        nodes,
        "lenet",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", side * side])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", outputs])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def _convolution(source: str, number: str, output: str) -> onnx.NodeProto:
    inputs = [source, f"kernel_{number}", f"kernel_bias_{number}"]
    return helper.make_node("Conv", inputs, [output], pads=[2, 2, 2, 2], strides=[2, 2])


def _forward(network: LeNet, images: Array) -> list[Array]:
    """Return both layers' patches and sums, and the dense layers' sums."""
    side = round(images.shape[1] ** 0.5)
    patches_1 = _patches(images.reshape(-1, 1, side, side))
    a = _convolved(patches_1, network.kernel_1, network.kernel_bias_1)
    patches_2 = _patches((a**2).transpose(0, 3, 1, 2))
    b = _convolved(patches_2, network.kernel_2, network.kernel_bias_2)
    flat = (b**2).transpose(0, 3, 1, 2).reshape(len(images), -1)
    c = flat @ network.weights_1 + network.bias_1
    return [patches_1, a, patches_2, b, flat, c, c**2 @ network.weights_2 + network.bias_2]


def _patches(images: Array) -> Array:
    """Return what each position of a 5x5 kernel with stride 2 sees: (rows, h, w, channels * 25)."""
    padded = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2)))
    views = np.lib.stride_tricks.sliding_window_view(padded, (WIDTH, WIDTH), (2, 3))  # type: ignore[call-overload]
    seen: Array = views[:, :, ::2, ::2].transpose(0, 2, 3, 1, 4, 5)
    return seen.reshape(*seen.shape[:3], -1)


def _convolved(patches: Array, kernel: Array, bias: Array) -> Array:
    """Return sums, shape (rows, height, width, kernels)."""
    return np.asarray(patches @ kernel.reshape(len(kernel), -1).T + bias)


def _scattered(gradient: Array, channels: int, side: int) -> Array:
    """Undo `_patches` for gradients: add up what every pixel was seen as."""
    rows, height, width, _ = gradient.shape
    parts = gradient.reshape(rows, height, width, channels, WIDTH, WIDTH)
    total = np.zeros((rows, channels, side + 4, side + 4))
    for y in range(WIDTH):
        for x in range(WIDTH):
            target = total[:, :, y : y + 2 * height : 2, x : x + 2 * width : 2]
            target += parts[..., y, x].transpose(0, 3, 1, 2)
    return total[:, :, 2:-2, 2:-2]


def gradients(network: LeNet, images: Array, labels: Labels) -> dict[str, Array]:
    """Return the gradient of the mean cross-entropy for every weight, by name."""
    patches_1, a, patches_2, b, flat, c, logits = _forward(network, images)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    shares[np.arange(len(images)), labels] -= 1
    shares /= len(images)
    to_c = shares @ network.weights_2.T * 2 * c
    back = to_c @ network.weights_1.T
    to_b = back.reshape(len(b), b.shape[3], *b.shape[1:3]).transpose(0, 2, 3, 1) * 2 * b
    columns = to_b @ network.kernel_2.reshape(len(network.kernel_2), -1)
    to_a = _scattered(columns, a.shape[3], a.shape[1]).transpose(0, 2, 3, 1) * 2 * a
    return {
        "kernel_1": _kernel_gradient(to_a, patches_1, network.kernel_1),
        "kernel_bias_1": to_a.sum(axis=(0, 1, 2)),
        "kernel_2": _kernel_gradient(to_b, patches_2, network.kernel_2),
        "kernel_bias_2": to_b.sum(axis=(0, 1, 2)),
        "weights_1": flat.T @ to_c,
        "bias_1": to_c.sum(axis=0),
        "weights_2": (c**2).T @ shares,
        "bias_2": shares.sum(axis=0),
    }


def _kernel_gradient(sums: Array, patches: Array, kernel: Array) -> Array:
    flat_sums = sums.reshape(-1, sums.shape[-1])
    return (flat_sums.T @ patches.reshape(len(flat_sums), -1)).reshape(kernel.shape)
