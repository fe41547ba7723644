"""The approximation pass, against the exact graph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_array, eye_array

from tacit.errors import ModelError
from tacit.model_compiler.approximation import USEFUL_DEGREES, approximate_function
from tacit.model_compiler.functions import real_function
from tacit.model_compiler.graph import (
    Activation,
    Affine,
    Graph,
    Node,
    Polynomial,
    Product,
    evaluate,
)
from tacit.model_compiler.passes.approximate import Approximated, approximate
from tacit.model_compiler.passes.calibrate import calibrate
from tacit.model_compiler.passes.degree_search import search_degrees
from tacit.model_compiler.passes.score import CHANGED_ROWS, Budget, score_answers
from tests.model_compiler.random_graphs import affine_node, random_graph, random_rows

Floats = NDArray[np.float64]


def perceptron(function: str, seed: int = 0, layers: int = 2) -> Graph:
    """Draw a net of 12 inputs, layers of 16, and 5 classes, with inputs to activations about 3."""
    generator = np.random.default_rng(seed)
    sizes = [12, *[16] * layers]
    nodes: list[Node] = []
    source = "x"
    for index in range(layers):
        inner = affine_node(generator, f"h{index}", {source: sizes[index]}, 16)
        nodes.append(Affine(inner.output, inner.inputs, (3 * inner.matrices[0],), inner.bias, "h"))
        nodes.append(Activation(f"a{index}", f"h{index}", function, (), f"act{index}"))
        source = f"a{index}"
    nodes.append(affine_node(generator, "y", {source: 16}, 5))
    shapes = {"x": (12,), "y": (5,)} | {n.output: (16,) for n in nodes[:-1]}
    return Graph("mlp", ("x",), ("y",), shapes, tuple(nodes))


def approximated(graph: Graph, rows: dict[str, Floats], **options: float) -> Approximated:
    return approximate(
        graph,
        calibrate(graph, rows),
        rows,
        accuracy=options.get("accuracy", 0.01),
        max_degree=int(options.get("max_degree", 127)),
        max_sign_levels=int(options.get("max_sign_levels", 15)),
        search_rows=int(options.get("search_rows", 1024)),
    )


def row_errors(graph: Graph, other: Graph, rows: dict[str, Floats]) -> Floats:
    """Return each row's greatest error as a fraction of the output's range."""
    expected, got = evaluate(graph, rows)["y"], evaluate(other, rows)["y"]
    return np.asarray(np.abs(expected - got).max(axis=1) / np.ptp(expected))


def rms(errors: Floats) -> float:
    return float(np.sqrt(np.mean(errors**2)))


def close_calls_at_most(graph: Graph, other: Graph, rows: dict[str, Floats], gap: float) -> bool:
    """Tell whether all but 0.5 % of the rows keep their argmax or had a gap this small."""
    expected, got = evaluate(graph, rows)["y"], evaluate(other, rows)["y"]
    best_two = np.sort(expected, axis=1)[:, -2:]
    clear = best_two[:, 1] - best_two[:, 0] > gap * np.ptp(expected)
    changed = expected.argmax(axis=1) != got.argmax(axis=1)
    return float(np.mean(changed & clear)) <= CHANGED_ROWS


@pytest.mark.parametrize("seed", range(20))
def test_random_graphs_stay_within_the_budget(seed: int) -> None:
    graph, rows = random_graph(seed), random_rows(random_graph(seed), seed)
    result = approximated(graph, rows)
    assert result.within_budget
    assert not any(isinstance(node, Activation) for node in result.graph.nodes)
    errors = row_errors(graph, result.graph, rows)
    assert result.score.error == pytest.approx(errors.max())
    assert errors.max() <= 0.12
    assert result.score.rms == pytest.approx(rms(errors))
    assert rms(errors) <= 0.01
    assert close_calls_at_most(graph, result.graph, rows, 0.02)


@pytest.mark.parametrize("function", ["sigmoid", "tanh", "silu", "gelu", "softplus", "mish"])
def test_a_looser_budget_costs_fewer_levels(function: str) -> None:
    graph = perceptron(function)
    rows = random_rows(graph, 5, 300)
    ranges = calibrate(graph, rows)
    levels = []
    for accuracy in (1e-5, 1e-3, 0.05):
        result = approximate(graph, ranges, rows, accuracy=accuracy, keep_argmax=False)
        assert result.within_budget
        assert rms(row_errors(graph, result.graph, rows)) <= accuracy
        levels.append(sum(report.levels for report in result.activations))
    assert levels[0] > levels[1] > levels[2]


@pytest.mark.parametrize("function", ["sigmoid", "relu"])
def test_no_activation_can_take_a_lower_degree_within_the_budget(function: str) -> None:
    """The greedy result is a local optimum: every single step down breaks the budget."""
    graph = perceptron(function)
    rows = random_rows(graph, 5, 300)
    ranges = calibrate(graph, rows)
    result = approximate(graph, ranges, rows, accuracy=0.01)
    assert result.within_budget
    for index in (1, 3):
        node = result.graph.nodes[index]
        assert isinstance(node, Polynomial)
        lower = [d for d in USEFUL_DEGREES if d < node.coefficients.size - 2][-1]
        worse = approximate_function(
            real_function(function, ()),
            node.center,
            node.half_width,
            lower,
            ranges.histograms[node.input],
        )
        nodes = list(result.graph.nodes)
        nodes[index] = replace(node, coefficients=worse.coefficients)
        lowered = evaluate(replace(result.graph, nodes=tuple(nodes)), rows)
        assert not Budget(0.01).allows(score_answers(evaluate(graph, rows), lowered))


@pytest.mark.parametrize("function", ["relu", "sigmoid", "tanh", "gelu"])
@pytest.mark.parametrize("seed", range(3))
def test_rows_never_seen_keep_their_class_and_the_budget(function: str, seed: int) -> None:
    graph = perceptron(function, seed)
    rows = random_rows(graph, seed, 1500)
    result = approximated(graph, rows)
    assert result.within_budget
    unseen = random_rows(graph, seed + 100, 3000)
    errors = row_errors(graph, result.graph, unseen)
    assert rms(errors) <= 1.25 * 0.01
    assert errors.max() <= 1.5 * 0.12
    expected, got = evaluate(graph, unseen)["y"], evaluate(result.graph, unseen)["y"]
    changed = expected.argmax(axis=1) != got.argmax(axis=1)
    assert close_calls_at_most(graph, result.graph, unseen, 0.04)
    best_two = np.sort(expected, axis=1)[:, -2:]
    sure = best_two[:, 1] - best_two[:, 0] > 2.0 * errors.max() * np.ptp(expected)
    assert sure.any()
    assert not (changed & sure).any()


def test_keeping_the_argmax_can_ask_for_more_than_the_error_does() -> None:
    graph = perceptron("relu")
    rows = random_rows(graph, 7, 2000)
    ranges = calibrate(graph, rows)
    score = approximate(graph, ranges, rows, accuracy=0.05, keep_argmax=False).score
    loose, strict = Budget(0.05, keep_argmax=False), Budget(0.05)
    assert loose.allows(score)
    flipped = replace(score, changed_margin=0.11)
    assert loose.allows(flipped)
    assert not strict.allows(flipped)


def test_a_polynomial_activation_is_converted_exactly() -> None:
    coefficients = (0.3, -1.0, 0.5, 0.0, 0.25)
    node = Activation("y", "x", "polynomial", coefficients, "poly")
    graph = Graph("poly", ("x",), ("y",), {"x": (3,), "y": (3,)}, (node,))
    rows = random_rows(graph, 0)
    result = approximated(graph, rows, accuracy=0.5)
    replaced = result.graph.nodes[0]
    assert isinstance(replaced, Polynomial)
    assert replaced.coefficients.size == 5
    assert row_errors(graph, result.graph, rows).max() < 1e-14
    assert result.activations[0].max_error == 0.0


def test_an_activation_used_on_a_straight_piece_becomes_an_affine_map() -> None:
    graph = perceptron("relu", layers=1)
    rows = random_rows(graph, 0)
    lifted = Affine(
        "h0", ("x",), graph.nodes[0].matrices if isinstance(graph.nodes[0], Affine) else (),
        np.full(16, 1000.0), "h",
    )  # fmt: skip
    graph = Graph("up", ("x",), ("y",), graph.shapes, (lifted, *graph.nodes[1:]))
    result = approximated(graph, rows)
    assert isinstance(result.graph.nodes[1], Affine)
    assert result.activations[0].degree == 1
    assert row_errors(graph, result.graph, rows).max() < 1e-9


def test_kinks_get_the_degree_that_the_budget_needs() -> None:
    graph = perceptron("relu", layers=1)
    rows = random_rows(graph, 2, 400)
    ranges = calibrate(graph, rows)

    def one_polynomial(accuracy: float, max_degree: int) -> Approximated:
        return approximate(
            graph, ranges, rows, accuracy=accuracy, keep_argmax=False, max_degree=max_degree,
            max_sign_levels=0, price=lambda _: 1.0,
        )  # fmt: skip

    coarse = one_polynomial(1e-9, 63)
    assert coarse.activations[0].degree in (62, 63)
    target = 0.8 * coarse.score.rms
    tight = one_polynomial(target, 127)
    assert tight.within_budget
    assert tight.activations[0].degree > 63


def test_a_budget_out_of_reach_is_reported_and_not_hidden() -> None:
    graph = perceptron("relu")
    rows = random_rows(graph, 2, 200)
    result = approximated(graph, rows, accuracy=1e-7, max_degree=15, max_sign_levels=0)
    assert not result.within_budget
    errors = row_errors(graph, result.graph, rows)
    assert result.score.error == pytest.approx(errors.max())
    assert result.score.rms == pytest.approx(rms(errors))
    assert max(report.degree for report in result.activations) <= 15


def test_out_of_reach_a_ring_twice_as_dear_is_not_paid_for_a_little_less_error() -> None:
    """ReLU's error halves with each level; the budget is far below what degree 127 gives."""
    graph = perceptron("relu", layers=1)
    rows = random_rows(graph, 2, 400)
    ranges = calibrate(graph, rows)

    def degree(dear: float) -> int:
        def price(depth: int) -> float:
            return 1.0 + 0.01 * depth if depth <= 7 else dear

        return approximate(
            graph, ranges, rows, accuracy=1e-6, keep_argmax=False, max_sign_levels=0,
            price=price,
        ).activations[0].degree  # fmt: skip

    assert degree(1.3) in (126, 127)
    assert degree(100.0) in (30, 31)
    assert degree(np.inf) in (30, 31)


