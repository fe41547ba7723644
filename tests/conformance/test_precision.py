"""The noise formulas against OpenFHE's noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tacit import precision
from tests.conformance.backends import Backend

Floats = NDArray[np.float64]

_REPEATS = 12


def _errors(backend: Backend, rotations: int, decryptions: int = 1) -> Floats:
    """Errors of values rotated at degree 1, shape (repeats, slots).

    The mean of several decryptions leaves out the noise that decryption itself adds.
    """
    rng = np.random.default_rng(rotations)
    errors = []
    for _ in range(_REPEATS):
        x = rng.uniform(-1, 1, backend.params.slots)
        value = backend.encrypt(x, backend.params.depth)
        for _ in range(rotations):
            value = backend.evaluator.rotate(value, 1)
        decrypted = np.mean([backend.decrypt(value) for _ in range(decryptions)], axis=0)
        errors.append(decrypted - np.roll(x, -rotations))
    return np.asarray(errors)


def test_fresh_noise_is_as_predicted(noisy_backend: Backend) -> None:
    predicted = precision.DECRYPTION_FACTOR * precision.fresh_deviation(noisy_backend.params)
    measured = float(np.std(_errors(noisy_backend, 0)))
    assert 0.8 < measured / predicted < 1.25


def test_key_switch_noise_is_as_predicted(noisy_backend: Backend) -> None:
    params, rotations = noisy_backend.params, 60
    fresh = precision.fresh_deviation(params)
    each = precision.key_switch_deviation(params, params.depth)
    measured = float(np.std(_errors(noisy_backend, rotations, decryptions=16)))
    # Two thirds of a bit: all rotations use one key, so the errors they add are not independent.
    assert 0.6 < measured / np.sqrt(fresh**2 + rotations * each**2) < 1.6


def test_expected_bits_hold_and_are_not_far_off(noisy_backend: Backend) -> None:
    for rotations in (0, 1, 5):
        expected = precision.expected_error_bits(noisy_backend.params, rotations=rotations)
        found = precision.bits(float(np.max(np.abs(_errors(noisy_backend, rotations)))))
        assert expected <= found < expected + 2.5
