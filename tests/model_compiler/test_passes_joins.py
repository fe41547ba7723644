"""Residual joins: taken apart where levels would add up, and stored in one unit."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, eye_array

from tacit.circuit import Op
from tacit.fourier import fit_series
from tacit.model_compiler.graph import Activation, Affine, Fourier, Graph, Node, evaluate
from tacit.model_compiler.lowering.latency import Stages, lower_latency
from tacit.model_compiler.passes.calibrate import calibrate
from tacit.model_compiler.passes.joins import is_join, joint_sizes, longest_way, part_joins
from tacit.model_compiler.passes.scale import evaluate_scaled, scale

Floats = NDArray[np.float64]

SIZE = 6


def _pre_activated(blocks: int) -> Graph:
    """x + W relu(x), again and again: what is added is never refreshed."""
    generator = np.random.default_rng(blocks)
    nodes: list[Node] = []
    one = csr_array(eye_array(SIZE))
    for block in range(blocks):
        x, relu = (f"x{block}", f"relu{block}")
        nodes.append(Activation(relu, x, "relu", (), relu))
        weights = csr_array(generator.normal(size=(SIZE, SIZE)) / SIZE)
        bias = generator.normal(size=SIZE)
        nodes.append(Affine(f"x{block + 1}", (relu, x), (weights, one), bias, f"block {block}"))
    last = csr_array(generator.normal(size=(2, SIZE)))
    nodes.append(Affine("y", (f"x{blocks}",), (last,), np.zeros(2), "last"))
    names = ["x0", *(node.output for node in nodes)]
    shapes = {name: (2 if name == "y" else SIZE,) for name in names}
    return Graph("g", ("x0",), ("y",), shapes, tuple(nodes))


def _rows(count: int = 50) -> dict[str, Floats]:
    return {"x0": np.random.default_rng(0).uniform(-1.0, 1.0, (count, SIZE))}


def test_taking_joins_apart_keeps_the_function_and_shortens_the_way() -> None:
    graph = _pre_activated(6)
    parted = part_joins(graph)
    assert longest_way(graph) == 7
    assert longest_way(parted) == 2
    assert sum(isinstance(n, Affine) and is_join(n) for n in parted.nodes) == 6
    expected, got = evaluate(graph, _rows()), evaluate(parted, _rows())
    np.testing.assert_allclose(got["y"], expected["y"], atol=1e-12)


def test_joins_that_cost_nothing_stay_one_map() -> None:
    graph = _pre_activated(1)
    assert part_joins(graph) is graph


def test_tensors_of_a_class_get_exactly_one_scale_and_their_sums_no_level() -> None:
    graph = part_joins(_pre_activated(4))
    ranges = calibrate(graph, _rows()).tensors
    sizes = joint_sizes(graph, ranges)
    assert set(sizes) == {f"x{i}" for i in range(5)} | {f"x{i}/added" for i in range(1, 5)}
    widest = max(ranges[name].half_width for name in sizes)
    assert set(sizes.values()) == {widest}
    fitted = _with_series(graph, sizes, {n: r.center for n, r in ranges.items()})
    scaled = scale(fitted, ranges, amplitude=0.5, sizes=sizes)
    assert {float(scaled.placements[name].scale) for name in sizes} == {2.0 * widest}
    lowered = lower_latency(scaled.graph, 16, 16, stages=Stages(2, 2))
    levels = {
        node.label: lowered.circuit.types[node.outputs[0]].level
        for node in lowered.circuit.nodes
        if node.op is Op.ADD
    }
    assert set(levels.values()) == {2}


def test_scaled_series_keep_their_meaning() -> None:
    graph = part_joins(_pre_activated(3))
    ranges = calibrate(graph, _rows()).tensors
    sizes = joint_sizes(graph, ranges)
    fitted = _with_series(graph, sizes, {n: r.center for n, r in ranges.items()})
    scaled = scale(fitted, ranges, amplitude=0.5, sizes=sizes)
    series = [node for node in scaled.graph.nodes if isinstance(node, Fourier)]
    assert all((node.center, node.half_width) == (0.0, 0.5) for node in series)
    expected, got = evaluate(fitted, _rows()), evaluate_scaled(scaled, _rows())
    np.testing.assert_allclose(got["y"], expected["y"], rtol=0, atol=1e-9)
    exact = evaluate(graph, _rows())["y"]
    assert np.abs(got["y"] - exact).max() < 0.05 * np.ptp(exact)


def test_a_series_on_another_interval_than_its_input_is_moved_by_a_map() -> None:
    series = fit_series(np.tanh, 15)
    nodes = (
        Fourier("a", "x", series, 0.0, 1.0, "a", "tanh"),
        Fourier("b", "x", series, 0.0, 2.0, "b", "tanh"),
        Affine("y", ("a", "b"), (_one(), _one()), np.zeros(SIZE), "sum"),
    )
    graph = Graph("g", ("x",), ("y",), dict.fromkeys(("x", "a", "b", "y"), (SIZE,)), nodes)
    rows = {"x": _rows()["x0"]}
    scaled = scale(graph, calibrate(graph, rows).tensors, amplitude=0.5)
    expected, got = evaluate(graph, rows), evaluate_scaled(scaled, rows)
    np.testing.assert_allclose(got["y"], expected["y"], rtol=0, atol=1e-9)
    assert len(scaled.graph.nodes) == len(graph.nodes) + 1


def _one() -> csr_array:
    return csr_array(eye_array(SIZE))


def _with_series(graph: Graph, sizes: dict[str, float], centers: dict[str, float]) -> Graph:
    """Put series of 63 harmonics in place of the activations, on the domains of their classes."""
    nodes: list[Node] = []
    for node in graph.nodes:
        if not isinstance(node, Activation):
            nodes.append(node)
            continue
        center, width = centers[node.input], sizes[node.input]
        series = fit_series(partial(_relu, center, width), 63)
        nodes.append(Fourier(node.output, node.input, series, center, width, "relu", "relu"))
    return Graph(graph.name, graph.inputs, graph.outputs, graph.shapes, tuple(nodes))


def _relu(center: float, half_width: float, u: Floats) -> Floats:
    return np.maximum(center + 2.0 * half_width * u, 0.0)
