"""Interval bounds and calibration, against sampled values."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from scipy.sparse import csr_array

from tacit.errors import CircuitError, InputRangeError, InputShapeError, ModelError
from tacit.model_compiler.graph import Activation, Affine, Graph, Product, evaluate
from tacit.model_compiler.passes.calibrate import COVERED_DEVIATIONS, calibrate, histogram_of
from tacit.model_compiler.passes.ranges import (
    Source,
    TensorRange,
    chebyshev_image,
    interval_bounds,
)
from tests.model_compiler.random_graphs import affine_node, random_graph, random_rows

Floats = NDArray[np.float64]


def observed(graph: Graph, rows: dict[str, Floats]) -> dict[str, Floats]:
    seen: dict[str, Floats] = {}

    def observe(name: str, values: Floats) -> None:
        seen[name] = values

    evaluate(graph, rows, observe)
    return seen


def one_activation(function: str, parameters: tuple[float, ...] = ()) -> Graph:
    node = Activation("y", "x", function, parameters, "only")
    return Graph("one", ("x",), ("y",), {"x": (2,), "y": (2,)}, (node,))


@pytest.mark.parametrize("seed", range(20))
def test_interval_bounds_hold_for_every_input_inside(seed: int) -> None:
    graph = random_graph(seed)
    ranges = calibrate(graph)
    assert ranges.source is Source.INTERVAL
    inside = random_rows(graph, seed, 500)
    corners = {name: np.sign(values) for name, values in inside.items()}
    for rows in (inside, corners):
        for name, values in observed(graph, rows).items():
            bounds = ranges.tensors[name]
            slack = 1e-12 * max(bounds.magnitude, 1.0)
            assert np.all(values >= bounds.low - slack), name
            assert np.all(values <= bounds.high + slack), name


def test_the_bound_of_an_affine_map_is_reached_at_a_corner() -> None:
    matrix = csr_array(np.array([[2.0, -3.0], [0.5, 0.0]]))
    node = Affine("y", ("x",), (matrix,), np.array([1.0, -1.0]), "map")
    graph = Graph("map", ("x",), ("y",), {"x": (2,), "y": (2,)}, (node,))
    bounds = interval_bounds(
        graph, {"x": TensorRange(np.array([0.0, -1.0]), np.array([1.0, 2.0]), Source.INTERVAL)}
    )["y"]
    np.testing.assert_allclose(bounds.low, [-5.0, -1.0])
    np.testing.assert_allclose(bounds.high, [6.0, -0.5])


def test_a_square_is_never_negative() -> None:
    node = Product("y", "x", "x", "square")
    graph = Graph("square", ("x",), ("y",), {"x": (2,), "y": (2,)}, (node,))
    bounds = interval_bounds(
        graph, {"x": TensorRange(np.array([-3.0, 1.0]), np.array([2.0, 2.0]), Source.INTERVAL)}
    )["y"]
    assert bounds.low.tolist() == [0.0, 1.0]
    assert bounds.high.tolist() == [9.0, 4.0]


@pytest.mark.parametrize("degree", [0, 1, 2, 5, 31, 127])
@pytest.mark.parametrize("seed", range(3))
def test_the_image_of_a_chebyshev_series_is_tight(degree: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    coefficients = generator.normal(size=degree + 1) * 0.9 ** np.arange(degree + 1)
    ends = np.sort(generator.uniform(-1.0, 1.0, (2, 20)), axis=0)
    low, high = chebyshev_image(coefficients, ends[0], ends[1])
    steps = np.linspace(0.0, 1.0, 40001, dtype=np.float64)[:, None]
    values = chebyshev.chebval(ends[0] + (ends[1] - ends[0]) * steps, coefficients)
    tolerance = 1e-5 * np.abs(coefficients).sum()
    assert np.all(low <= values.min(axis=0))
    assert np.all(high >= values.max(axis=0))
    assert np.all(low >= values.min(axis=0) - tolerance)
    assert np.all(high <= values.max(axis=0) + tolerance)


@pytest.mark.parametrize("margin", [1.0, 1.25, 2.0])
def test_data_ranges_are_the_extremes_widened_about_their_middle(margin: float) -> None:
    graph = random_graph(3)
    rows = random_rows(graph, 3)
    ranges = calibrate(graph, rows, margin=margin)
    assert ranges.source is Source.DATA
    read = {node.input for node in graph.nodes if isinstance(node, Activation)}
    for name, values in observed(graph, rows).items():
        if name in read:
            continue
        middle, half = (values.max() + values.min()) / 2, (values.max() - values.min()) / 2
        assert ranges.tensors[name].center == pytest.approx(middle, abs=1e-12)
        assert ranges.tensors[name].half_width == pytest.approx(margin * half)
        assert np.all(values >= ranges.tensors[name].low - 1e-12)
        assert np.all(values <= ranges.tensors[name].high + 1e-12)


def test_what_a_fitted_activation_reads_covers_deviations_that_few_rows_do_not_show() -> None:
    dense = affine_node(np.random.default_rng(0), "t", {"x": 4}, 4)
    nodes = (dense, Activation("y", "t", "tanh", (), "y"))
    graph = Graph("few", ("x",), ("y",), dict.fromkeys(("x", "t", "y"), (4,)), nodes)
    rows = {"x": np.random.default_rng(1).normal(size=(6, 4))}
    values = observed(graph, rows)["t"]
    found = calibrate(graph, rows).tensors["t"]
    reach = COVERED_DEVIATIONS * values.std(axis=0)
    assert np.all(found.low <= values.mean(axis=0) - reach)
    assert np.all(found.high >= values.mean(axis=0) + reach)


def test_statistics_are_those_of_the_rows() -> None:
    rows = {"x": np.random.default_rng(0).normal(size=(5000, 2))}
    ranges = calibrate(one_activation("relu"), rows)
    statistics = ranges.statistics["x"]
    assert statistics.low == rows["x"].min()
    assert statistics.high == rows["x"].max()
    assert np.mean(np.abs(rows["x"]) <= statistics.quantile) == pytest.approx(0.9999, abs=1e-4)


def test_every_activation_gets_a_histogram_of_all_its_values() -> None:
    graph = random_graph(6)
    rows = random_rows(graph, 6)
    ranges = calibrate(graph, rows)
    read = {node.input for node in graph.nodes if isinstance(node, Activation)}
    assert read
    assert set(ranges.histograms) == read
    for name in read:
        assert ranges.histograms[name].counts.sum() == 64 * graph.size(name)


def test_a_constant_tensor_still_gets_a_histogram() -> None:
    histogram = histogram_of(np.full((10, 3), 4.0))
    assert histogram.counts.sum() == 30
    assert histogram.edges[0] < 4.0 < histogram.edges[-1]


def test_features_of_very_different_width_get_ranges_of_their_own() -> None:
    generator = np.random.default_rng(0)
    years, flag = generator.uniform(20.0, 90.0, 300), generator.integers(0, 2, 300)
    cholesterol, constant = generator.uniform(100.0, 600.0, 300), np.full(300, 3.0)
    more_flags = generator.integers(0, 2, (300, 2))
    x = np.column_stack([years, flag, cholesterol, constant, more_flags]).astype(np.float64)
    node = Activation("y", "x", "polynomial", (0.0, 1.0), "only")
    graph = Graph("table", ("x",), ("y",), {"x": (6,), "y": (6,)}, (node,))
    bounds = calibrate(graph, {"x": x}, margin=1.5).tensors["x"]
    assert bounds.low[1] == pytest.approx(-0.25)
    assert bounds.high[1] == pytest.approx(1.25)
    assert bounds.high[0] - bounds.low[0] == pytest.approx(1.5 * np.ptp(years))
    assert bounds.low[3] == x.min()
    assert bounds.high[3] == x.max()


def test_pixels_share_one_range_even_if_some_stayed_dark() -> None:
    x = np.random.default_rng(0).uniform(0.0, 1.0, (100, 2))
    x[:, 1] *= 0.9
    bounds = calibrate(one_activation("relu"), {"x": x}).tensors["x"]
    assert bounds.is_uniform


def test_a_declared_input_range_is_taken_without_margin() -> None:
    graph = one_activation("sigmoid")
    declared = {"x": (0.0, np.array([1.0, 4.0]))}
    for rows in (None, {"x": np.full((3, 2), 0.5)}):
        bounds = calibrate(graph, rows, input_ranges=declared).tensors["x"]
        assert bounds.low.tolist() == [0.0, 0.0]
        assert bounds.high.tolist() == [1.0, 4.0]


def test_rows_of_the_wrong_width_are_refused() -> None:
    with pytest.raises(InputShapeError, match=r"shape \(rows >= 1, 2\), got \(3, 5\)"):
        calibrate(one_activation("relu"), {"x": np.zeros((3, 5))})
    with pytest.raises(InputShapeError, match="lacks the input 'x'"):
        calibrate(one_activation("relu"), {"z": np.zeros((3, 2))})


def test_rows_outside_a_declared_range_are_counted_and_refused() -> None:
    rows = {"x": np.array([[0.5, 0.5], [2.0, 0.5], [0.5, -3.0]])}
    with pytest.raises(InputRangeError, match="2 calibration rows of 'x' lie outside"):
        calibrate(one_activation("relu"), rows, input_ranges={"x": (-1.0, 1.0)})


def test_a_reversed_declared_range_is_refused() -> None:
    with pytest.raises(InputShapeError, match="low end above its high end"):
        calibrate(one_activation("relu"), input_ranges={"x": (1.0, 0.0)})


def test_a_model_that_overflows_on_the_rows_is_refused() -> None:
    with pytest.raises(ModelError, match="'y' is not finite on the calibration rows"):
        calibrate(one_activation("exp"), {"x": np.full((2, 2), 1e4)})


def test_interval_bounds_that_overflow_are_refused() -> None:
    with pytest.raises(CircuitError, match=r"'y'.*overflow.*calibrate"):
        calibrate(one_activation("exp"), input_ranges={"x": (0.0, 1e4)})
