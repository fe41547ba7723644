"""One echo server for the protocol tests of a module."""

from collections.abc import Iterator

import pytest

from tacit.runtime.listeners import Ports
from tacit.runtime.server import ServerHandle
from tests.runtime.echo import EchoExecutor, echo_server
from tests.runtime.models import LARGE, TINY_INSECURE, echo_artifact, write_repository


@pytest.fixture(scope="module")
def executor() -> EchoExecutor:
    return EchoExecutor()


@pytest.fixture(scope="module")
def handle(
    tmp_path_factory: pytest.TempPathFactory, executor: EchoExecutor
) -> Iterator[ServerHandle]:
    root = write_repository(
        tmp_path_factory.mktemp("models"),
        echo=echo_artifact(LARGE),
        wide=echo_artifact(TINY_INSECURE, 3),
    )
    with echo_server(root, executor) as running:
        yield running


@pytest.fixture(scope="module")
def ports(handle: ServerHandle) -> Ports:
    return handle.ports
