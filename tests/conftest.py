"""Settings shared by all tests: one OpenMP thread, set before anything imports openfhe.

Generated examples are the same in every run, so that a change that breaks nothing is not refused by
an example nobody saw before; `TACIT_EXPLORE=1` looks for new ones.

Keys are large, and OpenFHE keeps them in tables of the process: what the tests of a file or folder
made once is let go when they are over.
"""

import ctypes
import gc
import os
import sys
from functools import _lru_cache_wrapper
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

settings.register_profile(
    "tacit",
    deadline=None,
    derandomize=not os.environ.get("TACIT_EXPLORE"),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("tacit")


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Let go of what is not needed any more, after the last test of a file and of a folder."""
    if nextitem is not None and nextitem.path == item.path:
        return
    file = item.getparent(pytest.Module)
    if file is not None:
        _empty_caches(file.obj)
    folder = _folder(item)
    if nextitem is None or _folder(nextitem) != folder:
        for name, module in list(sys.modules.items()):
            if name.startswith(f"tests.{folder}."):
                _empty_caches(module)
        gc.collect()
        _empty_openfhe()


def _folder(item: pytest.Item) -> str:
    return item.path.relative_to(Path(__file__).parent).parts[0]


def _empty_caches(module: ModuleType) -> None:
    for value in list(vars(module).values()):
        if isinstance(value, _lru_cache_wrapper) and value.__module__ == module.__name__:
            value.cache_clear()


def _empty_openfhe() -> None:
    """Empty OpenFHE's tables of keys, and give free memory back to the system."""
    openfhe = sys.modules.get("openfhe")
    if openfhe is None:
        return
    openfhe.ClearEvalMultKeys()
    openfhe.CryptoContext.ClearEvalAutomorphismKeys()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
