"""Composition of maps of images: by their cost in the orders that suit them."""

from __future__ import annotations

import numpy as np
import pytest

from tacit.clear_operations import Array
from tacit.model_compiler.graph import Affine, Graph, evaluate
from tacit.model_compiler.passes import compose as module
from tacit.model_compiler.passes.compose import compose, default_costs, diagonal_cost
from tests.model_compiler.image_graphs import random_network, scaled
from tests.model_compiler.scaled_graphs import drawn_rows

GENERATOR = np.random.default_rng(0)
KERNEL: dict[str, Array] = {"K": GENERATOR.normal(size=(4, 4, 3, 3))}
HEAD: dict[str, Array] = {"W": GENERATOR.normal(size=(64, 3))}
STATISTICS: dict[str, Array] = {
    "S": GENERATOR.uniform(0.5, 2.0, 4),
    "B": GENERATOR.normal(size=4),
    "M": GENERATOR.normal(size=4),
    "V": GENERATOR.uniform(0.5, 2.0, 4),
}


def _maps(graph: Graph) -> list[str]:
    return [node.origin for node in graph.nodes if isinstance(node, Affine)]


def _assert_same(before: Graph, after: Graph) -> None:
    rows = drawn_rows(before, 5)
    expected, got = evaluate(before, rows), evaluate(after, rows)
    for name, values in expected.items():
        assert np.abs(got[name] - values).max() < 1e-9


def test_normalisation_and_residual_additions_vanish_in_convolutions() -> None:
    text = """
        P = Mul(X, X)
        C = Conv<pads=[1, 1, 1, 1]>(P, K)
        N = BatchNormalization(C, S, B, M, V)
        R = Add(N, P)
        Y = Mul(R, R)
    """
    graph = scaled(text, (4, 8, 8), {**KERNEL, **STATISTICS})
    composed = compose(graph)
    (only,) = [node for node in composed.nodes if isinstance(node, Affine)]
    assert only.inputs == ("P",)
    _assert_same(graph, composed)


def test_pooling_vanishes_in_the_dense_layer_behind_it() -> None:
    text = """
        P = Mul(X, X)
        Q = AveragePool<kernel_shape=[2, 2], strides=[2, 2]>(P)
        F = Flatten(Q)
        Y = MatMul(F, W)
    """
    graph = scaled(text, (4, 8, 8), HEAD)
    composed = compose(graph)
    assert len(_maps(composed)) == 1
    _assert_same(graph, composed)


def test_a_composed_map_is_left_out_if_it_would_be_too_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "A = Conv<pads=[1, 1, 1, 1]>(X, K)\nY = Conv<pads=[1, 1, 1, 1]>(A, K)"
    graph = scaled(text, (4, 8, 8), KERNEL)
    assert len(_maps(compose(graph, level_value=1e9))) == 1
    monkeypatch.setattr(module, "_MOST_ENTRIES", 1000)
    assert len(_maps(compose(graph, level_value=1e9))) == 2


def test_images_are_not_priced_by_their_diagonals_in_c_order() -> None:
    text = "P = Mul(X, X)\nY = AveragePool<kernel_shape=[2, 2], strides=[2, 2]>(P)"
    graph = scaled(text, (4, 16, 16), {})
    (pool,) = [node for node in graph.nodes if isinstance(node, Affine)]
    assert diagonal_cost(pool) > 250
    assert default_costs(graph)(pool) < 220  # in units of diagonals, 20 for a rotation


@pytest.mark.parametrize("seed", range(8))
def test_composing_changes_no_value(seed: int) -> None:
    graph = random_network(seed)
    _assert_same(graph, compose(graph))
