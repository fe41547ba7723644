"""The native backend under test: OpenFHE encrypts and decrypts, our kernels compute."""

from __future__ import annotations

from collections.abc import Sequence

from tacit.kernels.build import build_if_stale
from tacit.params import CryptoParams
from tests.conformance.backends import ROTATIONS, Backend


def native_backend(params: CryptoParams, rotations: Sequence[int] = ROTATIONS) -> Backend:
    """Return the native backend with fresh keys for these rotations."""
    import pytest

    if not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")
    from tests.conformance.exchange import make_exchange

    exchange = make_exchange(params, rotations)
    return Backend(
        "native",
        params,
        exchange.native,
        lambda values, level: exchange.to_native(exchange.encrypt(values, level)),
        lambda ciphertext: exchange.decrypt(exchange.to_openfhe(ciphertext)),
        False,
    )
