"""Models that no price was looked at for: what the compiler's predictions are tried on.

Random weights, fixed seeds; sizes and functions differ from those of the other questions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bench.task import Array, Task

__all__ = ["make_tasks"]

ROWS, CALIBRATION_ROWS = 8, 200

Function = Callable[[Array], Array]


@dataclass(frozen=True, slots=True)
class Network:
    """Dense layers with a function between them.

    Attributes:
        sizes: of the layers, inputs first.
        operator: the ONNX operator between layers; "Mul" multiplies a tensor by itself.
        function: the same in numpy.
        seed: of weights and rows.
    """

    workload: str
    sizes: tuple[int, ...]
    operator: str
    function: Function
    seed: int

    def layers(self) -> list[tuple[Array, Array]]:
        """Return weights (inputs, outputs) and biases, exact in float32."""
        generator = np.random.default_rng(self.seed)
        shapes = zip(self.sizes[:-1], self.sizes[1:], strict=True)
        return [
            (_rounded(generator.normal(0, 1.2 / np.sqrt(a), (a, b))), _rounded(np.full(b, 0.1)))
            for a, b in shapes
        ]

    def run(self, rows: Array) -> Array:
        """Return the outputs, shape (rows, outputs)."""
        *inner, (weights, bias) = self.layers()
        for inner_weights, inner_bias in inner:
            rows = self.function(rows @ inner_weights + inner_bias)
        return rows @ weights + bias


NETWORKS = (
    Network("linear 300-200", (300, 200), "Mul", np.square, 1),
    Network("square 196-64-10", (196, 64, 10), "Mul", np.square, 2),
    Network("square 64-32-32-4", (64, 32, 32, 4), "Mul", np.square, 3),
    Network("tanh 24-24-3", (24, 24, 3), "Tanh", np.tanh, 4),
    Network("tanh 16-12-12-3", (16, 12, 12, 3), "Tanh", np.tanh, 5),
)


def make_tasks(folder: Path) -> list[Task]:
    """Write the models and return one workload of one row for each."""
    return [_task(network, folder) for network in NETWORKS]


def _task(network: Network, folder: Path) -> Task:
    generator = np.random.default_rng(network.seed + 100)
    rows = _rounded(generator.uniform(-1, 1, (ROWS + CALIBRATION_ROWS, network.sizes[0])))
    path = folder / f"{network.workload.replace(' ', '-')}.onnx"
    onnx.save(_export(network), path)
    inputs = rows[:ROWS, None, :]
    arrays = {"inputs": inputs, "calibration": rows[ROWS:]}
    reference = network.run(rows[:ROWS])[:, None, :]
    return Task("blind", network.workload, arrays, path, reference)


def _export(network: Network) -> onnx.ModelProto:
    layers, nodes, constants = network.layers(), [], []
    value = "x"
    for number, (weights, bias) in enumerate(layers):
        names = [f"weights_{number}", f"bias_{number}"]
        arrays = zip(names, (weights, bias), strict=True)
        constants += [numpy_helper.from_array(a.astype(np.float32), n) for n, a in arrays]
        out = "y" if number == len(layers) - 1 else f"sums_{number}"
        nodes.append(helper.make_node("Gemm", [value, *names], [out], name=f"dense_{number}"))
        if out != "y":
            value = f"hidden_{number}"
            nodes.append(_between(network, out, value))
    inputs = _tensor("x", network.sizes[0])
    outputs = _tensor("y", network.sizes[-1])
    graph = helper.make_graph(nodes, "blind", [inputs], [outputs], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def _between(network: Network, source: str, target: str) -> onnx.NodeProto:
    operands: Sequence[str] = [source, source] if network.operator == "Mul" else [source]
    return helper.make_node(network.operator, operands, [target], name=target)


def _tensor(name: str, size: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", size])


def _rounded(values: Array) -> Array:
    return values.astype(np.float32).astype(np.float64)
