"""One echo server for the protocol tests of a module."""

from collections.abc import Iterator

import pytest

from tacit import artifact
from tacit.runtime.listeners import Ports
from tacit.runtime.server import ServerHandle
from tacit.runtime.worker import ModelPlace
from tests.runtime.echo import EchoExecutor, echo_server
from tests.runtime.models import LARGE, TINY_INSECURE, echo_artifact, write_repository
from tests.runtime.worker_customers import MODEL, Customer, customer


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


@pytest.fixture(scope="session")
def customers(tmp_path_factory: pytest.TempPathFactory) -> list[Customer]:
    return [customer(tmp_path_factory.mktemp(name), name) for name in ("x", "y", "z")]


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> ModelPlace:
    root = write_repository(tmp_path_factory.mktemp("models"), arithmetic=MODEL)
    directory = root / "arithmetic" / "1"
    return ModelPlace(directory, artifact.load(directory).signature.private_digest)
