"""Joint keys of three parties: both backends compute with them, results need every party."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from tacit.client.party import Party, terms_for
from tacit.client.party_decrypt import Request
from tacit.client.party_keys import KeyGeneration
from tacit.client.party_secret import PartySecret
from tacit.client.party_session import PartySession
from tacit.client.service import Service
from tacit.client.transport import HttpTransport, Question
from tacit.errors import (
    KeyFileError,
    MissingPartyError,
    ParameterError,
    ParameterMismatchError,
    PartyError,
    UnsupportedKeysError,
    UserError,
    WrongShareError,
)
from tacit.kernels.build import build_if_stale
from tacit.openfhe_bytes import ForeignCiphertext
from tacit.params import CryptoParams, SecretDistribution, Security
from tacit.runtime.backends.loading import BackendName
from tacit.runtime.session import Session
from tests.client.parties import (
    COLUMNS,
    MODEL,
    NAMES,
    PARAMS,
    PATIENCE,
    failures,
    parties,
    relay,
    terms,
    together,
)
from tests.runtime.models import arithmetic_artifact

Limbs = NDArray[np.uint64]
PLAN = MODEL.signature.plan("latency")
# Noise below 2^12 in coefficients, 6 bits of smudging: the terms leave 20 bits of precision; a slot
# is off by more than 2^-8 at 4000 deviations only.
NOISE_BITS = 14.0
BOUND = 2.0**-8


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with relay(tmp_path_factory.mktemp("models")) as served:
        yield served


@pytest.fixture(scope="module")
def members(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Party]]:
    with parties(url, tmp_path_factory.mktemp("parties"), terms()) as joined:
        together(joined, lambda party: party.keygen(seconds=PATIENCE))
        yield joined


@pytest.mark.parametrize("backend", list(BackendName), ids=lambda name: name.value)
def test_both_backends_compute_on_the_union_with_joint_keys(
    members: list[Party], backend: BackendName
) -> None:
    if backend is BackendName.NATIVE and not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")
    models = [party.model() for party in members]
    frames = [models[0].folder.file(f).read_bytes() for f in models[0].facts.frames]
    session = Session.open(MODEL, frames, backend=backend)
    values = np.random.default_rng(3).uniform(-1, 1, PARAMS.slots)
    share = PARAMS.slots // 3
    parts = np.zeros((3, 1, 1, PARAMS.slots))
    for i in range(3):
        own = slice(i * share, (i + 1) * share if i < 2 else PARAMS.slots)
        parts[i, 0, 0, own] = values[own]
    encrypted = [model.encrypt(PLAN, part)[0][0] for model, part in zip(models, parts, strict=True)]
    union = models[0].added(encrypted, PARAMS.depth)
    (answer,) = session.run("latency", [union]).frames
    name = f"answer-{backend.value}"
    asked = Request(PARAMS.depth - 1, 1, NOISE_BITS, 1, "a test")
    models[0].request(name, [bytes(answer)], asked)
    read = together(members, lambda party: party.model().decrypt(name, seconds=PATIENCE))
    expected = np.roll(values**2, -3) + 0.25
    for slots in read:
        assert np.abs(slots[0] - expected).max() < BOUND


def test_a_server_takes_joint_keys_like_those_of_one_owner(url: str, members: list[Party]) -> None:
    lead, other = members[0].model(), members[1].model()
    values = np.random.default_rng(4).uniform(-1, 1, PARAMS.slots)
    with Service(url) as service:
        with pytest.raises(UserError, match="'north'"):
            other.upload_keys(service)
        assert lead.upload_keys(service) == lead.facts.key_bytes
        assert lead.upload_keys(service) == 0
        assert service.has_key(other.key_id)
    frames = other.encrypt(PLAN, values[None, None])
    question = Question("arithmetic", "1", "latency", other.key_id, frames)
    ((answer,),) = HttpTransport(url, None, PATIENCE).infer(question).frames
    lead.request("served", [answer], Request(PARAMS.depth - 1, 1, NOISE_BITS, 1, "a test"))
    read = together(members, lambda party: party.model().decrypt("served", seconds=PATIENCE))
    assert np.abs(read[2][0] - np.roll(values**2, -3) - 0.25).max() < BOUND


def test_every_party_knows_the_same_key_and_nobody_the_secret(members: list[Party]) -> None:
    assert len({party.model().key_id for party in members}) == 1
    secrets = [party.session.folder.read_secret("secret.key") for party in members]
    assert len(set(secrets)) == len(members)


def test_shares_never_leave_a_party_in_clear(members: list[Party]) -> None:
    """Neither the secret nor a share of a result is among the bytes that the relay keeps."""
    for party in members:
        folder = party.session.folder
        sent = b"".join(path.read_bytes() for path in (folder.path / "blobs").iterdir())
        secret = folder.read_secret("secret.key")
        assert secret[len(secret) // 2 :][:64] not in sent
        for share in (folder.path / "planned").glob("*.share.key"):
            content = folder.read_secret(f"planned/{share.name}")
            assert content[len(content) // 2 :][:64] not in sent


def test_the_first_party_alone_asks_and_for_what_was_agreed(members: list[Party]) -> None:
    lead, other = members[0].model(), members[1].model()
    frame = lead.encrypt(PLAN, np.zeros((1, 1, PARAMS.slots)))[0][0]
    asked = Request(PARAMS.depth, 1, NOISE_BITS, 1, "weights")
    with pytest.raises(PartyError, match="first party"):
        other.request("purpose", [frame], asked)
    lead.request("purpose", [frame], asked)
    with pytest.raises(PartyError, match="'weights', not for 'validation'"):
        other.decrypt("purpose", purpose="validation", seconds=PATIENCE)


def test_no_ciphertext_is_decrypted_twice(members: list[Party]) -> None:
    lead = members[0].model()
    frame = lead.encrypt(PLAN, np.zeros((1, 1, PARAMS.slots)))[0][0]
    for name in ("once", "twice"):
        lead.request(name, [frame], Request(PARAMS.depth, 1, NOISE_BITS, 1, "a test"))
    together(members, lambda party: party.model().decrypt("once", seconds=PATIENCE))
    again = together(members, lambda party: party.model().decrypt("once", seconds=PATIENCE))
    assert np.abs(again[0]).max() < BOUND
    for party in members:
        with pytest.raises(PartyError, match="already"):
            party.model().decrypt("twice", seconds=PATIENCE)


def test_smudging_that_leaves_too_little_precision_is_refused(members: list[Party]) -> None:
    lead = members[0].model()
    frame = lead.encrypt(PLAN, np.zeros((1, 1, PARAMS.slots)))[0][0]
    with pytest.raises(ParameterError, match="bits of precision"):
        lead.request("blurred", [frame], Request(PARAMS.depth, 1, 30.0, 1, "a test"))


def test_a_party_that_disappears_is_named(members: list[Party]) -> None:
    lead = members[0].model()
    frame = lead.encrypt(PLAN, np.zeros((1, 1, PARAMS.slots)))[0][0]
    lead.request("alone", [frame], Request(PARAMS.depth, 1, NOISE_BITS, 1, "a test"))
    with pytest.raises(MissingPartyError, match=r"'alone\.share' waits for south, west"):
        lead.decrypt("alone", seconds=0.5)
    assert members[0].status().activities["alone.share"] == ("south", "west")


def test_keys_of_another_model_are_refused(members: list[Party]) -> None:
    members[0].model().check(MODEL.signature)
    with pytest.raises(ParameterMismatchError, match="begin a session"):
        members[0].model().check(arithmetic_artifact(PARAMS, shift=5).signature)


def test_circuits_that_bootstrap_are_refused_by_name() -> None:
    plan = dataclasses.replace(PLAN, bootstraps=True)
    signature = dataclasses.replace(MODEL.signature, plans=(plan,))
    with pytest.raises(UnsupportedKeysError, match="bootstraps"):
        terms_for(signature, "x", NAMES, COLUMNS, 10)
    sparse = CryptoParams.choose(
        10, 3, 50, 60, 2, Security.UNCHECKED_INSECURE, SecretDistribution.SPARSE_ENCAPSULATED
    )
    with pytest.raises(UnsupportedKeysError, match="sparse secret"):
        terms(params=sparse)


def test_a_folder_whose_secret_was_replaced_makes_no_shares(members: list[Party]) -> None:
    theirs = members[1].session.folder.read_secret("secret.key")
    folder = members[2].session.folder
    own = folder.read_secret("secret.key")
    folder.write_secret("secret.key", theirs)
    try:
        with pytest.raises(KeyFileError, match="not the one of this session"):
            KeyGeneration(members[2].session, members[2]._keys.context).secret()
    finally:
        folder.write_secret("secret.key", own)


def test_a_transcript_is_checked_without_the_relay(members: list[Party]) -> None:
    assert members[0].verify() >= 7 * len(members) + 1
    status = members[0].status()
    assert (status.step, status.missing, status.ended) == ("", (), False)
    assert status.fingerprint == members[1].status().fingerprint


def test_a_wrong_share_of_a_result_is_noticed_by_everybody(
    members: list[Party], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Well-formed, and of another ciphertext: no formula of its own gives it away."""
    lead = members[0].model()
    frames = lead.encrypt(PLAN, np.random.default_rng(6).uniform(-1, 1, (2, 1, PARAMS.slots)))
    lead.request("wrong", [frames[0][0]], Request(PARAMS.depth, 1, NOISE_BITS, 1, "a test"))
    other = lead.read(frames[1][0], PARAMS.depth)
    honest = PartySecret.partial_decryption
    cheat = members[2]._keys.secret()

    def share(self: PartySecret, ciphertext: ForeignCiphertext, *, leads: bool) -> Limbs:
        if self is cheat:
            ciphertext = dataclasses.replace(ciphertext, limbs=other.limbs)
        return honest(self, ciphertext, leads=leads)

    monkeypatch.setattr(PartySecret, "partial_decryption", share)
    found = failures(members, lambda party: party.model().decrypt("wrong", seconds=PATIENCE))
    for error in found:
        assert isinstance(error, WrongShareError)
        assert "do not fit together" in str(error)


def test_a_share_that_cannot_be_opened_names_its_party(
    members: list[Party], monkeypatch: pytest.MonkeyPatch
) -> None:
    lead = members[0].model()
    frame = lead.encrypt(PLAN, np.zeros((1, 1, PARAMS.slots)))[0][0]
    lead.request("sealed", [frame], Request(PARAMS.depth, 1, NOISE_BITS, 1, "a test"))
    honest = PartySession.sealed

    def sealed(self: PartySession, message: bytes, step: str) -> bytes:
        made = honest(self, message, step)
        return made[:-1] + bytes([made[-1] ^ 1]) if self.party == 1 else made

    monkeypatch.setattr(PartySession, "sealed", sealed)
    found = failures(members, lambda party: party.model().decrypt("sealed", seconds=PATIENCE))
    assert found[1] is None
    for error in (found[0], found[2]):
        assert isinstance(error, WrongShareError)
        assert "a share of 'south' is malformed" in str(error)
