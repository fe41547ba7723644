"""Circuits of both plans on the clear backend against the scaled graph."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_array, eye_array

from tacit.circuit import LinearPlan, Op
from tacit.errors import CircuitError
from tacit.model_compiler.graph import Activation, Affine, Graph, Polynomial, evaluate
from tacit.model_compiler.levels import check_levels
from tacit.model_compiler.lowering.batch import lower_batch
from tacit.model_compiler.lowering.latency import lower_latency, smallest_cells
from tacit.model_compiler.lowering.lowered import Lowered
from tacit.model_compiler.lowering.text import circuit_text
from tests.model_compiler.scaled_graphs import (
    contraction,
    dense,
    drawn_rows,
    graph_of,
    random_scaled_graph,
    residual,
    run_clear,
    square_mlp,
)

Floats = NDArray[np.float64]
TOLERANCE = 1e-9
SLOTS = 256


def _assert_equals_graph(graph: Graph, lowered: Lowered, rows: int) -> Floats:
    check_levels(lowered.circuit)
    drawn = drawn_rows(graph, rows)
    got, slots = run_clear(lowered, drawn)
    for name, expected in evaluate(graph, drawn).items():
        assert np.abs(got[name] - expected).max() < TOLERANCE, name
    return slots


@pytest.mark.parametrize("cells", [16, 64, 256])
@pytest.mark.parametrize("seed", range(24))
def test_latency_circuits_equal_the_graph(seed: int, cells: int) -> None:
    graph = random_scaled_graph(seed)
    lowered = lower_latency(graph, SLOTS, cells)
    assert lowered.batch == SLOTS // cells
    _assert_equals_graph(graph, lowered, lowered.batch)


@pytest.mark.parametrize("seed", range(24))
def test_batch_circuits_equal_the_graph(seed: int) -> None:
    graph = random_scaled_graph(seed)
    lowered = lower_batch(graph, SLOTS)
    assert not lowered.circuit.rotations
    _assert_equals_graph(graph, lowered, 100)


@pytest.mark.parametrize("seed", range(6))
def test_a_batch_that_is_not_full_changes_nothing(seed: int) -> None:
    graph = random_scaled_graph(seed)
    lowered = lower_latency(graph, SLOTS, 64)
    _assert_equals_graph(graph, lowered, 3)


@pytest.mark.parametrize("sizes", [(100, 30, 7), (30, 100, 1), (256, 256, 256), (1, 300, 5)])
@pytest.mark.parametrize("cells", [16, 64])
def test_tensors_larger_than_a_ciphertext_are_cut(sizes: tuple[int, int, int], cells: int) -> None:
    graph = square_mlp(0, sizes)
    lowered = lower_latency(graph, SLOTS, cells)
    assert lowered.inputs["x"].ciphertexts == -(-sizes[0] // cells)
    _assert_equals_graph(graph, lowered, lowered.batch)


def test_blocks_of_a_linear_map_share_baby_steps() -> None:
    graph = dense(square_mlp(0, (64, 64, 64)))
    lowered = lower_latency(graph, 16, 16)
    plan = lowered.circuit.nodes[0].attribute
    assert isinstance(plan, LinearPlan)
    assert plan.outputs == 4
    assert len({t.baby for t in plan.terms}) * 4 == len({(t.input, t.baby) for t in plan.terms})
    _assert_equals_graph(graph, lowered, 1)


def test_a_residual_sum_is_an_addition_without_a_level() -> None:
    generator = np.random.default_rng(0)
    nodes = [
        contraction(generator, "a", {"x": 12}, 12),
        residual("r", "a", "x", 12, (1.0, -1.0)),
    ]
    graph = graph_of([*nodes], {"x": 12, "a": 12, "r": 12}, ("x",), ("r",))
    lowered = lower_latency(graph, SLOTS, 16)
    assert [n.op for n in lowered.circuit.nodes] == [Op.LINEAR, Op.DROP, Op.SUBTRACT]
    assert lowered.levels == {"x": 1}
    _assert_equals_graph(graph, lowered, 4)


def test_scalar_multiples_are_added_with_one_rescaling() -> None:
    node = residual("r", "x", "w", 5, (0.25, -0.5))
    graph = graph_of([node], {"x": 5, "w": 5, "r": 5}, ("x", "w"), ("r",))
    lowered = lower_latency(graph, SLOTS, 8)
    operations = [n.op for n in lowered.circuit.nodes]
    assert operations == [Op.MULTIPLY_PLAIN, Op.MULTIPLY_PLAIN, Op.ADD, Op.RESCALE]
    _assert_equals_graph(graph, lowered, 32)


def test_a_negated_tensor_takes_no_level() -> None:
    node = Affine("y", ("x",), (csr_array(-eye_array(5, format="csr")),), np.full(5, 0.5), "y")
    graph = graph_of([node], {"x": 5, "y": 5}, ("x",), ("y",))
    lowered = lower_latency(graph, SLOTS, 8)
    assert [n.op for n in lowered.circuit.nodes] == [Op.NEGATE, Op.ADD_PLAIN]
    _assert_equals_graph(graph, lowered, 32)


def test_concatenation_is_free_in_the_batch_plan() -> None:
    left = csr_array(np.vstack([np.eye(3), np.zeros((2, 3))]))
    right = csr_array(np.vstack([np.zeros((3, 2)), np.eye(2)]))
    node = Affine("y", ("x", "w"), (left, right), np.zeros(5), "Concat")
    graph = graph_of([node], {"x": 3, "w": 2, "y": 5}, ("x", "w"), ("y",))
    batch = lower_batch(graph, SLOTS)
    assert batch.circuit.nodes == ()
    _assert_equals_graph(graph, batch, 10)
    _assert_equals_graph(graph, lower_latency(graph, SLOTS, 8), 10)


@pytest.mark.parametrize("degree", [0, 1, 2, 3, 7, 13])
def test_polynomials_take_the_levels_of_their_degree(degree: int) -> None:
    coefficients = np.zeros(degree + 1)
    coefficients[0], coefficients[-1] = 0.25, 0.5
    node = Polynomial("y", "x", coefficients, 0.0, 1.0, "y")
    graph = graph_of([node], {"x": 9, "y": 9}, ("x",), ("y",))
    for lowered in (lower_latency(graph, SLOTS, 16), lower_batch(graph, SLOTS)):
        assert lowered.levels["x"] == max(1, degree.bit_length())
        _assert_equals_graph(graph, lowered, lowered.batch)


def test_a_map_that_reads_nothing_gives_its_bias() -> None:
    node = Affine("y", ("x",), (csr_array((3, 4)),), np.array([0.1, 0.2, 0.3]), "constant")
    graph = graph_of([node], {"x": 4, "y": 3}, ("x",), ("y",))
    for lowered in (lower_latency(graph, SLOTS, 4), lower_batch(graph, SLOTS)):
        _assert_equals_graph(graph, lowered, lowered.batch)


@pytest.mark.parametrize("seed", range(8))
def test_every_output_slot_holds_an_output_or_zero(seed: int) -> None:
    """Nothing of the model beyond its outputs reaches the client, not even partial sums."""
    graph = square_mlp(seed, (30, 20, 10))
    lowered = lower_latency(graph, SLOTS, 64)
    slots = _assert_equals_graph(graph, lowered, lowered.batch)
    expected = evaluate(graph, drawn_rows(graph, lowered.batch))["y"]
    cells = slots.reshape(64, lowered.batch)
    for cell, values in enumerate(cells):
        element = cell % 16
        legitimate = expected[:, element] if element < 10 else 0.0
        assert np.abs(values - legitimate).max() < TOLERANCE


def test_the_client_turns_the_copies_of_an_input_of_a_linear_map() -> None:
    graph = dense(square_mlp(0, (100, 16, 4)))
    plain = lower_latency(graph, SLOTS, 128).circuit.nodes[0].attribute
    turned = lower_latency(graph, SLOTS, 256).circuit.nodes[0].attribute
    assert isinstance(plain, LinearPlan)
    assert isinstance(turned, LinearPlan)
    assert (len(plain.terms), len(turned.terms)) == (16, 8)


def test_an_input_of_elementwise_operations_is_not_turned() -> None:
    generator = np.random.default_rng(3)
    nodes = [
        contraction(generator, "a", {"x": 6}, 6),
        residual("r", "a", "x", 6, (1.0, 1.0)),
    ]
    graph = graph_of([*nodes], {"x": 6, "a": 6, "r": 6}, ("x",), ("r",))
    _assert_equals_graph(graph, lower_latency(graph, SLOTS, 64), 4)


def test_levels_are_dropped_only_where_branches_meet() -> None:
    generator = np.random.default_rng(1)
    nodes = [
        contraction(generator, "a", {"x": 8}, 8),
        contraction(generator, "b", {"a": 8}, 8),
        residual("r", "b", "x", 8, (1.0, 1.0)),
    ]
    graph = graph_of([*nodes], {"x": 8, "a": 8, "b": 8, "r": 8}, ("x",), ("r",))
    circuit = lower_latency(graph, SLOTS, 8).circuit
    assert [n.op for n in circuit.nodes].count(Op.DROP) == 1
    assert all(
        circuit.types[v].level == 0 and circuit.types[v].degree == 1 for v in circuit.outputs
    )


def test_activations_must_be_replaced_first() -> None:
    node = Activation("y", "x", "relu", (), "Relu")
    graph = Graph("g", ("x",), ("y",), {"x": (4,), "y": (4,)}, (node,))
    with pytest.raises(CircuitError, match="Activation"):
        lower_latency(graph, SLOTS, 4)
    with pytest.raises(CircuitError, match="Activation"):
        lower_batch(graph, SLOTS)


def test_polynomials_on_other_domains_are_refused() -> None:
    node = Polynomial("y", "x", np.array([0.0, 0.5, 0.5]), 0.0, 2.0, "p")
    graph = graph_of([node], {"x": 4, "y": 4}, ("x",), ("y",))
    with pytest.raises(CircuitError, match="scale the graph"):
        lower_latency(graph, SLOTS, 4)


def test_the_text_of_a_small_perceptron_is_known() -> None:
    graph = dense(square_mlp(0, (30, 16, 3)))
    assert smallest_cells(graph) == 32
    assert circuit_text(lower_latency(graph, 128, 64).circuit) == "\n".join(
        [
            "slots 128",
            "input %0:3",
            "%1:2 = linear(%0) h/diagonals: 8 diagonals, 3 baby and 1 giant rotations, folds 64,32"
            "  # h",
            "%2:2² = multiply(%1, %1)  # square",
            "%3:1 = rescale(%2)  # square",
            "%4:0 = linear(%3) y/diagonals: 4 diagonals, 1 baby and 1 giant rotations, folds 16,8"
            "  # y",
            "return %4",
        ]
    )


def test_the_text_of_a_batch_circuit_is_known() -> None:
    graph = dense(square_mlp(0, (2, 2, 1)))
    assert circuit_text(lower_batch(graph, 4).circuit) == "\n".join(
        [
            "slots 4",
            "input %0:3",
            "input %1:3",
            "%2:2, %3:2 = weighted_sum(%0, %1) h/weights: 2 sums  # h",
            "%4:2² = multiply(%2, %2)  # square",
            "%5:1 = rescale(%4)  # square",
            "%6:2² = multiply(%3, %3)  # square",
            "%7:1 = rescale(%6)  # square",
            "%8:0 = weighted_sum(%5, %7) y/weights: 1 sums  # y",
            "return %8",
        ]
    )
