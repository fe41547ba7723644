"""Servers that several files of tests use, one for each file."""

from collections.abc import Iterator

import pytest

from tacit.kernels.build import build_if_stale
from tacit.runtime.server import ServerHandle
from tests.e2e.serve_training import options


@pytest.fixture(scope="module")
def training_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerHandle]:
    if not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")
    with ServerHandle(tmp_path_factory.mktemp("models"), options()) as handle:
        yield handle