def test_levels_that_no_ring_has_are_never_asked_for() -> None:
    graph = perceptron("relu", layers=3)
    rows = random_rows(graph, 4, 300)

    def price(depth: int) -> float:
        return float(depth) if depth <= 14 else np.inf

    result = approximate(graph, calibrate(graph, rows), rows, accuracy=1e-4, price=price)
    assert not result.within_budget
    assert sum(report.levels for report in result.activations) + 4 <= 14


def test_all_rows_count_even_if_few_are_searched() -> None:
    graph = perceptron("tanh")
    rows = random_rows(graph, 11, 2000)
    result = approximate(graph, calibrate(graph, rows), rows, search_rows=20)
    assert result.within_budget
    assert rms(row_errors(graph, result.graph, rows)) <= 0.01


@pytest.mark.parametrize("seed", range(20))
def test_without_data_no_input_in_range_leaves_any_domain(seed: int) -> None:
    graph = random_graph(seed)
    result = approximate(graph, calibrate(graph))
    domains = {n.input: n for n in result.graph.nodes if isinstance(n, Polynomial)}

    def observe(name: str, values: Floats) -> None:
        if name in domains:
            node = domains[name]
            assert np.abs(values - node.center).max() <= node.half_width * (1.0 + 1e-9)

    inside = random_rows(graph, seed, 300)
    evaluate(result.graph, inside, observe)
    evaluate(result.graph, {name: np.sign(v) for name, v in inside.items()}, observe)


