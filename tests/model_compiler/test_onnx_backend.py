"""ONNX's backend interface on simulated circuits, and the page that lists the operators."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
from onnx import NodeProto, helper
from onnx.reference import ReferenceEvaluator

import tacit.onnx_backend as backend
from tacit.clear_operations import Array
from tacit.errors import ModelError, UnsupportedModelError
from tests.model_compiler.official_node_tests import Outcome, Result, node_tests, run
from tests.model_compiler.onnx_models import build
from tools.operators import PAGE, is_current, page

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(2, 3, 5, 5)).astype(np.float32)
K = GENERATOR.normal(size=(4, 3, 3, 3)).astype(np.float32)

NODES = [
    (helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1]), [X, K]),
    (helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2]), [X]),
    (helper.make_node("Transpose", ["x"], ["y"], perm=[0, 2, 1, 3]), [X]),
    (helper.make_node("Add", ["x", "z"], ["y"]), [X, 2 * X]),
    (helper.make_node("Mul", ["x", "z"], ["y"]), [X, X]),
]


@pytest.mark.parametrize(("node", "inputs"), NODES, ids=[n.op_type for n, _ in NODES])
def test_one_node_gives_what_the_reference_gives(node: NodeProto, inputs: list[Array]) -> None:
    feeds = dict(zip(node.input, inputs, strict=True))
    (expected,) = ReferenceEvaluator(node).run(None, feeds)
    (got,) = backend.run_node(node, inputs)
    np.testing.assert_allclose(got, np.asarray(expected), rtol=1e-4, atol=1e-5)


def test_a_model_is_prepared_once_and_run_on_lists_or_by_name() -> None:
    model = build(
        "H = Gemm(X, W)\nY = Mul(H, H)", {"X": (4,)}, {"W": GENERATOR.normal(size=(4, 3))}
    )
    (tensor,) = model.graph.initializer
    rows = GENERATOR.normal(size=(3, 4)).astype(np.float32)
    representation = backend.prepare(model)
    for inputs in ([rows], {"X": rows}, rows):
        (got,) = representation.run(inputs)
        assert got.shape == (3, 3)
    assert representation.encrypted == ("X",)
    assert tensor.name == "W"
    assert backend.supports_device("CPU")
    assert not backend.supports_device("CUDA")


def test_what_cannot_be_encrypted_is_refused() -> None:
    node = helper.make_node("ReduceSum", ["x"], ["y"])
    with pytest.raises(UnsupportedModelError, match="mix rows"):
        backend.run_node(node, [X])
    with pytest.raises(UnsupportedModelError, match="no input"):
        backend.run_node(helper.make_node("Not", ["x"], ["y"]), [np.array([True, False])])


def test_a_value_at_a_jump_is_refused_rather_than_answered_wrong() -> None:
    node = helper.make_node("ThresholdedRelu", ["x"], ["y"], alpha=2.0)
    with pytest.raises(ModelError, match="accuracy asked for"):
        backend.run_node(node, [np.array([[-1.5], [0.0], [1.2], [2.0], [2.2]], dtype=np.float32)])


def test_an_output_that_never_moved_is_answered() -> None:
    x = np.array([[[[1.0, 2.0], [3.0, 4.0]]]], dtype=np.float32)
    node = helper.make_node("Slice", ["x", "starts", "ends", "axes"], ["y"])
    feeds = [x, np.array([0, 0]), np.array([1, 1]), np.array([2, 3])]
    (got,) = backend.run_node(node, feeds)
    np.testing.assert_allclose(got, [[[[1.0]]]], rtol=1e-6)


def test_the_page_lists_the_operators_of_this_version() -> None:
    assert is_current(PAGE.read_text()), "run `make operators`"


def test_the_page_counts_every_result() -> None:
    results = [
        Result("a", "Conv", Outcome.PASSED),
        Result("b", "Conv", Outcome.PASSED),
        Result("c", "Conv", Outcome.REFUSED, "why"),
    ]
    text = page(results)
    assert "| Conv | server | 2 | 1 |  |" in text
    assert "2 pass, 1 are refused and 0 answer wrong" in text
    assert is_current(text)
    assert not is_current(text.replace("| Conv |", "| Cnov |"))


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get("TACIT_NODE_TESTS"),
    reason="takes many minutes: set TACIT_NODE_TESTS=1, after `make operators`",
)
def test_no_official_node_test_is_answered_wrongly(capsys: pytest.CaptureFixture[str]) -> None:
    results = [run(case) for case in node_tests()]
    passed = sum(result.outcome is Outcome.PASSED for result in results)
    with capsys.disabled():
        sys.stdout.write(f"\n{passed} of {len(results)} official node tests pass\n")
    wrong = {result.name for result in results if result.outcome is Outcome.WRONG}
    assert not wrong
    assert page(results) == PAGE.read_text(), "run `make operators`"
