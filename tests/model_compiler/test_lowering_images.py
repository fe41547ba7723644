"""Orders of images: positions, and circuits of networks on images against the graph."""

from __future__ import annotations

import numpy as np
import pytest

from tacit.circuit import LinearPlan
from tacit.clear_operations import Array
from tacit.model_compiler.graph import Graph, evaluate
from tacit.model_compiler.levels import check_levels
from tacit.model_compiler.lowering import latency
from tacit.model_compiler.lowering.arrangement import Arrangement
from tacit.model_compiler.lowering.choose_orders import choose_orders, tensor_classes
from tacit.model_compiler.lowering.latency import LinearMaps, lower_latency
from tacit.model_compiler.lowering.lowered import Lowered
from tacit.model_compiler.lowering.order import Order, candidates, flat, frames
from tacit.model_compiler.passes.compose import compose
from tests.model_compiler.image_graphs import random_network, scaled
from tests.model_compiler.scaled_graphs import drawn_rows, run_clear

TOLERANCE = 1e-9


def _assert_equals_graph(graph: Graph, lowered: Lowered) -> None:
    check_levels(lowered.circuit)
    drawn = drawn_rows(graph, lowered.batch)
    got, _ = run_clear(lowered, drawn)
    for name, expected in evaluate(graph, drawn).items():
        assert np.abs(got[name] - expected).max() < TOLERANCE, name


ORDERS = [
    Order(5, 3, 4, 1, 4, 12),
    Order(5, 3, 4, 1, 8, 32),
    Order(5, 3, 4, 2, 8, 64),
    Order(9, 2, 2, 3, 6, 36),
    Order(1, 3, 3, 2, 7, 49),
    Order(7, 2, 2, 4, 8, 64),
]


@pytest.mark.parametrize("order", ORDERS)
def test_positions_follow_the_formula(order: Order) -> None:
    expected = []
    for c in range(order.channels):
        block, inner = divmod(c, order.gap**2)
        for y in range(order.height):
            for x in range(order.width):
                row = y * order.gap + inner // order.gap
                column = x * order.gap + inner % order.gap
                expected.append(block * order.plane + row * order.row + column)
    assert order.positions().tolist() == expected
    assert order.extent == max(expected) + 1
    assert len(set(expected)) == len(expected)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("cells", [16, 128])
def test_contents_and_layout_agree_for_ordered_tensors(order: Order, cells: int) -> None:
    size = order.channels * order.height * order.width
    arrangement = Arrangement(size, cells, order=order)
    contents = arrangement.contents()
    layout = arrangement.layout(1)
    for copy in layout.cells:
        assert contents.ravel()[copy].tolist() == list(range(size))
    assert (contents >= 0).sum() == layout.cells.size


