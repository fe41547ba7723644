"""Series and parameters for bootstrapped circuits."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tacit.bootstrap import Bootstrap
from tacit.bootstrap_levels import raised_level
from tacit.bootstrap_steps import bootstrap_by_steps
from tacit.circuit import Op, ValueType
from tacit.errors import ParameterError, SecurityError
from tacit.fourier import evaluate_series
from tacit.model_compiler.bootstrap import (
    bootstrapped_params,
    choose_bootstrap,
    extend_function,
)
from tacit.model_compiler.builder import CircuitBuilder
from tacit.model_compiler.cost import predict
from tacit.model_compiler.levels import LevelChecker, check_levels
from tacit.model_compiler.op_times import reference_times
from tacit.params import CryptoParams, SecretDistribution, Security

Floats = NDArray[np.float64]
PLAN = Bootstrap("series", 3, 14)
X: Floats = np.linspace(-0.5, 0.5, 2001, dtype=np.float64)


def _silu(x: Floats) -> Floats:
    return x / (1.0 + np.exp(-32.0 * x))


@pytest.fixture(scope="module")
def params() -> CryptoParams:
    return bootstrapped_params(15, PLAN, 31)


def test_parameters_are_secure_deep_enough_and_as_precise_as_can_be(params: CryptoParams) -> None:
    assert params.security is Security.CLASSICAL_128
    assert params.secret is SecretDistribution.SPARSE_ENCAPSULATED
    assert raised_level(params, PLAN, 31) == params.depth
    assert params.log_first == params.log_scale + 1
    choice = (params.log_scale + 1, params.log_scale + 2)
    for dnum in range(1, 13):
        with pytest.raises((SecurityError, ParameterError)):
            CryptoParams.choose(15, params.depth, *choice, dnum)


def test_too_small_a_ring_is_refused() -> None:
    with pytest.raises(SecurityError, match="use a larger ring"):
        bootstrapped_params(13, Bootstrap("series", 3, 12), 31)


def test_an_extension_says_how_far_it_is_off(params: CryptoParams) -> None:
    found = extend_function(_silu, 31, params, PLAN)
    errors = np.abs(evaluate_series(found.series, X) - _silu(X))
    assert np.max(errors) == pytest.approx(found.error, rel=0.05)
    assert np.mean(errors) == pytest.approx(found.mean_error, rel=0.05)
    assert 0.0 < found.noise < 2.0**-12
    assert (found.degree, found.depth) == (31, 5)


def test_a_kink_s_coefficients_do_not_magnify_the_noise(params: CryptoParams) -> None:
    found = extend_function(lambda x: np.maximum(x, 0.0), 31, params, PLAN)
    assert found.noise < found.error < 2.0**-8


def test_the_builder_checker_and_cost_model_know_bootstraps(params: CryptoParams) -> None:
    builder = CircuitBuilder(params.slots)
    series = extend_function(_silu, 31, params, PLAN).series
    value = builder.bootstrap(builder.input(3), PLAN, series, "layer")
    assert builder.type_of(value) == ValueType(3)
    circuit = builder.build([value])
    check_levels(circuit)
    assert circuit.nodes[0].op is Op.BOOTSTRAP
    assert set(circuit.constants) == {"layer/series"}
    assert predict(circuit, params, reference_times()).seconds > 0.1


def test_the_priced_steps_end_where_the_plan_says(params: CryptoParams) -> None:
    series = extend_function(_silu, 31, params, PLAN).series
    for log_slots in (14, 8):
        plan = Bootstrap("series", 3, log_slots)
        end = bootstrap_by_steps(
            LevelChecker(), ValueType(4), plan, series, params, lambda _, level: ValueType(level)
        )
        assert end == ValueType(3)


def test_the_cheapest_ring_digits_and_stages_are_chosen_within_the_memory_for_keys() -> None:
    times = reference_times()
    roomy = choose_bootstrap(3, 31, 30, times, log_ns=(15,), max_key_bytes=8e9)
    assert roomy.params.security is Security.CLASSICAL_128
    assert roomy.plan.level == roomy.plan.to_coefficients + 3
    assert raised_level(roomy.params, roomy.plan, 31) == roomy.params.depth
    fast = choose_bootstrap(0, 7, 24, times, log_ns=(15,), max_key_bytes=8e9)
    limit = 0.9 * fast.key_bytes
    tight = choose_bootstrap(0, 7, 24, times, log_ns=(15,), max_key_bytes=limit)
    assert tight.key_bytes <= limit < fast.key_bytes
    assert tight.seconds / tight.params.slots >= fast.seconds / fast.params.slots
    with pytest.raises(SecurityError, match="more memory for keys"):
        choose_bootstrap(3, 31, 30, times, log_ns=(15,), max_key_bytes=1e8)
