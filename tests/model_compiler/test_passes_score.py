"""Scores of answers and what a budget grants, on numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tacit.model_compiler.onnx_import import import_onnx
from tacit.model_compiler.passes.score import Budget, answers, score_answers
from tests.model_compiler.onnx_models import build


def test_scores_see_infinities_and_constant_outputs() -> None:
    exact = {"y": np.array([[1.0, 2.0], [2.0, 1.0]])}
    assert score_answers(exact, {"y": exact["y"][:, ::-1]}).agreement == 0.0
    assert score_answers(exact, {"y": np.full((2, 2), np.nan)}).rms == np.inf
    constant = {"y": np.full((3, 1), 4.0)}
    assert score_answers(constant, {"y": np.full((3, 1), 5.0)}).error == pytest.approx(0.25)


def test_a_score_is_made_of_the_greatest_error_of_each_row() -> None:
    exact = {"y": np.array([[0.0, 10.0], [4.0, 0.0], [0.0, 1.0], [0.0, 0.0]])}
    got = {"y": np.array([[1.0, 10.0], [4.0, -2.0], [0.5, 0.4], [0.0, 0.0]])}
    score = score_answers(exact, got)
    assert score.error == pytest.approx(0.2)
    assert score.rms == pytest.approx(np.sqrt((0.01 + 0.04 + 0.0036) / 4))
    assert score.agreement == 0.75
    assert score.changed_margin == pytest.approx(0.1)


def test_a_few_rows_may_change_class_by_any_margin_and_close_calls_always() -> None:
    exact = np.tile([[1.0, 0.0]], (1000, 1))
    exact[500:, 0] = 0.02
    got = exact.copy()
    got[:5] = got[:5, ::-1]
    got[900:] = got[900:, ::-1]
    assert score_answers({"y": exact}, {"y": got}).changed_margin == pytest.approx(0.02)
    got[5] = got[5, ::-1]
    assert score_answers({"y": exact}, {"y": got}).changed_margin == pytest.approx(1.0)


def test_a_budget_grants_the_worst_row_more_than_the_mean() -> None:
    exact, budget = {"y": np.zeros((100, 1))}, Budget(0.01)
    exact["y"][0] = 1.0

    def allowed(error: float, rows: int) -> bool:
        got = exact["y"].copy()
        got[:rows] += error
        return budget.allows(score_answers(exact, {"y": got}))

    assert allowed(0.0099, 100)
    assert not allowed(0.0101, 100)
    assert allowed(0.099, 1)
    assert not allowed(0.121, 1)


def test_answers_are_what_the_customer_reads() -> None:
    """Two logits 40 apart and off by 4 are one and the same probability."""
    text = "Z = MatMul(X, W)\nY = Softmax(Z)"
    model = build(text, {"X": (2,)}, {"W": np.eye(2)})
    graph = import_onnx(model, name="softmax")
    assert graph.epilogue
    (core,) = graph.outputs
    logits = np.array([[20.0, -20.0], [1.0, 0.0]])
    got = answers(graph, {core: logits})["Y"]
    np.testing.assert_allclose(got.sum(axis=1), 1.0)
    assert got[1, 0] == pytest.approx(1.0 / (1.0 + np.exp(-1.0)))
    moved = answers(graph, {core: logits + np.array([[-4.0, 4.0], [0.0, 0.0]])})["Y"]
    assert np.abs(moved - got).max() < 1e-12
