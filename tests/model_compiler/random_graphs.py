"""Seeded random graphs: affine maps with shared inputs, activations and products."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from tacit.model_compiler.graph import Activation, Affine, Graph, Node, Product

Floats = NDArray[np.float64]

SMOOTH = (
    ("sigmoid", ()),
    ("tanh", ()),
    ("silu", ()),
    ("gelu", ()),
    ("polynomial", (0.1, 0.5, 0.25)),
    ("polynomial", (0.0, 0.0, 0.5)),
)


def sparse(generator: np.random.Generator, rows: int, columns: int) -> csr_array:
    """Draw a matrix with about half its entries zero and rows of length about 1."""
    values = generator.normal(size=(rows, columns)) / np.sqrt(columns / 2.0)
    return csr_array(values * (generator.random((rows, columns)) < 0.5))


def affine_node(
    generator: np.random.Generator, output: str, inputs: dict[str, int], size: int
) -> Affine:
    """Draw an affine map of some tensors, given by name and size."""
    matrices = tuple(sparse(generator, size, columns) for columns in inputs.values())
    return Affine(output, tuple(inputs), matrices, 0.3 * generator.normal(size=size), output)


def random_graph(seed: int, depth: int = 8, activations: bool = True) -> Graph:
    """Draw a graph of `depth` nodes and a final affine map, so that every node has its use."""
    generator = np.random.default_rng(seed)
    sizes = {"x": int(generator.integers(3, 9)), "w": int(generator.integers(3, 9))}
    nodes: list[Node] = []
    for index in range(depth):
        name = f"t{index}"
        kind = generator.choice(["affine", "affine", "activation", "product"])
        picked = str(generator.choice(list(sizes)))
        if kind == "activation" and activations:
            function, parameters = SMOOTH[int(generator.integers(len(SMOOTH)))]
            nodes.append(Activation(name, picked, function, parameters, name))
            sizes[name] = sizes[picked]
        elif kind == "product" and activations:
            mates = [other for other in sizes if sizes[other] == sizes[picked]]
            nodes.append(Product(name, picked, str(generator.choice(mates)), name))
            sizes[name] = sizes[picked]
        else:
            others = generator.choice(list(sizes), size=min(2, len(sizes)), replace=False)
            inputs = {str(other): sizes[str(other)] for other in others}
            sizes[name] = int(generator.integers(3, 9))
            nodes.append(affine_node(generator, name, inputs, sizes[name]))
    unused = {name: size for name, size in sizes.items() if name not in _read(nodes)}
    nodes.append(affine_node(generator, "y", unused or sizes, 4))
    shapes = {name: (size,) for name, size in {**sizes, "y": 4}.items()}
    return Graph(f"random{seed}", ("x", "w"), ("y",), shapes, tuple(nodes))


def random_rows(graph: Graph, seed: int, rows: int = 64) -> dict[str, Floats]:
    """Draw rows for the graph's inputs, uniform in [-1, 1]."""
    generator = np.random.default_rng(seed + 1000)
    return {name: generator.uniform(-1.0, 1.0, (rows, graph.size(name))) for name in graph.inputs}


def _read(nodes: list[Node]) -> set[str]:
    return {name for node in nodes for name in node.inputs}
