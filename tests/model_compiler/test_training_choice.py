"""Parameters that trainings get, and how far off their weights are predicted to be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tacit.errors import ParameterError
from tacit.model_compiler.training_choice import TrainingOptions, choose_training
from tacit.model_compiler.training_noise import weight_error
from tacit.params import Security
from tacit.training import Algorithm, TrainingTask
from tests.model_compiler.trainings import LOGISTIC, insecure

HEART = TrainingTask(Algorithm.LOGISTIC, 780, 9, 5, 3)


@pytest.mark.parametrize("degree", [3, 5, 7])
def test_five_iterations_on_a_heart_study_need_keys_below_500_mb(degree: int) -> None:
    choice = choose_training(replace(HEART, degree=degree), TrainingOptions())
    assert choice.params.security is Security.CLASSICAL_128
    assert choice.params.log_n == 15
    assert choice.circuits.refresh is None
    assert choice.key_bytes <= 500e6
    assert choice.seconds < 5.0
    assert weight_error(choice.params, choice.circuits) <= 5e-4


def test_moments_are_cheap() -> None:
    task = TrainingTask(Algorithm.MOMENTS, 780, 9, 0)
    choice = choose_training(task, TrainingOptions())
    assert choice.params.security is Security.CLASSICAL_128
    assert choice.params.depth == 1
    assert choice.seconds < 0.5


def test_more_precision_takes_a_larger_scale() -> None:
    coarse = choose_training(replace(HEART, iterations=2), TrainingOptions())
    fine = choose_training(replace(HEART, iterations=2), TrainingOptions(weight_error=1e-6))
    assert fine.params.log_scale > coarse.params.log_scale


def test_what_nothing_can_do_is_refused_with_what_comes_nearest() -> None:
    options = TrainingOptions(weight_error=1e-13, key_bytes=(500e6,))
    with pytest.raises(ParameterError, match=r"fewer iterations.*nearest: N = 2"):
        choose_training(replace(HEART, iterations=1), options)


def test_errors_do_not_grow_from_bootstrap_to_bootstrap() -> None:
    """Every block's own errors are carried on by the momentum; a bootstrap takes their mean."""
    task = replace(LOGISTIC, rows=128, iterations=24)
    few, many = (choose_training(task, insecure(task, between=between)) for between in (4, 1))
    assert sum(not step.iteration for step in many.circuits.steps) >= 22
    assert weight_error(many.params, many.circuits) < 1e-5
    assert weight_error(few.params, few.circuits) < 1e-5


def test_a_smaller_scale_is_predicted_to_be_less_precise() -> None:
    options = insecure(LOGISTIC)
    assert options.params is not None
    errors = []
    for log_scale in (45, 40, 35):
        params = replace_scale(options, log_scale)
        choice = choose_training(LOGISTIC, params)
        errors.append(weight_error(choice.params, choice.circuits))
    assert 16.0 < errors[1] / errors[0] < 64.0
    assert 16.0 < errors[2] / errors[1] < 64.0


def replace_scale(options: TrainingOptions, log_scale: int) -> TrainingOptions:
    params = options.params
    assert params is not None
    chosen = type(params).choose(
        params.log_n, params.depth, log_scale, log_scale + 10, params.dnum, params.security
    )
    return replace(options, params=chosen)


@pytest.mark.slow
def test_thirty_two_iterations_are_bootstrapped_at_128_bits() -> None:
    choice = choose_training(replace(HEART, iterations=32), TrainingOptions())
    assert choice.params.security is Security.CLASSICAL_128
    assert choice.circuits.refresh is not None
    assert choice.key_bytes <= 1.5e9
    assert weight_error(choice.params, choice.circuits) <= 5e-4
