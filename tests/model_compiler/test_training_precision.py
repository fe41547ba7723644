"""A training whose weights are asked to be more precise gets other parameters."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tacit.errors import ParameterError
from tacit.model_compiler.training_choice import TrainingOptions, choose_training
from tacit.model_compiler.training_noise import weight_error
from tacit.params import CryptoParams
from tacit.training import Algorithm, TrainingTask

TASK = TrainingTask(Algorithm.LOGISTIC, 50, 3, 2, degree=3)


def test_weights_are_as_precise_as_the_task_asks() -> None:
    plain = choose_training(TASK, TrainingOptions())
    precise = choose_training(replace(TASK, weight_bits=24), TrainingOptions())
    assert weight_error(precise.params, precise.circuits) <= 2.0**-24
    assert weight_error(plain.params, plain.circuits) > 2.0**-24
    assert log_scale(precise.params) >= log_scale(plain.params) + 6


def test_more_precision_than_there_is_is_refused() -> None:
    with pytest.raises(ParameterError, match="weight_bits must be 0 to 40"):
        replace(TASK, weight_bits=41)


def log_scale(params: CryptoParams) -> int:
    return params.log_scale
