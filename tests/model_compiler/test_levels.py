"""The level checker and the circuit builder."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from tacit.circuit import (
    LinearPlan,
    LinearTerm,
    Op,
    ValueType,
    WeightedSumPlan,
)
from tacit.decompose import weighted_sum_by_scalars
from tacit.errors import CircuitError, LevelError
from tacit.model_compiler.builder import CircuitBuilder
from tacit.model_compiler.levels import LevelChecker, check_levels
from tacit.model_compiler.lowering.latency import lower_latency
from tests.model_compiler.scaled_graphs import square_mlp


def test_running_out_of_levels_names_the_layer() -> None:
    builder = CircuitBuilder(8)
    value = builder.rescale(builder.multiply_plain(builder.input(1), np.asarray(2.0)))
    with pytest.raises(LevelError, match=r"dense 3 \(multiply_plain\)"):
        builder.multiply_plain(value, np.asarray(2.0), "dense 3")


def test_adding_different_levels_names_the_layer() -> None:
    builder = CircuitBuilder(8)
    with pytest.raises(LevelError, match=r"skip \(add\)"):
        builder.add(builder.input(2), builder.input(1), "skip")


def test_adding_different_degrees_is_a_circuit_error() -> None:
    builder = CircuitBuilder(8)
    value = builder.input(1)
    with pytest.raises(CircuitError, match="degree"):
        builder.add(value, builder.multiply(value, value))


def test_a_linear_map_takes_one_level_and_gives_degree_one() -> None:
    plan = LinearPlan(1, (LinearTerm(0, 0, 2, 1, 0),), "d", "b", (4,))
    constants = {"d": np.ones((1, 8)), "b": np.ones((1, 8))}
    assert LevelChecker().linear([ValueType(3)], plan, constants) == [ValueType(2)]


@pytest.mark.parametrize("level", [1, 4])
def test_a_weighted_sum_has_the_type_its_decomposition_gives(level: int) -> None:
    plan = WeightedSumPlan(3, "w", "b")
    weights: NDArray[np.float64] = np.arange(6, dtype=np.float64).reshape(3, 2)
    constants = {"w": weights, "b": np.ones(3)}
    inputs = [ValueType(level)] * 2
    checker = LevelChecker()
    expected = weighted_sum_by_scalars(checker, inputs, plan, constants)
    assert checker.weighted_sum(inputs, plan, constants) == expected


def test_a_weighted_sum_with_weights_of_another_shape_is_refused() -> None:
    plan = WeightedSumPlan(3, "w", "")
    with pytest.raises(CircuitError, match="shape"):
        LevelChecker().weighted_sum([ValueType(1)], plan, {"w": np.ones((3, 2))})


def test_a_wrong_declared_type_is_found() -> None:
    circuit = lower_latency(square_mlp(0, (6, 4, 2)), 16, 8).circuit
    check_levels(circuit)
    types = list(circuit.types)
    types[circuit.nodes[0].outputs[0]] = ValueType(7)
    with pytest.raises(CircuitError, match=r"node 0 \(linear, h\) declares"):
        check_levels(replace(circuit, types=tuple(types)))


def test_equal_operations_and_equal_constants_are_kept_once() -> None:
    builder = CircuitBuilder(8)
    value = builder.input(2)
    first = builder.multiply_plain(value, np.asarray(2.0), "one")
    second = builder.multiply_plain(value, np.asarray(2.0), "two")
    assert first == second
    assert builder.constant(np.ones(4), "a") == builder.constant(np.ones(4), "b")
    assert builder.constant(np.ones(4), "a") != builder.constant(np.ones((2, 2)), "a")


def test_what_no_output_needs_is_left_out() -> None:
    builder = CircuitBuilder(8)
    kept, ignored = builder.input(2), builder.input(1)
    builder.multiply_plain(ignored, np.asarray(3.0), "unused")
    used = builder.rescale(builder.multiply_plain(kept, np.asarray(2.0), "used"), "used")
    circuit = builder.build([used])
    assert [node.op for node in circuit.nodes] == [Op.MULTIPLY_PLAIN, Op.RESCALE]
    assert list(circuit.constants) == ["used/factor"]
    assert len(circuit.inputs) == 2
