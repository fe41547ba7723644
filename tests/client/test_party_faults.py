"""What goes wrong between parties: wrong shares, second answers, two histories, restarts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tacit.client.party import Party
from tacit.client.party_folder import PartyFolder
from tacit.client.party_keys import KeyGeneration
from tacit.client.party_public import JointPublicKey
from tacit.client.party_relay import Relay
from tacit.client.party_secret import PartySecret
from tacit.client.party_session import PartySession
from tacit.errors import (
    ChecksumError,
    DirectoryInUseError,
    MissingPartyError,
    PartyError,
    SchemaMismatchError,
    ServiceError,
    TranscriptError,
    WriteOnceError,
    WrongShareError,
)
from tacit.key_levels import KeyLevels
from tacit.params import CryptoParams, Security
from tacit.party_entry import KEY_STEPS, Blob, Entry, SignedEntry
from tacit.party_frame import ShareKind
from tests.client.parties import PATIENCE, failures, parties, relay, terms, together

Limbs = NDArray[np.uint64]
MINUTE = CryptoParams.choose(8, 2, 50, 60, 2, security=Security.UNCHECKED_INSECURE)
PAIR = ("north", "south")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with relay(tmp_path_factory.mktemp("models")) as served:
        yield served


def keygen(party: Party) -> object:
    return party.keygen(seconds=PATIENCE)


def changed(limbs: Limbs) -> Limbs:
    """A share with one residue of its last limb changed by one."""
    wrong = limbs.copy()
    wrong.reshape(-1, *limbs.shape[-2:])[0, -1, 5] ^= np.uint64(1)
    return wrong


WRONG_SHARES = {
    ShareKind.PUBLIC_KEY: "its public key share",
    ShareKind.RELINEARIZATION: "its first share of the relinearisation key",
    ShareKind.RELINEARIZATION_PRODUCT: "its second share of the relinearisation key",
    ShareKind.ROTATION: "its share of rotation key 5",
    ShareKind.PARTIAL_DECRYPTION: "its share of the test's decryption",
}


QUICK = (ShareKind.ROTATION, ShareKind.RELINEARIZATION_PRODUCT)


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=() if k in QUICK else pytest.mark.slow) for k in WRONG_SHARES],
    ids=lambda kind: kind.name,
)
def test_a_wrong_share_is_found_and_its_party_named(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: ShareKind
) -> None:
    honest = KeyGeneration._share

    def share(
        self: KeyGeneration,
        label: str,
        kind_sent: ShareKind,
        element: int,
        limbs: Limbs,
        moduli: tuple[int, ...],
    ) -> Blob:
        wrong = self.session.party == 1 and kind_sent is kind
        limbs = changed(limbs) if wrong else limbs
        return honest(self, label, kind_sent, element, limbs, moduli)

    def secret(self: KeyGeneration) -> PartySecret:
        """Read the secret without comparing it with the public share, as a cheat would."""
        return PartySecret.from_bytes(self.context, self.session.folder.read_secret("secret.key"))

    monkeypatch.setattr(KeyGeneration, "_share", share)
    monkeypatch.setattr(KeyGeneration, "secret", secret)
    # Trimmed keys: the rotation is for level 1, conjugation for the last one.
    agreed = terms(
        int(kind),
        PAIR,
        params=MINUTE,
        rotations=(1,),
        conjugation=True,
        key_levels=KeyLevels({1: 1}, 2, 0),
    )
    with parties(url, tmp_path, agreed) as members:
        for error in failures(members, keygen):
            assert isinstance(error, WrongShareError)
            assert f"'south' sent {WRONG_SHARES[kind]} wrongly" in str(error)
            assert "This session has ended" in str(error)
            assert "'north'" not in str(error)
        assert members[0].status().ended
        with pytest.raises(PartyError, match="not made yet"):
            members[0].model()


def test_keys_that_the_first_party_puts_together_wrongly_are_its_fault(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = JointPublicKey.test_result

    def result(
        self: JointPublicKey, values: NDArray[np.float64], keys: object, limbs: int
    ) -> object:
        return honest(self, values + 0.25, keys, limbs)  # type: ignore[arg-type]

    monkeypatch.setattr(JointPublicKey, "test_result", result)
    agreed = terms(20, PAIR, params=MINUTE, rotations=(1,), relinearization=False)
    with parties(url, tmp_path, agreed) as members:
        for error in failures(members, keygen):
            assert isinstance(error, WrongShareError)
            assert "all shares fit: 'north' put them together wrongly" in str(error)


@pytest.fixture(scope="module")
def pair(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Party]]:
    agreed = terms(21, PAIR, params=MINUTE, rotations=(1,), relinearization=False)
    with parties(url, tmp_path_factory.mktemp("pair"), agreed) as members:
        together(members, keygen)
        yield members


def signed(party: Party, step: str, **body: object) -> SignedEntry:
    """An entry that the party's keys sign, whatever its folder says."""
    session = party.session
    known = session.transcript.entry(step, session.party)
    entry = Entry(known.session, step, session.party, known.previous, body, ())
    return SignedEntry(entry, session.identity.sign(entry.to_bytes()))


