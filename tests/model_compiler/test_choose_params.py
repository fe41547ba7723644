"""Parameters, predicted noise and predicted cost."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from tacit.circuit import execute
from tacit.errors import ParameterError
from tacit.key_levels import circuit_key_levels
from tacit.model_compiler.choose_params import LARGEST_SCALE, choose_params, secure_params
from tacit.model_compiler.cost import COLD_START, predict, rotation_costs
from tacit.model_compiler.graph import evaluate
from tacit.model_compiler.lowering.batch import lower_batch
from tacit.model_compiler.lowering.depths import circuit_depth
from tacit.model_compiler.lowering.latency import lower_latency
from tacit.model_compiler.lowering.plans import (
    PlanChoice,
    Target,
    batch_plan,
    interleaved_plan,
    latency_plan,
)
from tacit.model_compiler.noise import predicted_error
from tacit.model_compiler.op_times import Backend, reference_times
from tacit.params import MAX_LOG_QP_128, NARROW_BITS, SECURITY_MARGIN_BITS, CryptoParams, Security
from tacit.runtime.backends.clear import ClearEvaluator
from tests.model_compiler.scaled_graphs import (
    dense,
    drawn_rows,
    graph_of,
    polynomial,
    random_scaled_graph,
    square_mlp,
    tiny_params,
)

TIMES = reference_times()
OPENFHE_TIMES = reference_times(Backend.OPENFHE)


@pytest.mark.parametrize("depth", [1, 3, 6, 12])
def test_every_candidate_is_within_the_security_table(depth: int) -> None:
    for log_n in (13, 14, 15):
        for params in secure_params(log_n, depth):
            assert params.security is Security.CLASSICAL_128
            assert params.log_qp <= MAX_LOG_QP_128[log_n] - SECURITY_MARGIN_BITS
            assert params.log_scale <= LARGEST_SCALE
            assert params.log_first - params.log_scale >= 6


def kind(params: CryptoParams) -> tuple[int, bool, bool, int]:
    narrow = [q >> NARROW_BITS == 0 for q in params.moduli]
    return params.dnum, narrow[0], all(narrow[1:]), len(params.special_moduli)


@pytest.mark.parametrize(("log_n", "depth"), [(13, 1), (13, 3), (14, 6), (15, 12)])
def test_candidates_are_the_largest_secure_scale_of_each_kind(log_n: int, depth: int) -> None:
    found = list(secure_params(log_n, depth))
    assert len({kind(params) for params in found}) == len(found)
    for params in found:
        if params.log_scale == LARGEST_SCALE:
            continue
        headroom = params.log_first - params.log_scale
        sizes = (params.log_scale + 1, min(params.log_scale + 1 + headroom, 60))
        larger = CryptoParams.choose(log_n, depth, *sizes, params.dnum, Security.UNCHECKED_INSECURE)
        insecure = larger.log_qp > MAX_LOG_QP_128[log_n] - SECURITY_MARGIN_BITS
        assert insecure or kind(larger) != kind(params)


def test_a_ring_has_narrow_candidates_beside_wide_ones() -> None:
    kinds = {kind(params)[1:3] for params in secure_params(13, 1)}
    assert kinds == {(True, True), (False, True), (False, False)}


def test_the_native_engine_gets_narrow_primes_where_they_are_precise_enough() -> None:
    graph = graph_of([dense(square_mlp(0, (30, 1, 1))).nodes[0]], {"x": 30, "h": 1}, ("x",), ("h",))

    def choose(bits: float, backend: Backend) -> CryptoParams:
        times = TIMES if backend is Backend.NATIVE else OPENFHE_TIMES
        choice = choose_params(lambda slots: lower_latency(graph, slots, 32), 1, bits, times)
        assert choice.precision_bits >= bits
        assert choice.reason
        assert any(c.params == choice.params for c in choice.neighbours)
        return choice.params

    relaxed = choose(16.0, Backend.NATIVE)
    assert all(q >> NARROW_BITS == 0 for q in relaxed.moduli)
    exact = choose(31.0, Backend.NATIVE)
    assert any(q >> NARROW_BITS for q in exact.moduli)
    # All primes cost OpenFHE the same, so that it gets the precision for nothing.
    assert choose(16.0, Backend.OPENFHE).log_scale > relaxed.log_scale


def test_one_more_bit_of_scale_is_one_more_bit_of_precision() -> None:
    graph = dense(square_mlp(0, (30, 16, 2)))
    depth = circuit_depth(graph)
    choice = choose_params(lambda slots: lower_latency(graph, slots, 64), depth, 12.0, TIMES)
    bits = [(c.params.log_scale, c.precision_bits) for c in choice.neighbours]
    assert len(bits) >= 3
    for (scale, lower), (next_scale, higher) in pairwise(bits):
        assert next_scale == scale + 1
        assert 0.5 < higher - lower < 1.5


def test_the_smallest_ring_that_is_precise_enough_is_chosen() -> None:
    graph = dense(square_mlp(0, (30, 16, 2)))
    depth = circuit_depth(graph)

    def choose(precision: float) -> int:
        choice = choose_params(
            lambda slots: lower_latency(graph, slots, 64), depth, precision, TIMES
        )
        assert choice.precision_bits >= precision
        return choice.params.log_n

    assert choose(12.0) == 13
    assert choose(30.0) > 13


def test_hopeless_demands_say_what_to_do() -> None:
    graph = dense(square_mlp(0, (4, 4, 1)))
    with pytest.raises(ParameterError, match="fewer or smaller activations"):
        choose_params(lambda slots: lower_latency(graph, slots, 4), 90, 16.0, TIMES)


@pytest.mark.parametrize("seed", range(4))
def test_simulated_noise_stays_within_the_prediction_and_near_it(seed: int) -> None:
    graph = random_scaled_graph(seed)
    depth = circuit_depth(graph)
    params = tiny_params(1024, depth)
    lowered = lower_latency(graph, 1024, 256)
    error = predicted_error(lowered, params)
    rows = drawn_rows(graph, lowered.batch)
    expected = evaluate(graph, rows)
    evaluator = ClearEvaluator(params, noise=True, seed=seed)
    inputs = [
        evaluator.encrypt(vector, lowered.levels[name])
        for name, layout in lowered.inputs.items()
        for vector in layout.pack(rows[name])
    ]
    results = [r.values for r in execute(lowered.circuit, inputs, evaluator)]
    measured, first = 0.0, 0
    for name, layout in lowered.outputs.items():
        block = np.stack(results[first : first + layout.ciphertexts])
        first += layout.ciphertexts
        got = layout.unpack(block, lowered.batch)
        measured = max(measured, float(np.abs(got - expected[name]).max()))
    assert measured <= error
    assert error <= 64.0 * measured


def test_predicted_noise_of_a_polynomial_grows_with_its_slope() -> None:
    generator = np.random.default_rng(0)
    node = polynomial(generator, "y", "x", 5)
    steep = polynomial(generator, "y", "x", 5)
    steep = type(steep)("y", "x", 8.0 * node.coefficients, 0.0, 1.0, "y")
    errors = []
    for each in (node, steep):
        graph = graph_of([each], {"x": 8, "y": 8}, ("x",), ("y",))
        params = tiny_params(256, 3)
        errors.append(predicted_error(lower_latency(graph, 256, 8), params))
    assert 6.0 < errors[1] / errors[0] < 9.0


def test_predictions_count_what_the_circuit_does() -> None:
    graph = dense(square_mlp(0, (30, 16, 4)))
    lowered = lower_latency(graph, 128, 64)
    params = tiny_params(128, 3)
    prediction = predict(lowered.circuit, params, OPENFHE_TIMES)
    assert prediction.operations == {
        "hoist": 1,
        "hoisted": 3,
        "rotate": 1 + 2 + 1 + 1 + 2,
        "multiply_plain": 8 + 4,
        "multiply": 1,
        "rescale": 3,
        "add": 8 - 1 + 2 + 4 - 1 + 2,
        "add_plain": 2,
    }
    assert prediction.rotation_keys == len(lowered.circuit.rotations)
    # One digit: a key has as many limbs as the highest level of its use, and those of P.
    levels = circuit_key_levels(lowered.circuit, params).levels()
    assert (params.dnum, len(levels)) == (1, prediction.rotation_keys + 1)
    limbs = sum(level + 1 + len(params.special_moduli) for level in levels)
    assert prediction.key_bytes == 2 * limbs * params.n * 8
    assert prediction.key_bytes < len(levels) * params.evaluation_key_bytes
    assert sum(prediction.seconds_by_layer.values()) == pytest.approx(prediction.seconds)
    assert set(prediction.seconds_by_layer) == {COLD_START, "h", "square", "y"}


def test_a_batch_circuit_needs_no_keys_but_more_memory() -> None:
    graph = random_scaled_graph(1)
    params = tiny_params(256, circuit_depth(graph))
    batch = predict(lower_batch(graph, 256).circuit, params, TIMES)
    latency = predict(lower_latency(graph, 256, 256).circuit, params, TIMES)
    assert batch.rotation_keys == 0
    assert batch.ciphertext_bytes > latency.ciphertext_bytes


def test_rotations_cost_more_with_more_limbs() -> None:
    params = tiny_params(4096, 5)
    costs = [rotation_costs(params, TIMES, level) for level in range(6)]
    assert all(lower.giant < higher.giant for lower, higher in pairwise(costs))
    assert all(cost.baby < cost.giant for cost in costs)


def test_ties_go_to_the_plan_of_more_rows() -> None:
    graph = graph_of([dense(square_mlp(0, (30, 1, 1))).nodes[0]], {"x": 30, "h": 1}, ("x",), ("h",))
    target = Target(tiny_params(4096, 1), TIMES)
    choice = latency_plan(graph, target)
    assert choice.lowered.batch == 4096 // 32
    assert interleaved_plan(graph, target, choice) == (
        "the latency plan already packs as many rows as fit"
    )


def test_a_limit_on_keys_gives_fewer_keys_or_says_how_many_are_needed() -> None:
    graph = dense(square_mlp(0, (500, 256, 30)))
    params = tiny_params(1024, 3)
    free = latency_plan(graph, Target(params, TIMES))
    limit = free.prediction.key_bytes - 1
    tight = latency_plan(graph, Target(params, TIMES, limit))
    assert tight.prediction.key_bytes <= limit
    with pytest.raises(ParameterError, match="raise the limit"):
        latency_plan(graph, Target(params, TIMES, 1000.0))
    wished = latency_plan(graph, Target(params, TIMES, wished_key_bytes=limit))
    assert wished.prediction == tight.prediction
    hopeless = latency_plan(graph, Target(params, TIMES, wished_key_bytes=1000.0))
    assert hopeless.prediction.key_bytes <= tight.prediction.key_bytes


def test_interleaving_wins_throughput_where_the_first_layer_is_wide() -> None:
    graph = dense(square_mlp(0, (200, 64, 10)))
    target = Target(tiny_params(2048, 3), TIMES)
    latency = latency_plan(graph, target)
    plan = interleaved_plan(graph, target, latency)
    if isinstance(plan, PlanChoice):
        assert plan.seconds_per_row < latency.seconds_per_row
        assert plan.lowered.batch > latency.lowered.batch
    else:
        assert "no better" in plan or "already" in plan


def test_an_unreasonable_batch_plan_is_left_out_with_a_reason() -> None:
    graph = dense(square_mlp(0, (2, 5000, 1)))
    plan = batch_plan(graph, Target(tiny_params(256, 3), TIMES), None)
    assert isinstance(plan, str)
    assert "5000 elements" in plan
