"""Seeded random networks on images, as the scaling pass leaves them: values in [-1, 1]."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.sparse import csr_array, diags_array

from tacit.clear_operations import Array
from tacit.model_compiler.graph import Activation, Affine, Graph, Node, Polynomial
from tacit.model_compiler.onnx_import import import_onnx
from tests.model_compiler.onnx_models import build


def scaled(text: str, shape: tuple[int, ...], constants: dict[str, Array]) -> Graph:
    """Import a model, shrink its maps so that they take [-1, 1] into itself, make Mul polynomials.

    Args:
        text: nodes in ONNX's text syntax, from X to Y; squares are the only activations.
        shape: of a row of X.
        constants: the weights.
    """
    model = build(text, {"X": shape}, constants)
    graph = import_onnx(model, name="images", keep_on_server=True)
    return replace(graph, nodes=tuple(_contracted(node) for node in graph.nodes))


def _contracted(node: Node) -> Node:
    match node:
        case Activation():
            return Polynomial(node.output, node.input, _SQUARE, 0.0, 1.0, node.origin)
        case Affine():
            total = np.abs(node.bias) + sum(abs(m).sum(axis=1) for m in node.matrices)
            factor = 1.0 / max(1.0, float(total.max()))
            matrices = tuple(
                csr_array(diags_array(np.full(len(total), factor)) @ m) for m in node.matrices
            )
            return replace(node, matrices=matrices, bias=factor * node.bias)
        case _:
            return node


_SQUARE = np.array([0.5, 0.0, 0.5])


def random_network(seed: int) -> Graph:
    """Draw a network of strided, padded, grouped convolutions, pools, branches and a dense end."""
    generator = np.random.default_rng(seed)
    channels, side = int(generator.integers(1, 4)), int(generator.choice([6, 7, 8]))
    lines, constants = [], {}
    now, image = "X", (channels, side, side)
    for index in range(3):
        out = int(generator.integers(1, 6))
        stride = int(generator.choice([1, 1, 2])) if image[1] > 3 else 1
        name = f"C{index}"
        constants[f"K{index}"] = generator.normal(size=(out, image[0], 3, 3))
        constants[f"B{index}"] = 0.1 * generator.normal(size=out)
        head = f"Conv<pads=[1, 1, 1, 1], strides=[{stride}, {stride}]>"
        lines.append(f"{name} = {head}({now}, K{index}, B{index})")
        if stride == 1 and out == image[0] and generator.random() < 0.7:
            lines.append(f"R{index} = Add({name}, {now})")
            name = f"R{index}"
        lines.append(f"S{index} = Mul({name}, {name})")
        now = f"S{index}"
        image = (out, -(-image[1] // stride), -(-image[2] // stride))
        if image[1] >= 4 and generator.random() < 0.4:
            lines.append(f"P{index} = AveragePool<kernel_shape=[2, 2], strides=[2, 2]>({now})")
            now, image = f"P{index}", (out, image[1] // 2, image[2] // 2)
    constants["W"] = generator.normal(size=(int(np.prod(image)), 5))
    lines += [f"F = Flatten({now})", "Y = MatMul(F, W)"]
    return scaled("\n".join(lines), (channels, side, side), constants)