def test_the_relay_refuses_a_second_answer_and_takes_the_first_again(pair: list[Party]) -> None:
    relay = pair[1].session.relay
    first = pair[1].session.transcript.entries["seed", 1]
    relay.send_entry(first)
    with pytest.raises(WriteOnceError, match="another entry"):
        relay.send_entry(signed(pair[1], "seed", nonce="0" * 64))


def test_a_party_refuses_to_write_a_second_answer_itself(pair: list[Party]) -> None:
    with pytest.raises(WriteOnceError, match="never replaced"):
        pair[1].session.folder.write_once(signed(pair[1], "seed", nonce="0" * 64))


def test_what_was_said_is_said_again_after_a_restart(pair: list[Party], tmp_path: Path) -> None:
    """A copy of a folder, opened anew, repeats every entry byte by byte: nothing is drawn again."""
    copy = tmp_path / "copy"
    shutil.copytree(pair[1].session.folder.path, copy)
    (copy / "joint.json").unlink()
    before = {path.name: path.read_bytes() for path in (copy / "entries").iterdir()}
    with Party.open(copy, allow_insecure=True) as again:
        again.keygen(seconds=PATIENCE)
        assert again.model().key_id == pair[1].model().key_id
    assert before == {path.name: path.read_bytes() for path in (copy / "entries").iterdir()}


def test_one_process_uses_a_folder_at_a_time(pair: list[Party]) -> None:
    with pytest.raises(DirectoryInUseError, match=f"in use by process {os.getpid()} on"):
        Party.open(pair[0].session.folder.path)


