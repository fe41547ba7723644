"""Evaluation keys that were damaged on the server's disk come back by themselves."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tacit import wire
from tacit.client.client import Client
from tacit.client.service import Service
from tacit.client.transport import HttpTransport
from tacit.errors import UnknownKeyError
from tacit.kernels.build import build_if_stale
from tacit.runtime.backends.loading import BackendName
from tacit.runtime.key_rules import key_expectation
from tacit.runtime.options import ServerOptions, WorkerLimits
from tacit.runtime.server import ServerHandle
from tests.e2e.customers import BOUND, MODEL, Customer
from tests.runtime.key_sets import random_key_set
from tests.runtime.models import write_repository

COLD = ServerOptions(workers=WorkerLimits(warm_start=False))
ROWS = np.linspace(-1, 1, MODEL.signature.params.slots)[:, None]


def flip(frames: list[Path]) -> None:
    content = bytearray(frames[0].read_bytes())
    content[9000] ^= 1
    frames[0].write_bytes(content)


def cut(frames: list[Path]) -> None:
    frames[0].write_bytes(frames[0].read_bytes()[:-100])


def empty(frames: list[Path]) -> None:
    frames[0].write_bytes(b"")


def remove(frames: list[Path]) -> None:
    frames[0].unlink()


def replace(frames: list[Path]) -> None:
    """A whole frame for the same purpose, of other keys: only its hash says so."""
    purpose = element_of(frames[0].read_bytes())
    others = random_key_set(MODEL.signature, seed=8).frames.values()
    frames[0].write_bytes(next(frame for frame in others if element_of(frame) == purpose))


def element_of(frame: bytes) -> int:
    return wire.decode_evaluation_key(frame, key_expectation(MODEL.signature)).galois_element


def forget_marker(frames: list[Path]) -> None:
    """As if the server had died after the last frame, before it noted that all are there."""
    (frames[0].parent.parent / "complete").unlink()


def damage_manifest(frames: list[Path]) -> None:
    (frames[0].parent.parent / "manifest.json").write_text("{")


Damage = Callable[[list[Path]], None]
DAMAGES: list[Damage] = [flip, cut, empty, remove, replace, forget_marker, damage_manifest]
# How many frames have to be sent again.
SENT = dict(zip(DAMAGES, [1, 1, 1, 1, 1, 0, 0], strict=True))


@pytest.mark.parametrize("running", [True, False], ids=["running", "restarted"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_the_client_sends_again_what_was_damaged_and_gets_its_answer(
    damage: Damage, running: bool, tmp_path: Path
) -> None:
    root = write_repository(tmp_path / "models", arithmetic=MODEL)
    server = ServerHandle(root, COLD)
    server.start()
    try:
        with Client(url_of(server), key_dir=tmp_path / "own", allow_insecure=True) as client:
            client.upload_keys("arithmetic")
            lengths = {e.sha256: e.length for e in client.keys_for("arithmetic").facts.frames}
        if not running:
            server.stop()
        frames = sorted((root / ".tacit-keys").rglob("frames/*"))
        damage(frames)
        if not running:
            server = ServerHandle(root, COLD)
            server.start()
        with Client(url_of(server), key_dir=tmp_path / "own", allow_insecure=True) as client:
            found = client.predict("arithmetic", ROWS, plan="batch")
            sent = client.last_timings.uploaded_bytes
    finally:
        server.stop()
    assert np.max(np.abs(found - ROWS - 0.5)) < BOUND
    assert sent == SENT[damage] * lengths[frames[0].name]


def url_of(server: ServerHandle) -> str:
    return f"http://127.0.0.1:{server.ports.http}"


@pytest.mark.parametrize("backend", list(BackendName), ids=lambda name: name.value)
def test_damage_is_named_and_costs_no_other_customer(tmp_path: Path, backend: BackendName) -> None:
    if backend is BackendName.NATIVE and not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")
    root = write_repository(tmp_path / "models", arithmetic=MODEL)
    first, second = Customer.make(tmp_path / "1"), Customer.make(tmp_path / "2")
    options = ServerOptions(workers=WorkerLimits(warm_start=False, backend=backend))
    with ServerHandle(root, options) as server:
        url = url_of(server)
        for customer in (first, second):
            customer.upload(url)
        flip(sorted((root / ".tacit-keys").rglob(f"{first.keys.key_id}/frames/*")))
        transport = HttpTransport(url, None, 60.0)
        with pytest.raises(UnknownKeyError, match="damaged: upload them again"):
            transport.infer(first.question(first.encrypt()))
        with Service(url) as service:
            assert not service.has_key(first.keys.key_id)
            assert service.has_key(second.keys.key_id)
        assert second.error(transport.infer(second.question(second.encrypt())).frames) < BOUND
        assert len(server.server.worker_pids()) == 1
        first.upload(url)
        assert first.error(transport.infer(first.question(first.encrypt())).frames) < BOUND


def test_damage_is_found_before_the_first_request_where_workers_start_ahead(
    tmp_path: Path,
) -> None:
    root = write_repository(tmp_path / "models", arithmetic=MODEL)
    with ServerHandle(root, COLD) as server:
        customer = Customer.make(tmp_path / "own")
        customer.upload(url_of(server))
    flip(sorted((root / ".tacit-keys").rglob("frames/*")))
    with ServerHandle(root) as server, Service(url_of(server)) as service:
        assert service.has_key(customer.keys.key_id)  # not read yet: this starts the worker
        for _ in range(1000):
            if not service.has_key(customer.keys.key_id):
                break
        assert not service.has_key(customer.keys.key_id)
        assert server.server.key_sets_loaded() == 0
