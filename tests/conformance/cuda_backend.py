"""The native backend on CUDA kernels on fibres: evaluator and launches unchanged."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from tacit.kernels.compile_sources import find_compiler
from tacit.kernels.cuda.device import DriverDevice
from tacit.kernels.cuda.limb_kernels import CudaKernels
from tacit.kernels.cuda.shim import Shim
from tacit.kernels.cuda.transforms import Form
from tacit.kernels.limb_kernels import LimbKernels
from tacit.params import CryptoParams
from tests.conformance.backends import ROTATIONS, Backend


@cache
def fibres() -> Shim:
    """Return the simulated device's libraries, kept between sessions."""
    if find_compiler() is None:
        pytest.skip("no C++ compiler")
    return Shim(Path(tempfile.gettempdir()) / "tacit-cuda-shim")


def fibre_kernels(params: CryptoParams, form: Form | None = None) -> CudaKernels:
    """Return CUDA kernels on fibres."""
    device = DriverDevice(fibres().driver())
    return CudaKernels(params, device, fibres().image(params.log_n), form=form)


def cuda_backend(params: CryptoParams, rotations: Sequence[int] = ROTATIONS) -> Backend:
    """Return the native backend on a batch of two owners; looked at is the second's entry."""
    from tacit.runtime.backends.native import NativeEvaluator
    from tacit.runtime.backends.native_ciphertext import join, split
    from tacit.runtime.backends.native_engine import NativeEngine
    from tests.conformance.exchange import make_exchange

    form = Form.TILED if params.log_n % 2 else Form.WHOLE
    engine = NativeEngine(params, cast(LimbKernels, fibre_kernels(params, form)))
    ours = make_exchange(params, rotations, engine=engine)
    theirs = make_exchange(params, rotations, engine=engine, key_id=bytes([1]) * 32)

    def encrypt(values: NDArray[np.float64], level: int) -> Any:
        entries = ((theirs, -values[::-1]), (ours, values))
        return join([owner.to_native(owner.encrypt(v, level)) for owner, v in entries])

    def decrypt(ciphertext: Any) -> NDArray[np.float64]:
        return ours.decrypt(ours.to_openfhe(split(ciphertext)[1]))

    evaluator = NativeEvaluator([theirs.native_keys, ours.native_keys])
    return Backend("native-cuda", params, evaluator, encrypt, decrypt, False)
