"""Compiled kernels, built when they are missing or stale."""

from __future__ import annotations

import ctypes

import pytest

from tacit.kernels.build import build_if_stale
from tacit.kernels.library import InstructionSet, available, load


@pytest.fixture(scope="session")
def library() -> ctypes.CDLL:
    if not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")
    return load()


@pytest.fixture(params=list(InstructionSet), ids=lambda path: path.name.lower())
def instructions(request: pytest.FixtureRequest, library: ctypes.CDLL) -> InstructionSet:
    chosen: InstructionSet = request.param
    if chosen not in available(library):
        pytest.skip(f"this processor or this build has no {chosen.name}")
    return chosen
