"""The relay between parties: written once, members only, within quotas, durable."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tacit.errors import (
    ChecksumError,
    MissingPartyError,
    OversizedError,
    PartyError,
    TacitError,
    WriteOnceError,
)
from tacit.params import CryptoParams, Security
from tacit.party_entry import Blob, Entry, SignedEntry
from tacit.party_terms import Column, SessionTerms
from tacit.runtime.options import ServerOptions
from tacit.runtime.party_store import Member, PartyLimits, PartyStore
from tacit.runtime.refusals import (
    BadRequestError,
    BusyError,
    ForbiddenError,
    StorageError,
    UnknownSessionError,
)
from tacit.runtime.server import ServerHandle
from tests.runtime.models import arithmetic_artifact, write_repository

PARAMS = CryptoParams.choose(8, 2, 50, 60, 2, security=Security.UNCHECKED_INSECURE)
LIMITS = PartyLimits(sessions=2, session_bytes=100, entries=6, seconds_to_live=1000.0)


def terms(nonce: int = 0) -> SessionTerms:
    columns = (Column("age", 0, 120),)
    names = ("north", "south")
    return SessionTerms("x", names, PARAMS, (), False, columns, 9, f"{nonce:032x}", step_seconds=60)


class Clock:
    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        import time

        return time.time() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> PartyStore:
    return PartyStore(tmp_path, LIMITS, clock)


@pytest.fixture
def north(store: PartyStore) -> Member:
    tokens = store.create("clinic", terms())
    return store.member(terms().session, tokens["north"])


def entry(
    step: str = "hello", party: int = 0, blobs: tuple[Blob, ...] = (), **body: object
) -> bytes:
    said = Entry(terms().session, step, party, "00" * 32, body, blobs)
    return SignedEntry(said, bytes(64)).to_bytes()


def upload(store: PartyStore, member: Member, content: bytes) -> str:
    sha256 = hashlib.sha256(content).hexdigest()
    with store.open_blob(member, sha256, len(content)) as arriving:
        arriving.write(content)
        arriving.finish()
    return sha256


def test_an_entry_is_written_once(store: PartyStore, north: Member) -> None:
    assert store.add_entry(north, "hello", 0, entry(n=1))
    assert not store.add_entry(north, "hello", 0, entry(n=1))
    with pytest.raises(WriteOnceError, match="another entry"):
        store.add_entry(north, "hello", 0, entry(n=2))
    assert store.entry(north.session, "hello", 0) == entry(n=1)


def test_a_party_writes_only_its_own_entries_where_it_may(store: PartyStore, north: Member) -> None:
    for step, party, error in (
        ("hello", 1, ForbiddenError),
        ("nonsense", 0, PartyError),
        ("seed", 0, PartyError),
    ):
        with pytest.raises(error):
            store.add_entry(north, step, party, entry("hello", party))
    south = Member(north.session, 1)
    with pytest.raises(ForbiddenError, match="steps it writes in"):
        store.add_entry(south, "key", 1, entry("key", 1))


def test_an_entry_waits_for_its_payloads(store: PartyStore, north: Member) -> None:
    sha256 = hashlib.sha256(b"payload").hexdigest()
    named = entry("share", 0, (Blob("x", sha256, 7),))
    with pytest.raises(PartyError, match="has not been sent"):
        store.add_entry(north, "share", 0, named)
    assert upload(store, north, b"payload") == sha256
    assert store.present(north, [sha256, "00" * 32]) == [sha256]
    assert store.add_entry(north, "share", 0, named)
    assert store.blob_path(north.session, sha256).read_bytes() == b"payload"
    with pytest.raises(PartyError, match="has not been sent"):
        store.add_entry(north, "relin", 0, entry("relin", 0, (Blob("x", sha256, 8),)))


def test_payloads_are_what_they_were_declared(store: PartyStore, north: Member) -> None:
    sha256 = hashlib.sha256(b"payload").hexdigest()
    with store.open_blob(north, sha256, 7) as arriving, pytest.raises(OversizedError):
        arriving.write(b"payload!")
    with store.open_blob(north, sha256, 7) as arriving:
        arriving.write(b"another")
        with pytest.raises(ChecksumError):
            arriving.finish()
    with pytest.raises(BadRequestError, match="Content-Length"):
        store.open_blob(north, sha256, None)
    with pytest.raises(BadRequestError, match="hexadecimal"):
        store.open_blob(north, "../../etc/passwd", 7)
    with pytest.raises(MissingPartyError):
        store.blob_path(north.session, sha256)


def test_a_partys_quota_counts_what_it_sent_and_is_sending(
    store: PartyStore, north: Member
) -> None:
    upload(store, north, b"x" * 60)
    with pytest.raises(StorageError, match="quota"):
        upload(store, north, b"y" * 41)
    with store.open_blob(north, "00" * 32, 40), pytest.raises(StorageError):
        store.open_blob(north, "01" * 32, 1)
    upload(store, north, b"z" * 40)
    upload(store, Member(north.session, 1), b"y" * 41)


def test_entries_and_sessions_are_bounded(store: PartyStore, north: Member) -> None:
    for i in range(LIMITS.entries):
        store.add_entry(north, f"a{i}.commit", 0, entry(f"a{i}.commit"))
    with pytest.raises(StorageError, match="at most 6 entries"):
        store.add_entry(north, "hello", 0, entry())
    store.create("clinic", terms(1))
    with pytest.raises(BusyError, match="2 sessions at most"):
        store.create("clinic", terms(2))
    store.create("another tenant", terms(2))
    with pytest.raises(WriteOnceError, match="created before"):
        store.create("clinic", terms(1))


def test_tokens_open_their_own_session_only(store: PartyStore) -> None:
    first, second = store.create("a", terms(0)), store.create("b", terms(1))
    assert store.member(terms(0).session, first["south"]).party == 1
    for token in (second["south"], "", "x" * 32):
        with pytest.raises(ForbiddenError):
            store.member(terms(0).session, token)
    with pytest.raises(UnknownSessionError):
        store.member("00" * 32, first["south"])
    with pytest.raises(UnknownSessionError):
        store.delete("b", terms(0).session)
    store.delete("a", terms(0).session)
    with pytest.raises(UnknownSessionError):
        store.member(terms(0).session, first["south"])


def test_a_store_opened_again_has_everything(store: PartyStore, tmp_path: Path) -> None:
    tokens = store.create("clinic", terms())
    member = store.member(terms().session, tokens["south"])
    upload(store, member, b"payload")
    store.add_entry(member, "hello", 1, entry("hello", 1))
    (tmp_path / terms().session / "entries" / ".left.part").write_bytes(b"half")
    again = PartyStore(tmp_path, LIMITS)
    again.hold()
    again.close()
    assert again.member(terms().session, tokens["south"]) == member
    assert again.entry(terms().session, "hello", 1) == entry("hello", 1)
    assert not (tmp_path / terms().session / "entries" / ".left.part").exists()
    with pytest.raises(WriteOnceError):
        again.add_entry(member, "hello", 1, entry("hello", 1, n=2))


def test_the_state_names_who_is_missing_and_who_is_late(
    store: PartyStore, north: Member, clock: Clock
) -> None:
    assert store.state(north.session)["steps"] == {}
    store.add_entry(north, "hello", 0, entry())
    state = store.state(north.session)
    assert state["steps"] == {"hello": {"parties": [0], "missing": ["south"]}}
    assert state["overdue"] is False
    clock.ahead = 100.0
    assert store.state(north.session)["overdue"] is True


def test_sessions_in_which_nothing_happens_are_removed(
    store: PartyStore, north: Member, clock: Clock
) -> None:
    assert store.expire() == 0
    clock.ahead = 2000.0
    assert store.expire() == 1
    with pytest.raises(UnknownSessionError):
        store.state(north.session)


def test_a_full_disk_is_a_refusal_and_loses_nothing(
    store: PartyStore, north: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest: Callable[..., None] = os.link

    def full(*paths: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(StorageError, match="disk is full"):
        store.add_entry(north, "hello", 0, entry())
    monkeypatch.setattr(os, "link", honest)
    assert store.add_entry(north, "hello", 0, entry())


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = write_repository(tmp_path_factory.mktemp("models"), arithmetic=arithmetic_artifact())
    with ServerHandle(root, ServerOptions(parties=LIMITS)) as handle:
        yield f"http://127.0.0.1:{handle.ports.http}"


def test_the_routes_answer_with_codes(url: str) -> None:
    with httpx.Client(base_url=url) as client:
        made = client.post("/v1/parties", json=terms().to_json()).json()
        session, token = made["session"], {"tacit-party-token": made["tokens"]["north"]}
        base = f"/v1/parties/{session}"
        assert client.get(base).json()["code"] == "forbidden"
        assert client.get(base, headers=token).json()["steps"] == {}
        put = f"{base}/entries/hello/0"
        assert client.put(put, content=entry(), headers=token).json()["new"] is True
        assert client.put(put, content=entry(), headers=token).json()["new"] is False
        again = client.put(put, content=entry(n=2), headers=token)
        assert (again.status_code, again.json()["code"]) == (409, "party_write_once")
        assert client.get(put, headers=token).content == entry()
        missing = client.get(f"{base}/entries/hello/1", headers=token).json()
        assert missing["code"] == "party_missing"
        assert "'south'" in missing["error"]
        for path, status in (
            (f"{base}/entries/hello/x", 400),
            (f"{base}/entries/what/0", 400),
            (f"{base}/blobs/zz", 400),
            (f"{base}/blobs/{'00' * 32}", 409),
            (f"/v1/parties/{'00' * 32}", 404),
            ("/v1/parties/..%2f..%2fetc", 404),
        ):
            answer = client.get(path, headers=token)
            assert answer.status_code == status, path
            assert set(answer.json()) == {"error", "code"}
        content, sha256 = b"payload", hashlib.sha256(b"payload").hexdigest()
        blob = f"{base}/blobs/{sha256}"
        assert client.put(blob, content=b"pay10ad", headers=token).status_code == 422
        assert client.put(blob, content=content, headers=token).status_code == 200
        assert client.get(blob, headers=token).content == content
        assert client.put(blob, content=b"x" * 200, headers=token).status_code == 507
        assert client.delete(base, headers=token).json()["deleted"] is True
        assert client.get(base, headers=token).status_code == 404


@pytest.mark.parametrize("body", [b"{}", b"[]", b"\xff", b'{"format": 1}', b"[" * 5000])
def test_what_are_no_terms_make_no_session(url: str, body: bytes) -> None:
    answer = httpx.post(f"{url}/v1/parties", content=body)
    assert 400 <= answer.status_code < 500
    assert isinstance(answer.json()["code"], str)


def test_refusals_are_all_ours() -> None:
    assert issubclass(UnknownSessionError, TacitError)
