"""The native backend under test: OpenFHE encrypts and decrypts, our kernels compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tacit.kernels.build import build_if_stale
from tacit.params import CryptoParams
from tests.conformance.backends import ROTATIONS, Backend


def native_backend(params: CryptoParams, rotations: Sequence[int] = ROTATIONS) -> Backend:
    """Return the native backend with fresh keys for these rotations."""
    _require_kernels()
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


def native_batch_backend(params: CryptoParams, rotations: Sequence[int] = ROTATIONS) -> Backend:
    """Return the native backend on batches of three: a stranger's values, ours, ours negated.

    Keys and values of the entries differ; what is looked at is the one in the middle.
    """
    _require_kernels()
    from tacit.runtime.backends.native import NativeEvaluator
    from tacit.runtime.backends.native_ciphertext import join, split
    from tests.conformance.exchange import make_exchange

    ours = make_exchange(params, rotations)
    engine = ours.native_keys.engine
    theirs = make_exchange(params, rotations, engine=engine, key_id=bytes([1]) * 32)

    def encrypt(values: NDArray[np.float64], level: int) -> Any:
        entries = ((theirs, 0.5 * values[::-1]), (ours, values), (ours, -values))
        return join([owner.to_native(owner.encrypt(v, level)) for owner, v in entries])

    def decrypt(ciphertext: Any) -> NDArray[np.float64]:
        return ours.decrypt(ours.to_openfhe(split(ciphertext)[1]))

    evaluator = NativeEvaluator([theirs.native_keys, ours.native_keys, ours.native_keys])
    return Backend("native-batch", params, evaluator, encrypt, decrypt, False)


def _require_kernels() -> None:
    if not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")
