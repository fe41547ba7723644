"""Seeded random graphs as the scaling pass leaves them: every stored value in [-1, 1]."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, eye_array

from tacit.circuit import execute
from tacit.model_compiler.graph import Affine, Graph, Node, Polynomial, Product
from tacit.model_compiler.lowering.lowered import Lowered
from tacit.params import CryptoParams, Security
from tacit.runtime.backends.clear import ClearEvaluator

Floats = NDArray[np.float64]


def contraction(
    generator: np.random.Generator, output: str, inputs: dict[str, int], size: int
) -> Affine:
    """Draw an affine map of about half zeros that takes [-1, 1] into itself."""
    weights = [generator.normal(size=(size, k)) for k in inputs.values()]
    weights = [w * (generator.random(w.shape) < 0.5) for w in weights]
    bias = generator.normal(size=size)
    total = np.abs(bias) + sum(np.abs(w).sum(axis=1) for w in weights)
    matrices = tuple(csr_array(w / total[:, None]) for w in weights)
    return Affine(output, tuple(inputs), matrices, bias / total, output)


def residual(output: str, left: str, right: str, size: int, signs: tuple[float, float]) -> Affine:
    """Add or subtract two tensors."""
    matrices = tuple(csr_array(sign * eye_array(size, format="csr")) for sign in signs)
    return Affine(output, (left, right), matrices, np.zeros(size), output)


def polynomial(generator: np.random.Generator, output: str, source: str, degree: int) -> Polynomial:
    """Draw a polynomial that takes [-1, 1] into itself."""
    coefficients = generator.normal(size=degree + 1)
    return Polynomial(output, source, coefficients / np.abs(coefficients).sum(), 0.0, 1.0, output)


def random_scaled_graph(seed: int, most: int = 40, length: int = 5) -> Graph:
    """Draw a graph of two inputs and `length` nodes; tensors of up to `most` elements."""
    generator = np.random.default_rng(seed)
    sizes = {name: int(generator.integers(1, most)) for name in ("x", "w")}
    nodes: list[Node] = []
    for index in range(length):
        name = f"t{index}"
        picked = str(generator.choice(list(sizes)))
        mates = [other for other in sizes if sizes[other] == sizes[picked]]
        mate = str(generator.choice(mates))
        kind = str(generator.choice(["affine", "affine", "sum", "polynomial", "product"]))
        sizes[name] = sizes[picked]
        match kind:
            case "affine":
                sizes[name] = int(generator.integers(1, most))
                others = [o for o in (picked, str(generator.choice(list(sizes)))) if o != name]
                inputs = {other: sizes[other] for other in others}
                nodes.append(contraction(generator, name, inputs, sizes[name]))
            case "sum":
                half = residual(name, picked, mate, sizes[name], (0.5, -0.5))
                nodes.append(
                    half
                    if mate != picked
                    else contraction(generator, name, {picked: sizes[picked]}, sizes[name])
                )
            case "polynomial":
                nodes.append(polynomial(generator, name, picked, int(generator.integers(1, 8))))
            case _:
                nodes.append(Product(name, picked, mate, name))
    read = {name for node in nodes for name in node.inputs}
    unread = {name: size for name, size in sizes.items() if name not in read}
    nodes.append(contraction(generator, "y", unread or sizes, int(generator.integers(1, most))))
    sizes["y"] = len(nodes[-1].bias) if isinstance(nodes[-1], Affine) else 0
    outputs = ("y", nodes[0].output) if seed % 3 == 0 else ("y",)
    return graph_of(nodes, sizes, ("x", "w"), outputs)


def graph_of(
    nodes: list[Node], sizes: dict[str, int], inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> Graph:
    """Build a graph from nodes and sizes."""
    shapes = {name: (size,) for name, size in sizes.items()}
    return Graph("drawn", inputs, outputs, shapes, tuple(nodes))


def square_mlp(seed: int, sizes: tuple[int, int, int]) -> Graph:
    """Draw a perceptron with one squared hidden layer."""
    generator = np.random.default_rng(seed)
    nodes: list[Node] = [
        contraction(generator, "h", {"x": sizes[0]}, sizes[1]),
        Product("s", "h", "h", "square"),
        contraction(generator, "y", {"s": sizes[1]}, sizes[2]),
    ]
    widths = {"x": sizes[0], "h": sizes[1], "s": sizes[1], "y": sizes[2]}
    return graph_of(nodes, widths, ("x",), ("y",))


def dense(graph: Graph, seed: int = 0) -> Graph:
    """Replace all matrices by dense ones."""
    generator = np.random.default_rng(seed)
    nodes = [
        replace(
            node,
            matrices=tuple(
                csr_array(generator.uniform(0.5, 1.0, m.shape) / m.shape[1]) for m in node.matrices
            ),
        )
        if isinstance(node, Affine)
        else node
        for node in graph.nodes
    ]
    return replace(graph, nodes=tuple(nodes))


def drawn_rows(graph: Graph, rows: int, seed: int = 0) -> dict[str, Floats]:
    """Draw rows in [-1, 1] for every input."""
    generator = np.random.default_rng(seed)
    return {name: generator.uniform(-1, 1, (rows, graph.size(name))) for name in graph.inputs}


def tiny_params(slots: int, depth: int) -> CryptoParams:
    """Return insecure parameters."""
    log_n = slots.bit_length()
    return CryptoParams.choose(log_n, max(depth, 1), 40, 50, 1, Security.UNCHECKED_INSECURE)


def run_clear(lowered: Lowered, rows: dict[str, Floats]) -> tuple[dict[str, Floats], Floats]:
    """Run a plan on one batch; returns outputs (rows, size) and all output slots."""
    depth = max(lowered.levels.values())
    evaluator = ClearEvaluator(tiny_params(lowered.circuit.slots, depth))
    ciphertexts = [
        evaluator.encrypt(vector, lowered.levels[name])
        for name, layout in lowered.inputs.items()
        for vector in layout.pack(rows[name])
    ]
    results = execute(lowered.circuit, ciphertexts, evaluator)
    slots = np.stack([result.values for result in results])
    count = len(next(iter(rows.values())))
    outputs, first = {}, 0
    for name, layout in lowered.outputs.items():
        block = slots[first : first + layout.ciphertexts]
        outputs[name] = layout.unpack(block, count)
        first += layout.ciphertexts
    return outputs, slots
