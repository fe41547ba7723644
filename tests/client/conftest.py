import pytest

from tacit.client.keys import KeyPair
from tacit.signature import Signature
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