def test_the_report_measures_each_polynomial() -> None:
    graph = perceptron("gelu")
    rows = random_rows(graph, 1, 500)
    ranges = calibrate(graph, rows)
    result = approximate(graph, ranges, rows)
    assert [report.origin for report in result.activations] == ["act0", "act1"]
    first = result.activations[0]
    node = result.graph.nodes[1]
    assert isinstance(node, Polynomial)
    assert first.low == node.center - node.half_width <= ranges.statistics["h0"].low
    assert first.high == node.center + node.half_width >= ranges.statistics["h0"].high
    assert first.clipped == 0.0
    assert 0.0 < first.mean_error < first.max_error


def test_values_outside_a_domain_are_counted() -> None:
    graph = perceptron("sigmoid", layers=1)
    narrow = {name: 0.5 * values for name, values in random_rows(graph, 1, 500).items()}
    ranges = calibrate(graph, narrow, margin=1.0)
    wide = {name: 1.1 * values for name, values in narrow.items()}
    result = approximate(graph, ranges, wide, accuracy=1e-3)
    node = result.graph.nodes[1]
    assert isinstance(node, Polynomial)
    inner: dict[str, Floats] = {}
    evaluate(graph, wide, lambda name, values: inner.update({name: values}))
    outside = np.abs(inner["h0"] - node.center) > node.half_width
    assert 0.0 < outside.mean() < 1.0
    assert result.activations[0].clipped == pytest.approx(outside.mean())


