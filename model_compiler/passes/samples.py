"""Notes at every polynomial of a scaled graph what it reads on the calibration rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tacit.model_compiler.graph import Node, Polynomial
from tacit.model_compiler.passes.scale import ScaledGraph, evaluate_scaled

Floats = NDArray[np.float64]

_MOST_SAMPLES = 1001
_MOST_ROWS = 64
_MOST_VALUES = 2**25


def with_samples(scaled: ScaledGraph, rows: Mapping[str, Floats]) -> ScaledGraph:
    """Return the graph with `Polynomial.samples` filled in.

    Args:
        scaled: the graph on stored values.
        rows: core inputs, each (rows, size).
    """
    graph = scaled.graph
    row_size = sum(graph.size(n.output) for n in graph.nodes)
    most = max(2, min(_MOST_ROWS, _MOST_VALUES // max(row_size, 1)))
    total = len(next(iter(rows.values())))
    chosen = np.unique(np.linspace(0, total - 1, min(most, total)).astype(np.int64))
    read = {node.input for node in graph.nodes if isinstance(node, Polynomial)}
    samples: dict[str, Floats] = {}

    def observe(name: str, values: Floats) -> None:
        if name in read:
            flat = np.sort(np.clip(values, -1.0, 1.0), axis=None)
            places = np.linspace(0, flat.size - 1, min(_MOST_SAMPLES, flat.size))
            samples[name] = flat[places.astype(np.int64)]

    with np.errstate(all="ignore"):
        evaluate_scaled(scaled, {name: rows[name][chosen] for name in graph.inputs}, observe)
    nodes: list[Node] = [
        replace(node, samples=samples[node.input]) if isinstance(node, Polynomial) else node
        for node in graph.nodes
    ]
    return replace(scaled, graph=replace(graph, nodes=tuple(nodes)))
