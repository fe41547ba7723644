"""Trimmed keys from client to server: smaller, and the answers of full keys limb for limb."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tacit.artifact import Artifact, save
from tacit.client.client import Client
from tacit.client.codec import Codec
from tacit.client.keys import KeyPair
from tacit.client.service import KeyDeclaration, Service
from tacit.client.transport import HttpTransport, Question
from tacit.errors import OversizedError, ParameterMismatchError, UnknownKeyError
from tacit.kernels.build import build_if_stale
from tacit.key_levels import KeyLevels
from tacit.packing import core_inputs, pack
from tacit.runtime.backends.loading import BackendName
from tacit.runtime.options import ServerOptions, WorkerLimits
from tacit.runtime.server import ServerHandle
from tacit.signature import Plan
from tests.client.key_pairs import full_pair, payload, readdressed, trimmed_pair
from tests.client.served import BOUND, ROWS, clear_answer, compile_squared
from tests.e2e.customers import Customer
from tests.runtime.models import arithmetic_artifact

CHOSEN = ROWS[:3]


@dataclasses.dataclass(frozen=True)
class Setting:
    """One model asked for with keys of one secret: full, and trimmed as it wants them."""

    model: Artifact
    full_model: Artifact
    full: KeyPair
    trimmed: KeyPair
    server: ServerHandle

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.ports.http}"

    def upload(self, keys: KeyPair, model: Artifact) -> None:
        facts = keys.facts
        declared = KeyDeclaration(
            keys.key_id, facts.params.digest.hex(), model.signature.key_config, facts.frames
        )
        with Service(self.url) as service:
            missing = service.declare_keys(declared)
            for entry in facts.frames:
                if entry.sha256 in missing:
                    path = keys.folder.file(entry)
                    service.upload_frame(keys.key_id, entry, path, lambda count: None)
            assert service.has_key(keys.key_id)


def _untrimmed(model: Artifact) -> Artifact:
    """The same model as an older compiler would have written it."""
    signature = model.signature
    plans = tuple(dataclasses.replace(plan, key_levels=None) for plan in signature.plans)
    return dataclasses.replace(
        model, signature=dataclasses.replace(signature, plans=plans, model="full")
    )


@pytest.fixture(scope="module", params=list(BackendName), ids=lambda name: name.value)
def setting(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Setting]:
    backend: BackendName = request.param
    if backend is BackendName.NATIVE and not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")
    root = tmp_path_factory.mktemp("models")
    model = compile_squared(root / "squared" / "1")
    older = save(_untrimmed(model), root / "full" / "1")
    folder = tmp_path_factory.mktemp("keys")
    full = full_pair(model.signature, folder / "full")
    trimmed = trimmed_pair(full, model.signature, folder / "trimmed")
    options = ServerOptions(workers=WorkerLimits(backend=backend))
    with ServerHandle(root, options) as server:
        yield Setting(model, older, full, trimmed, server)


def _ask(
    setting: Setting, model: Artifact, keys: KeyPair, frames: list[list[bytes]]
) -> list[bytes]:
    signature = model.signature
    question = Question(signature.model, "1", "latency", keys.key_id, frames)
    reply = HttpTransport(setting.url, None, 60.0).infer(question)
    return [bytes(frame) for row in reply.frames for frame in row]


def test_answers_are_those_of_full_keys_limb_for_limb(setting: Setting) -> None:
    plan = setting.model.signature.plan("latency")
    codec = Codec(setting.full_model.signature, setting.full)
    packed = pack(plan, core_inputs(setting.model.signature, {"x": CHOSEN}))
    sent = codec.encrypt(plan, packed)
    again = [[readdressed(bytes(frame), setting.trimmed) for frame in row] for row in sent]
    setting.upload(setting.full, setting.full_model)
    setting.upload(setting.trimmed, setting.model)
    wanted = _ask(setting, setting.full_model, setting.full, [[bytes(f) for f in r] for r in sent])
    found = _ask(setting, setting.model, setting.trimmed, again)
    assert [payload(frame) for frame in found] == [payload(frame) for frame in wanted]


def test_a_client_makes_and_uploads_what_the_model_asks_for(
    setting: Setting, tmp_path: Path
) -> None:
    heard: list[tuple[str, int, int]] = []
    with Client(
        setting.url,
        key_dir=tmp_path,
        allow_insecure=True,
        timeout=60,
        progress=lambda *event: heard.append(event),
    ) as client:
        found = client.predict("squared", CHOSEN)
        facts = client.keys_for("squared").facts
    assert np.abs(found - clear_answer(CHOSEN)).max() < BOUND
    assert facts.made == setting.model.signature.needed_keys
    assert facts.key_bytes == setting.trimmed.facts.key_bytes
    assert facts.full_key_bytes == setting.full.facts.key_bytes > facts.key_bytes
    sizes = [total for stage, _, total in heard if stage == "upload"]
    assert set(sizes) == {facts.key_bytes}
    assert ("upload", facts.key_bytes, facts.key_bytes) in heard


def test_keys_with_more_limbs_than_the_model_asks_for_are_refused(
    setting: Setting, tmp_path: Path
) -> None:
    with pytest.raises(OversizedError, match="declared"):
        setting.upload(full_pair(setting.model.signature, tmp_path), setting.model)


def test_keys_of_another_trimming_do_not_open_a_model(setting: Setting) -> None:
    setting.upload(setting.trimmed, setting.model)
    with pytest.raises(ParameterMismatchError, match="another configuration"):
        _ask(setting, setting.full_model, setting.trimmed, [[b""]])


def test_a_circuit_that_uses_a_key_above_its_level_is_refused_by_node(tmp_path: Path) -> None:
    """The signature promises the rotation at level 1; the circuit makes it at level 2."""
    model = arithmetic_artifact()
    latency, batch = model.signature.plans
    levels = KeyLevels({3: 1}, 3)
    plans = (dataclasses.replace(latency, key_levels=levels), _unkeyed(batch))
    signature = dataclasses.replace(model.signature, plans=plans)
    root = tmp_path / "models"
    save(dataclasses.replace(model, signature=signature), root / "arithmetic" / "1")
    customer = Customer.make(tmp_path / "own", dataclasses.replace(model, signature=signature))
    with ServerHandle(root, ServerOptions()) as server:
        url = f"http://127.0.0.1:{server.ports.http}"
        customer.upload(url)
        with pytest.raises(UnknownKeyError, match=r"node 2 .*rotations by 3 slots at level 2.*"):
            HttpTransport(url, None, 60.0).infer(customer.question(customer.encrypt()))


def _unkeyed(plan: Plan) -> Plan:
    return dataclasses.replace(plan, key_levels=KeyLevels())
