"""The cost model of the native engine: what costs more than what, and the recorded accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from bench.record import RESULTS, read
from tacit.circuit import LinearPlan, LinearTerm
from tacit.errors import CircuitError, ParameterError
from tacit.model_compiler import op_times
from tacit.model_compiler.coarse_costs import linear_parts, rotation_parts, weighted_sum_parts
from tacit.model_compiler.cost import predict, rotation_costs
from tacit.model_compiler.lowering.depths import circuit_depth
from tacit.model_compiler.lowering.latency import lower_latency
from tacit.model_compiler.op_times import Backend, Table, fit, reference_times, ring_of
from tacit.model_compiler.op_work import Ring, Work
from tacit.params import CryptoParams, Security
from tests.model_compiler.scaled_graphs import dense, square_mlp, tiny_params

TIMES = reference_times(Backend.NATIVE)
HEAVY = ("rotate", "multiply", "rescale", "linear_8x8")


def params_of(log_n: int, depth: int, scale: int, first: int, dnum: int) -> CryptoParams:
    return CryptoParams.choose(log_n, depth, scale, first, dnum, Security.UNCHECKED_INSECURE)


def milliseconds(params: CryptoParams, level: int, operation: str) -> float:
    return TIMES.milliseconds(Ring.at_level(params, level), operation)


@pytest.mark.parametrize("operation", ["rotate", "multiply", "rescale", "baby", "giant", "add"])
def test_more_limbs_cost_more(operation: str) -> None:
    params = params_of(14, 8, 40, 50, 3)
    costs = [milliseconds(params, level, operation) for level in range(1, 9)]
    assert all(low < high for low, high in pairwise(costs))


@pytest.mark.parametrize("operation", ["rotate", "multiply", "rescale", "encode"])
def test_a_ring_of_twice_the_size_costs_about_twice_as_much(operation: str) -> None:
    costs = [milliseconds(params_of(n, 4, 40, 50, 2), 4, operation) for n in (13, 14, 15)]
    assert all(1.3 < high / low < 2.7 for low, high in pairwise(costs))


@pytest.mark.parametrize("operation", ["rotate", "multiply", "rescale"])
def test_wide_primes_cost_more_than_narrow_ones(operation: str) -> None:
    narrow, mixed, wide = (
        milliseconds(params_of(13, 3, *sizes, 4), 3, operation)
        for sizes in ((44, 50), (44, 56), (50, 56))
    )
    assert narrow < mixed < wide


def test_a_hoisted_rotation_costs_less_than_one_of_its_own() -> None:
    params = params_of(14, 8, 40, 50, 3)
    for level in range(9):
        costs = rotation_costs(params, TIMES, level)
        assert costs.baby < costs.giant
        # Joining two folds takes three rotations where two would do, but one division.
        assert costs.extended < costs.hoist + costs.extended + costs.down


def test_transforms_without_baby_steps_stay_over_q() -> None:
    def terms(babies: int, giants: int) -> LinearPlan:
        every = [(g, b) for g in range(giants) for b in range(babies)]
        made = (LinearTerm(0, 0, 8 * g, b, i) for i, (g, b) in enumerate(every))
        return LinearPlan(1, tuple(made), "rows", "")

    over_q = linear_parts(Backend.NATIVE, terms(1, 4), 512, 3, 2)
    assert over_q == {
        ("diagonal_q", 3): 4,
        ("sum_q", 3): 4,
        ("giant_q", 3): 3,
        ("times_p", 3): 1,
        ("down", 3): 1,
        ("rescale", 3): 1,
    }
    over_qp = linear_parts(Backend.NATIVE, terms(4, 2), 512, 3, 2)
    assert over_qp["baby", 3] == 3
    assert over_qp["diagonal", 3] == 8
    assert over_qp["giant", 3] == 1


def test_rotations_are_hoisted_from_two_on() -> None:
    assert not rotation_parts((0, 512), 512, 2)
    assert rotation_parts((1,), 512, 2) == {("rotate", 2): 1}
    assert rotation_parts((1, 2, 0), 512, 2) == {("hoist", 2): 1, ("hoisted", 2): 2}


def test_weights_that_are_mostly_zero_are_left_out() -> None:
    weights = np.zeros((4, 16))
    weights[:, 0] = 1.0
    assert weighted_sum_parts(Backend.NATIVE, weights, 1)["weighted_term", 1] == 4
    assert weighted_sum_parts(Backend.NATIVE, weights + 1.0, 1)["weighted_term", 1] == 64


def test_an_unknown_operation_is_refused() -> None:
    for backend in Backend:
        with pytest.raises(CircuitError, match="no operation 'bootstrap'"):
            backend.work(Ring.at_level(tiny_params(256, 2), 1), "bootstrap")


def test_a_backend_without_a_table_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(op_times, "TABLES", Path("nowhere.json"))
    with pytest.raises(ParameterError, match="no measured operations of the native backend"):
        reference_times()


def test_work_adds_up_and_unpriced_work_is_free() -> None:
    work = Work({"calls": 1.0}) + Work({"calls": 1.0, "moves": 4.0}) * 2.0
    assert work.at({"calls": 3.0}) == 9.0
    assert work.at({"calls": 0.0, "moves": 1.0}) == 8.0


def test_predicted_seconds_are_the_sum_of_the_layers_and_encoding_comes_apart() -> None:
    graph = dense(square_mlp(0, (30, 16, 4)))
    circuit = lower_latency(graph, 128, 64).circuit
    prediction = predict(circuit, tiny_params(128, circuit_depth(graph)), TIMES)
    assert sum(prediction.seconds_by_layer.values()) == pytest.approx(prediction.seconds)
    assert prediction.operations["baby"] == 4
    assert prediction.prepare_seconds > 0.0


@pytest.mark.parametrize("left_out", [0, 1, 2])
def test_rings_left_out_of_the_fit_are_priced_as_well(left_out: int) -> None:
    """Fit on two thirds of the rings in the table, and try the prices on the others."""
    (table,) = [t for t in op_times.read_tables(op_times.TABLES) if t.backend is Backend.NATIVE]
    places = sorted({place(row) for row in table.rows})
    blind = set(places[left_out::3])
    prices = fit(table.backend, [row for row in table.rows if place(row) not in blind])
    for name in HEAVY:
        ratios = [
            table.backend.measured_work(ring_of(row), name).at(prices) / row[name]
            for row in table.rows
            if place(row) in blind and name in row
        ]
        assert ratios, name
        assert 0.7 < float(np.median(ratios)) < 1.4, name
        assert min(ratios) > 0.5, name
        assert max(ratios) < 2.0, name


def place(row: Mapping[str, float]) -> tuple[float, ...]:
    return (row["log_n"], row["limbs"], row["dnum"], row["log_scale"])


def test_the_recorded_predictions_are_near_what_was_measured() -> None:
    """Latencies of whole models on the native engine, as `bench predicted` recorded them last."""
    found = {
        record.workload: record.value
        for record in read(RESULTS / "predicted.jsonl")
        if record.metric == "predicted_over_measured" and record.subject == "tacit"
    }
    assert found
    outside = {name: ratio for name, ratio in found.items() if not 0.6 < ratio < 1.6}
    assert not outside


def test_tables_are_read_as_they_were_written(tmp_path: Path) -> None:
    (table,) = [t for t in op_times.read_tables(op_times.TABLES) if t.backend is Backend.NATIVE]
    path = tmp_path / "op_times.json"
    op_times.write_table(table, path)
    op_times.write_table(Table(Backend.NATIVE, "another machine", table.rows[:2]), path)
    first, second = op_times.read_tables(path)
    assert first.machine == "another machine"
    assert second == table
