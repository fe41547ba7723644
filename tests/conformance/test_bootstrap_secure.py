"""Bootstrapping with parameters that promise 128 bits, every slot in use: minutes, and 8 GB."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("openfhe", reason="openfhe does not import here")

import openfhe

from tacit.bootstrap import Bootstrap
from tacit.bootstrap_levels import bootstrap_deviation
from tacit.client.context import make_context
from tacit.client.keys import make_keys
from tacit.client.secret import SecretKey
from tacit.evaluation_keys import needed_keys
from tacit.fourier import evaluate_series
from tacit.kernels.build import build_if_stale
from tacit.model_compiler.bootstrap import bootstrapped_params, extend_function
from tacit.openfhe_bytes import ForeignCiphertext, read_ciphertext, write_ciphertext
from tacit.params import CryptoParams, Security
from tacit.runtime.backends.native import NativeEvaluator
from tacit.runtime.backends.native_engine import NativeEngine
from tacit.runtime.backends.native_keys import load_keys

Floats = NDArray[np.float64]

LOG_N = 15
PLAN = Bootstrap("silu", 4, LOG_N - 1, 3, 3)


def _silu(x: Floats) -> Floats:
    return x / (1.0 + np.exp(-32.0 * x))


def _settings(params: CryptoParams) -> openfhe.CCParamsCKKSRNS:
    settings = openfhe.CCParamsCKKSRNS()
    settings.SetSecretKeyDist(openfhe.SecretKeyDist.SPARSE_ENCAPSULATED)
    settings.SetSecurityLevel(openfhe.SecurityLevel.HEStd_128_classic)
    settings.SetRingDim(params.n)
    settings.SetMultiplicativeDepth(params.depth)
    settings.SetScalingModSize(params.log_scale)
    settings.SetFirstModSize(params.log_first)
    settings.SetScalingTechnique(openfhe.ScalingTechnique.FLEXIBLEAUTO)
    settings.SetNumLargeDigits(params.dnum)
    return settings


@pytest.mark.slow
def test_openfhe_too_takes_the_chosen_parameters_for_secure() -> None:
    params = bootstrapped_params(LOG_N, PLAN, 31)
    context = openfhe.GenCryptoContext(_settings(params))
    assert context.GetRingDimension() == params.n


@pytest.mark.slow
def test_a_secure_bootstrap_of_all_slots_is_as_precise_as_predicted() -> None:
    if not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")
    params = bootstrapped_params(LOG_N, PLAN, 31)
    assert params.security is Security.CLASSICAL_128
    series = extend_function(_silu, 31, params, PLAN).series
    context = make_context(params)
    secret = SecretKey.generate(context)
    purposes = needed_keys(params, sorted(PLAN.rotations(params.slots)), True, True)
    keys = load_keys(NativeEngine(params), bytes(32), make_keys(context, secret, purposes))
    x = np.random.default_rng(0).uniform(-0.5, 0.5, params.slots)
    foreign, template = read_ciphertext(secret.encrypt(x, 3, 1))
    a = keys.upload(foreign.limbs, 3)
    made = NativeEvaluator(keys).bootstrap(a, PLAN, {"silu": series})
    answer = ForeignCiphertext(
        keys.download(made),
        params.depth - made.level,
        1,
        params.scale(made.level),
        params.slots,
        secret.tag,
    )
    error = np.abs(secret.decrypt(write_ciphertext(template, answer)) - evaluate_series(series, x))
    assert np.max(error) < 30.0 * bootstrap_deviation(params, PLAN, series)
    assert np.max(np.abs(evaluate_series(series, x) - _silu(x))) < 2.0**-18