def test_a_changed_entry_in_the_folder_is_found(pair: list[Party], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(pair[0].session.folder.path, copy)
    (copy / "entries" / "seed.1").write_bytes(signed(pair[0], "seed", nonce="1" * 64).to_bytes())
    with pytest.raises(WriteOnceError, match="something else before"):
        Party.open(copy, allow_insecure=True)


@pytest.mark.parametrize("step", ["seed", "share", "check"])
def test_an_entry_that_another_party_signed_is_refused(pair: list[Party], step: str) -> None:
    session = pair[0].session
    fresh = PartySession.open(session.folder, session.relay, session.terms, 0)
    del fresh.transcript.entries[step, 1]
    original = session.transcript.entries[step, 1].entry
    forged = SignedEntry(original, session.identity.sign(original.to_bytes()))
    with pytest.raises(TranscriptError, match="not signed by its author"):
        fresh.transcript.add(forged)


def test_two_histories_are_found_at_the_next_step(pair: list[Party]) -> None:
    """South saw another nonce of north's: what south signs next does not fit north's history."""
    session = pair[0].session
    fresh = PartySession.open(session.folder, session.relay, session.terms, 0)
    for step in ("commit", "share", "relin", "key", "pledge", "check"):
        for party in range(2):
            fresh.transcript.entries.pop((step, party), None)
    known = session.transcript.entry("commit", 1)
    other = Entry(known.session, "commit", 1, "ab" * 32, known.body, known.blobs)
    theirs = pair[1].session.identity
    with pytest.raises(TranscriptError, match="different entries"):
        fresh.transcript.add(SignedEntry(other, theirs.sign(other.to_bytes())))


def test_a_payload_that_the_relay_changed_is_refused(
    pair: list[Party], monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = pair[0].session.relay
    blob = pair[0].session.transcript.entry("share", 1).blobs[0]
    honest = Relay._bytes

    def swapped(self: Relay, path: str, limit: int) -> bytes:
        content = bytearray(honest(self, path, limit))
        content[-1] ^= 1
        return bytes(content)

    monkeypatch.setattr(Relay, "_bytes", swapped)
    with pytest.raises(ChecksumError, match="another payload"):
        relay.blob(blob)


def test_strangers_get_nothing(pair: list[Party], url: str, tmp_path: Path) -> None:
    session = pair[0].terms.session
    with pytest.raises(ServiceError, match="token of a party"):
        Party.join(url, session, "south", "guessed", tmp_path / "stranger")
    token = pair[0].session.folder.token()
    with pytest.raises(ServiceError, match="no such session"):
        Party.join(url, "00" * 32, "south", token, tmp_path / "stranger")


def test_other_columns_are_a_named_error(pair: list[Party], url: str, tmp_path: Path) -> None:
    session, token = pair[0].terms.session, pair[1].session.folder.token()
    for columns, words in (
        (("age", "pressure"), r"missing here \['constant'\]"),
        (("pressure", "age", "constant"), "another order"),
        (("age", "pressure", "weight"), r"unknown \['weight'\]"),
    ):
        with pytest.raises(SchemaMismatchError, match=words):
            Party.join(url, session, "south", token, tmp_path / "x", columns=columns)


def test_a_party_that_never_comes_is_named(url: str, tmp_path: Path) -> None:
    agreed = terms(22, PAIR, params=MINUTE, rotations=(), relinearization=False)
    with parties(url, tmp_path, agreed) as members:
        with pytest.raises(MissingPartyError, match="'hello' waits for south"):
            members[0].keygen(seconds=0.2)
        status = members[0].status()
        assert (status.step, status.missing) == ("hello", ("south",))


class CrashError(Exception):
    """Stands for a process that ended."""


def test_a_party_that_crashes_at_every_step_says_the_same_again(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """South ends after it wrote each entry, before it was sent, and after its first secret."""
    agreed = terms(23, PAIR, params=MINUTE, rotations=(1,), relinearization=True)
    crashed: set[str] = set()
    written: dict[str, bytes] = {}
    honest_send, honest_json = Relay.send_entry, PartyFolder.write_json

    def send(self: Relay, entry: SignedEntry) -> None:
        step = entry.entry.step
        if entry.entry.party == 1:
            assert written.setdefault(step, entry.to_bytes()) == entry.to_bytes()
            if step not in crashed:
                crashed.add(step)
                raise CrashError(step)
        honest_send(self, entry)

    def write(self: PartyFolder, name: str, fields: dict[str, object]) -> None:
        if self.path.name == "south" and name == "planned/share.json" and name not in crashed:
            crashed.add(name)
            raise CrashError(name)
        honest_json(self, name, fields)

    monkeypatch.setattr(Relay, "send_entry", send)
    monkeypatch.setattr(PartyFolder, "write_json", write)

    def persistent(party: Party) -> str:
        if party.session.leads:
            return party.keygen(seconds=PATIENCE).key_id
        folder = party.session.folder.path
        party.close()
        for _ in range(20):
            with Party.open(folder, allow_insecure=True) as again:
                try:
                    return again.keygen(seconds=PATIENCE).key_id
                except CrashError:
                    continue
        raise AssertionError("it never ended")

    with parties(url, tmp_path, agreed) as members:
        found = together(members, persistent)
    assert len(set(found)) == 1
    assert crashed == {*KEY_STEPS, "planned/share.json"} - {"key"}
