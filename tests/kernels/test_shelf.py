"""Engines shared by all key owners of a process."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from tacit.kernels.build import build_if_stale
from tacit.params import CryptoParams, Security
from tacit.runtime.backends.native_shelf import EngineShelf
from tests.kernels.clients import client

SETS = [
    CryptoParams.choose(10, depth, 40, 50, 2, Security.UNCHECKED_INSECURE) for depth in (1, 2, 3)
]


@pytest.fixture(autouse=True)
def _compiled() -> None:
    if not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")


def test_all_owners_of_a_parameter_set_share_one_engine() -> None:
    shelf = EngineShelf()
    with ThreadPoolExecutor(4) as pool:
        engines = list(pool.map(shelf.shared_engine, SETS[:2] * 6))
    assert len(set(map(id, engines))) == 2
    assert all(engine.params is SETS[i % 2] for i, engine in enumerate(engines))
    assert shelf.shared_engine(SETS[0], threads=2) is not engines[0]
    assert {id(engine) for engine in engines} <= {id(engine) for engine in shelf.engines()}


def test_an_engine_in_use_is_found_however_many_came_after_it() -> None:
    shelf = EngineShelf(limit=1)
    keys = client(shelf.shared_engine(SETS[0]), (1,), 1)
    for params in SETS[1:]:
        shelf.shared_engine(params)
    assert shelf.shared_engine(SETS[0]) is keys.engine


def test_engines_that_nobody_uses_leave_beyond_the_limit() -> None:
    shelf = EngineShelf(limit=2)
    first = weakref.ref(shelf.shared_engine(SETS[0]))
    shelf.shared_engine(SETS[1])
    gc.collect()
    assert first() is not None
    shelf.shared_engine(SETS[2])
    gc.collect()
    assert first() is None
    assert len(shelf.engines()) == 2


def test_two_shelves_share_nothing() -> None:
    assert EngineShelf().shared_engine(SETS[0]) is not EngineShelf().shared_engine(SETS[0])