def test_candidates_are_distinct_places_of_no_more_ciphertexts() -> None:
    planes = frames([(3, 28, 28), (16, 10, 10), (10,)])
    assert planes == ((28, 784), (28, 1024), (32, 1024), (10, 100), (10, 128), (16, 256))
    for shape in [(3, 28, 28), (16, 10, 10), (6, 14, 14), (64, 7, 7)]:
        for cells in (256, 1024, 8192):
            found = candidates(shape, planes, cells)
            assert found[0] == flat(shape)
            for order in found:
                positions = order.positions()
                assert len(np.unique(positions)) == len(positions) == np.prod(shape)
                assert -(-order.extent // cells) <= -(-flat(shape).extent // cells)


@pytest.mark.parametrize("composed", [False, True])
@pytest.mark.parametrize("cells", [64, 512])
@pytest.mark.parametrize("seed", range(10))
def test_networks_on_images_equal_the_graph(seed: int, cells: int, composed: bool) -> None:
    graph = random_network(seed)
    graph = compose(graph) if composed else graph
    _assert_equals_graph(graph, lower_latency(graph, 512, cells))


@pytest.mark.parametrize("seed", range(8))
def test_any_choice_of_orders_computes_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search decides about time only: random orders must give the same values."""
    graph = random_network(seed)
    generator = np.random.default_rng(seed)

    def drawn(graph: Graph, cells: int, prices: object) -> dict[str, Order]:
        assert isinstance(prices, dict)
        classes = tensor_classes(graph)
        planes = frames(graph.shapes.values(), 3)
        chosen = {
            name: candidates(graph.shapes[name], planes, cells) for name in set(classes.values())
        }
        picked = {n: c[int(generator.integers(len(c)))] for n, c in sorted(chosen.items())}
        return {tensor: picked[name] for tensor, name in classes.items()}

    monkeypatch.setattr(latency, "choose_orders", drawn)
    for cells in (32, 256):
        _assert_equals_graph(graph, lower_latency(graph, 256, cells))


def test_a_strided_layer_doubles_the_gap_and_needs_no_more_ciphertexts() -> None:
    generator = np.random.default_rng(0)
    constants: dict[str, Array] = {
        "K0": generator.normal(size=(4, 1, 3, 3)),
        "K1": generator.normal(size=(8, 4, 3, 3)),
        "K2": generator.normal(size=(8, 8, 3, 3)),
    }
    text = """
        A = Conv<pads=[1, 1, 1, 1]>(X, K0)
        B = Mul(A, A)
        C = Conv<pads=[1, 1, 1, 1], strides=[2, 2]>(B, K1)
        D = Mul(C, C)
        Y = Conv<pads=[1, 1, 1, 1]>(D, K2)
    """
    graph = scaled(text, (1, 16, 16), constants)
    orders = choose_orders(graph, 1024)
    assert [orders[name].gap for name in ("B", "D")] == [1, 2]
    lowered = lower_latency(graph, 1024, 1024)
    plans = [n.attribute for n in lowered.circuit.nodes if isinstance(n.attribute, LinearPlan)]
    assert [plan.outputs for plan in plans] == [1, 1, 1]
    # 3x3 taps from the one channel to its repetitions; 4x4 taps, four channels being shifted, from
    # planes to planes modulo 2; 7x7 taps between two planes of four interleaved channels.
    assert [len(plan.terms) for plan in plans] == [9, 2 * 16, 2 * 49]
    _assert_equals_graph(graph, lowered)


def test_a_flat_input_that_is_read_as_an_image_lies_like_one() -> None:
    generator = np.random.default_rng(0)
    constants: dict[str, Array] = {
        "I": np.array([-1.0, 1.0, 12.0, 12.0]),
        "K0": generator.normal(size=(8, 1, 5, 5)),
        "K1": generator.normal(size=(4, 8, 3, 3)),
    }
    text = """
        R = Cast<to=7>(I)
        Z = Reshape(X, R)
        A = Conv<pads=[2, 2, 2, 2], strides=[2, 2]>(Z, K0)
        B = Mul(A, A)
        Y = Conv<pads=[1, 1, 1, 1]>(B, K1)
    """
    graph = compose(scaled(text, (144,), constants))
    assert graph.shapes["X"] == (144,)
    orders = choose_orders(graph, 512)
    assert (orders["X"].row, orders["A"].gap) == (orders["A"].row, 2)
    lowered = lower_latency(graph, 512, 512)
    first = next(n for n in lowered.circuit.nodes if isinstance(n.attribute, LinearPlan))
    # 5x5 taps, and four channels that are shifted by one: 6x6 of 256 differences.
    assert isinstance(first.attribute, LinearPlan)
    assert len(first.attribute.terms) == 36
    _assert_equals_graph(graph, lowered)


def test_lowering_again_for_other_slots_writes_no_diagonal_twice() -> None:
    graph = random_network(3)
    maps = LinearMaps()
    lower_latency(graph, 512, 512, maps=maps)
    known = dict(maps.diagonals)
    lowered = lower_latency(graph, 1024, 512, maps=maps)
    assert maps.diagonals.keys() == known.keys()
    _assert_equals_graph(graph, lowered)


def test_only_elementwise_neighbours_must_share_an_order() -> None:
    generator = np.random.default_rng(0)
    constants: dict[str, Array] = {"K": generator.normal(size=(2, 2, 3, 3))}
    text = "A = Conv<pads=[1, 1, 1, 1]>(X, K)\nB = Mul(A, A)\nY = Conv<pads=[1, 1, 1, 1]>(B, K)"
    graph = scaled(text, (2, 6, 6), constants)
    assert set(tensor_classes(graph).values()) == {"X", "A", "Y"}
    assert len({tensor_classes(graph)[name] for name in ("A", "B")}) == 1
    _assert_equals_graph(graph, lower_latency(graph, 256, 256))


def test_branches_of_a_residual_sum_share_an_order() -> None:
    generator = np.random.default_rng(0)
    constants: dict[str, Array] = {"K": generator.normal(size=(2, 2, 3, 3))}
    text = "A = Conv<pads=[1, 1, 1, 1]>(X, K)\nB = Mul(A, A)\nY = Sub(X, B)"
    graph = scaled(text, (2, 6, 6), constants)
    assert set(tensor_classes(graph).values()) == {"X"}
    _assert_equals_graph(graph, lower_latency(graph, 256, 256))
