"""Backends under test: an evaluator with a way in and a way out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tacit.circuit import Evaluator
from tacit.params import CryptoParams, Security
from tacit.precision import DECRYPTION_FACTOR, bits
from tacit.runtime.backends.clear import ClearEvaluator

Floats = NDArray[np.float64]
# What the tests do: given an evaluator and input ciphertexts, return output ciphertexts.
Program = Callable[[Evaluator[Any], list[Any]], list[Any]]

DEEP_TINY_INSECURE = CryptoParams.choose(10, 6, 45, 55, 3, Security.UNCHECKED_INSECURE)
SHALLOW_TINY_INSECURE = CryptoParams.choose(11, 3, 30, 40, 4, Security.UNCHECKED_INSECURE)

ROTATIONS = (1, 2, 3, 4, 5, 8, 16, 64, 100, 256, -1, -2, -7)

# Bits that the error may exceed the one of the simulated noise by: the simulation draws its noise
# independently for each operation and a few times only.
MARGIN_BITS = 3.0


@dataclass(frozen=True, slots=True)
class Backend:
    """One backend with keys, behind functions on slot vectors.

    Attributes:
        name: for test ids.
        params: its parameters.
        evaluator: works on whatever `encrypt` gives.
        encrypt: (values, level) to a ciphertext.
        decrypt: a ciphertext to its slots.
        exact: whether there is no noise.
    """

    name: str
    params: CryptoParams
    evaluator: Evaluator[Any]
    encrypt: Callable[[Floats, int], Any]
    decrypt: Callable[[Any], Floats]
    exact: bool

    def run(self, program: Program, inputs: Sequence[Floats], level: int) -> list[Floats]:
        """Encrypt, run, decrypt."""
        encrypted = [self.encrypt(values, level) for values in inputs]
        return [self.decrypt(output) for output in program(self.evaluator, encrypted)]

    def check(
        self,
        program: Program,
        inputs: Sequence[Floats],
        expected: Sequence[Floats],
        level: int | None = None,
    ) -> None:
        """Compare a program's outputs with what they should be, within the bits to expect."""
        level = self.params.depth if level is None else level
        outputs = self.run(program, inputs, level)
        assert len(outputs) == len(expected)
        error = max(float(np.max(np.abs(o - e))) for o, e in zip(outputs, expected, strict=True))
        wanted = 30.0 if self.exact else expected_bits(self.params, program, inputs, level)
        assert bits(error) >= wanted, f"{bits(error):.1f} bits are right, {wanted:.1f} expected"


def expected_bits(
    params: CryptoParams, program: Program, inputs: Sequence[Floats], level: int
) -> float:
    """Simulate a program with the noise that the parameters imply."""

    def run(evaluator: ClearEvaluator) -> Floats:
        outputs = program(evaluator, [evaluator.encrypt(values, level) for values in inputs])
        return np.stack([output.values for output in outputs])

    exact = run(ClearEvaluator(params))
    runs = [run(ClearEvaluator(params, noise=True, seed=seed)) for seed in range(4)]
    error = max(float(np.max(np.abs(noisy - exact))) for noisy in runs)
    return bits(DECRYPTION_FACTOR * error) - MARGIN_BITS


def clear_backend(params: CryptoParams) -> Backend:
    """Return the clear backend, without noise."""
    evaluator = ClearEvaluator(params)
    return Backend("clear", params, evaluator, evaluator.encrypt, lambda c: c.values, True)


def openfhe_backend(params: CryptoParams, rotations: Sequence[int] = ROTATIONS) -> Backend:
    """Return the OpenFHE backend with fresh keys for these rotations."""
    from tacit.runtime.backends.openfhe import OpenFHEEvaluator
    from tacit.runtime.backends.openfhe_parameters import make_context

    context = make_context(params)
    keys = context.KeyGen()
    context.EvalMultKeyGen(keys.secretKey)
    context.EvalRotateKeyGen(keys.secretKey, list(rotations))

    def encrypt(values: Floats, level: int) -> Any:
        plaintext = context.MakeCKKSPackedPlaintext(values, 1, params.depth - level)
        return context.Encrypt(keys.publicKey, plaintext)

    def decrypt(ciphertext: Any) -> Floats:
        return np.asarray(context.Decrypt(keys.secretKey, ciphertext).GetRealPackedValueArray())

    evaluator = OpenFHEEvaluator(params, context)
    return Backend("openfhe", params, evaluator, encrypt, decrypt, False)
