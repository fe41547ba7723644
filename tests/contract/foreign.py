"""A small OpenFHE context with keys, for tests of its archives."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

openfhe: Any = pytest.importorskip("openfhe")
BINARY = openfhe.BINARY
BASIC = ("PKE", "KEYSWITCH", "LEVELEDSHE")
LOG_N, DEPTH, LOG_SCALE, LOG_FIRST, DNUM = 10, 4, 40, 50, 2
SLOTS = 1 << (LOG_N - 1)
DIGEST = hashlib.sha256(b"parameters of this test").digest()


def openfhe_context(
    log_n: int,
    depth: int,
    log_scale: int,
    log_first: int,
    dnum: int,
    features: tuple[str, ...] = BASIC,
) -> Any:
    params = openfhe.CCParamsCKKSRNS()
    params.SetSecurityLevel(openfhe.SecurityLevel.HEStd_NotSet)
    params.SetRingDim(1 << log_n)
    params.SetMultiplicativeDepth(depth)
    params.SetScalingModSize(log_scale)
    params.SetFirstModSize(log_first)
    params.SetScalingTechnique(openfhe.FLEXIBLEAUTO)
    params.SetKeySwitchTechnique(openfhe.HYBRID)
    params.SetNumLargeDigits(dnum)
    context = openfhe.GenCryptoContext(params)
    for feature in features:
        context.Enable(getattr(openfhe.PKESchemeFeature, feature))
    return context


def make_context(features: tuple[str, ...] = BASIC, depth: int = DEPTH, dnum: int = DNUM) -> Any:
    return openfhe_context(LOG_N, depth, LOG_SCALE, LOG_FIRST, dnum, features)


@dataclass(frozen=True)
class Party:
    """A context with keys for products and the rotations 1, 2 and -3."""

    context: Any
    pair: Any

    @property
    def tag(self) -> str:
        return str(self.pair.secretKey.GetKeyTag())

    def encrypt(self, values: "np.ndarray[Any, Any]", dropped: int = 0) -> Any:
        plain = self.context.MakeCKKSPackedPlaintext(values, 1, dropped)
        return self.context.Encrypt(self.pair.publicKey, plain)

    def decrypt(self, ciphertext: Any) -> "np.ndarray[Any, Any]":
        plain = self.context.Decrypt(ciphertext, self.pair.secretKey)
        plain.SetLength(SLOTS)
        return np.array(plain.GetRealPackedValue())


def make_party() -> Party:
    """Make a context and its keys."""
    context = make_context()
    pair = context.KeyGen()
    context.EvalMultKeyGen(pair.secretKey)
    context.EvalRotateKeyGen(pair.secretKey, [1, 2, -3])
    return Party(context, pair)


def values(seed: int) -> "np.ndarray[Any, Any]":
    return np.random.default_rng(seed).uniform(-1, 1, SLOTS)


def product(party: Party, factors: int) -> Any:
    """A product of fresh ciphertexts: OpenFHE level factors - 2, degree 2."""
    result = party.encrypt(values(0))
    for _ in range(factors - 1):
        result = party.context.EvalMult(result, party.encrypt(values(0)))
    return result
