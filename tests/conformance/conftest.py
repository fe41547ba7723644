"""The backends that the conformance suite runs on."""

from functools import cache

import pytest

from tests.conformance.backends import (
    DEEP_TINY_INSECURE,
    SHALLOW_TINY_INSECURE,
    Backend,
    clear_backend,
    openfhe_backend,
)
from tests.conformance.cuda_backend import cuda_backend
from tests.conformance.native_backend import native_backend, native_batch_backend

_BACKENDS = {
    "clear": (clear_backend, DEEP_TINY_INSECURE),
    "clear-shallow": (clear_backend, SHALLOW_TINY_INSECURE),
    "openfhe": (openfhe_backend, DEEP_TINY_INSECURE),
    "openfhe-shallow": (openfhe_backend, SHALLOW_TINY_INSECURE),
    "native": (native_backend, DEEP_TINY_INSECURE),
    "native-shallow": (native_backend, SHALLOW_TINY_INSECURE),
    "native-batch": (native_batch_backend, DEEP_TINY_INSECURE),
    "native-cuda": (cuda_backend, DEEP_TINY_INSECURE),
    "native-cuda-shallow": (cuda_backend, SHALLOW_TINY_INSECURE),
}

_NOISY = ("openfhe", "openfhe-shallow", "native", "native-shallow")


@cache
def _backend(name: str) -> Backend:
    if name.startswith(("openfhe", "native")):
        pytest.importorskip("openfhe", reason="openfhe does not import here")
    make, params = _BACKENDS[name]
    return make(params)


@pytest.fixture(params=list(_BACKENDS))
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each backend, made once per session, with its keys."""
    return _backend(request.param)


@pytest.fixture(params=["clear", "openfhe", "native", "native-batch", "native-cuda"])
def deep_backend(request: pytest.FixtureRequest) -> Backend:
    """The backends with six levels."""
    return _backend(request.param)


@pytest.fixture(params=_NOISY)
def noisy_backend(request: pytest.FixtureRequest) -> Backend:
    """Those with a noise of their own: CUDA kernels give the very integers of the native ones."""
    return _backend(request.param)


@pytest.fixture(params=[*_NOISY, "native-cuda-shallow"])
def encrypted_backend(request: pytest.FixtureRequest) -> Backend:
    """The backends with keys and noise."""
    return _backend(request.param)
