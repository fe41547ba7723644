from collections.abc import Iterator
from pathlib import Path

import pytest

from tacit.client.client import Client
from tacit.client.keys import KeyPair
from tacit.runtime.server import ServerHandle
from tacit.signature import Signature
from tests.client.served import compile_squared
from tests.client.tiny import tiny_signature


@pytest.fixture(scope="session")
def signature() -> Signature:
    return tiny_signature()


@pytest.fixture(scope="session")
def keys(signature: Signature, tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return KeyPair.generate(
        signature.params,
        signature.rotations,
        signature.relinearization,
        tmp_path_factory.mktemp("frames"),
        allow_insecure=True,
    )


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    compile_squared(root / "squared" / "1")
    return root


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[ServerHandle]:
    with ServerHandle(repository) as running:
        yield running


@pytest.fixture(scope="module")
def url(server: ServerHandle) -> str:
    return f"http://127.0.0.1:{server.ports.http}"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home") / "keys"


@pytest.fixture
def client(url: str, home: Path) -> Iterator[Client]:
    with Client(url, key_dir=home, allow_insecure=True, timeout=60) as made:
        yield made