def test_the_domain_of_a_product_is_what_its_factors_span() -> None:
    product = Product("p", "x", "w", "p")
    graph = Graph(
        "gate", ("x", "w"), ("y",), dict.fromkeys(("x", "w", "p", "y"), (8,)),
        (product, Activation("y", "p", "sigmoid", (), "y")),
    )  # fmt: skip
    rows = random_rows(graph, 0, 300)
    ranges = calibrate(graph, rows)
    node = approximate(graph, ranges, rows, accuracy=1e-4).graph.nodes[1]
    assert isinstance(node, Polynomial)
    assert node.center == 0.0
    expected = ranges.tensors["x"].magnitude * ranges.tensors["w"].magnitude
    assert node.half_width == pytest.approx(expected)


def test_a_function_that_overflows_on_its_range_is_refused() -> None:
    node = Activation("y", "x", "exp", (), "y")
    graph = Graph("exp", ("x",), ("y",), {"x": (1,), "y": (1,)}, (node,))
    rows = {"x": np.array([[-500.0], [700.0]])}
    with pytest.raises(ModelError, match="not finite on its range"):
        approximated(graph, rows)


def levels(nodes: tuple[Node, ...]) -> float:
    """Price nodes by their coefficients."""
    return 1.0 + sum(n.coefficients.size for n in nodes if isinstance(n, Polynomial))


def test_the_search_lowers_first_what_hurts_least() -> None:
    """Two parallel nodes: the one with a tiny weight goes down to the last rung, not the other."""
    matrix = csr_array(eye_array(1, format="csr"))
    nodes = (
        Activation("a", "x", "tanh", (), "a"),
        Activation("b", "x", "tanh", (), "b"),
        Affine("y", ("a", "b"), (matrix, 1e-4 * matrix), np.zeros(1), "y"),
    )
    graph = Graph("two", ("x",), ("y",), dict.fromkeys(("x", "a", "b", "y"), (1,)), nodes)
    x = np.linspace(-3.0, 3.0, 101, dtype=np.float64)[:, None]

    def fit(index: int, degree: int) -> tuple[Node, ...]:
        function = np.polynomial.Chebyshev.interpolate(np.tanh, degree, domain=[-3, 3])
        name, coefficients = nodes[index].output, np.asarray(function.coef, dtype=np.float64)
        return (Polynomial(name, "x", coefficients, 0.0, 3.0, name),)

    ladder = {0: (1, 3, 7, 15, 31), 1: (1, 3, 7, 15, 31)}
    rows = {"x": x}
    degrees = search_degrees(
        graph, ladder, fit, rows, evaluate(graph, rows), Budget(1e-3 / np.sqrt(2)), levels
    )
    assert degrees[1] == 1
    assert degrees[0] == 15


def test_two_cheap_steps_are_preferred_to_one_dear_one() -> None:
    """Lowering node i shifts it by its damage; the budget has room for b and c, or for a alone."""
    damage = (0.09, 0.045, 0.045)
    matrix = csr_array(eye_array(1, format="csr"))

    def copy(index: int, shift: float) -> Affine:
        return Affine("abc"[index], ("x",), (matrix,), np.array([shift]), "copy")

    nodes = (
        *(copy(index, 0.0) for index in range(3)),
        Affine("y", ("a", "b", "c"), (matrix,) * 3, np.zeros(1), "y"),
    )
    graph = Graph("sum", ("x",), ("y",), dict.fromkeys("xabcy", (1,)), nodes)
    rows = {"x": np.array([[0.0], [1.0 / 3.0]])}
    degrees = search_degrees(
        graph,
        dict.fromkeys(range(3), (1, 3)),
        lambda index, degree: (copy(index, 0.0 if degree == 3 else damage[index]),),
        rows,
        evaluate(graph, rows),
        Budget(0.1),
        levels,
    )
    assert degrees == {0: 3, 1: 1, 2: 1}
