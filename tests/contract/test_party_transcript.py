"""Transcripts: signatures, chain and commitments, checked without a server or OpenFHE."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
from collections.abc import Mapping

import pytest

from tacit.errors import (
    MissingPartyError,
    SchemaMismatchError,
    TranscriptError,
    WriteOnceError,
)
from tacit.params import CryptoParams, Security
from tacit.party_entry import Blob, Entry, SignedEntry, manifest_digest, step_before
from tacit.party_terms import Column, SessionTerms
from tacit.party_transcript import Transcript, commitment

PARAMS = CryptoParams.choose(8, 2, 50, 60, 2, security=Security.UNCHECKED_INSECURE)
TERMS = SessionTerms(
    "hearts", ("north", "south"), PARAMS, (), False, (Column("age", 0, 120),), 500, "ab" * 16
)
KEYS = (b"n" * 32, b"s" * 32)
NONCES = ("11" * 32, "22" * 32)
SHARES = (Blob("public", "33" * 32, 5),)


def check(key: bytes, signature: bytes, message: bytes) -> bool:
    """Stands for Ed25519: the "signature" is a keyed hash that anybody could make."""
    return hmac.compare_digest(signature, hmac.digest(key, message, hashlib.sha512))


def sign(entry: Entry, key: bytes | None = None) -> SignedEntry:
    secret = KEYS[entry.party] if key is None else key
    return SignedEntry(entry, hmac.digest(secret, entry.to_bytes(), hashlib.sha512))


def hello(party: int, schema: str = TERMS.schema_digest) -> dict[str, object]:
    return {
        "signing": KEYS[party].hex(),
        "sealing": bytes(32).hex(),
        "commitment": commitment(NONCES[party]),
        "schema": schema,
    }


def said(
    transcript: Transcript,
    step: str,
    party: int,
    body: Mapping[str, object] | None = None,
    blobs: tuple[Blob, ...] = (),
) -> Entry:
    previous = transcript.head(step_before(step))
    return Entry(TERMS.session, step, party, previous, body or {}, blobs)


@pytest.fixture
def begun() -> Transcript:
    """Both have said hello."""
    transcript = Transcript(TERMS, check)
    for party in range(2):
        transcript.add(sign(said(transcript, "hello", party, hello(party))))
    return transcript


@pytest.fixture
def committed(begun: Transcript) -> Transcript:
    """Both have shown their nonces and committed to shares."""
    for party in range(2):
        begun.add(sign(said(begun, "seed", party, {"nonce": NONCES[party]})))
    for party in range(2):
        digest = manifest_digest(SHARES)
        begun.add(sign(said(begun, "commit", party, {"digest": digest})))
    return begun


def test_a_step_waits_for_everybody_before_it_and_names_them(begun: Transcript) -> None:
    begun.add(sign(said(begun, "seed", 0, {"nonce": NONCES[0]})))
    with pytest.raises(MissingPartyError, match="'seed' waits for south"):
        begun.head("seed")
    assert begun.missing("seed") == (1,)
    early = Entry(TERMS.session, "commit", 0, "00" * 32)
    with pytest.raises(MissingPartyError, match="south"):
        begun.add(sign(early))
    with pytest.raises(MissingPartyError, match="'south' has not sent"):
        begun.entry("seed", 1)


def test_an_entry_is_taken_once(begun: Transcript) -> None:
    first = sign(said(begun, "seed", 0, {"nonce": NONCES[0]}))
    begun.add(first)
    begun.add(first)
    with pytest.raises(WriteOnceError, match="'seed' of 'north' said something else"):
        begun.add(sign(said(begun, "seed", 0, {"nonce": NONCES[1]})))


def test_entries_of_others_and_elsewhere_are_refused(begun: Transcript) -> None:
    right = said(begun, "seed", 0, {"nonce": NONCES[0]})
    for wrong, words in (
        (sign(right, KEYS[1]), "not signed by its author"),
        (sign(dataclasses.replace(right, session="00" * 32)), "another session"),
        (sign(dataclasses.replace(right, previous="00" * 32)), "different entries"),
        (sign(dataclasses.replace(right, party=2), KEYS[0]), "who writes in this step"),
    ):
        with pytest.raises(TranscriptError, match=words):
            begun.add(wrong)
    begun.add(sign(right))


def test_other_columns_are_found_in_the_first_message() -> None:
    transcript = Transcript(TERMS, check)
    with pytest.raises(SchemaMismatchError, match="'north' has other columns"):
        transcript.add(sign(said(transcript, "hello", 0, hello(0, "00" * 32))))
    for key in ("signing", "sealing"):
        for value in (None, "zz", "00"):
            with pytest.raises(TranscriptError, match=f"without its {key} key"):
                transcript.add(sign(said(transcript, "hello", 0, {**hello(0), key: value})))


def test_what_is_shown_must_be_what_was_committed_to(committed: Transcript) -> None:
    fresh = Transcript(TERMS, check)
    for party in range(2):
        fresh.add(sign(said(fresh, "hello", party, hello(party))))
    with pytest.raises(TranscriptError, match="not the nonce that was committed to"):
        fresh.add(sign(said(fresh, "seed", 0, {"nonce": NONCES[1]})))
    other = (Blob("public", "34" * 32, 5),)
    for body, blobs in (({}, other), ({}, ()), ({"x": 1}, SHARES)):
        with pytest.raises(TranscriptError, match="not what was committed to in 'commit'"):
            committed.add(sign(said(committed, "share", 0, body, blobs)))
    committed.add(sign(said(committed, "share", 0, {}, SHARES)))


def test_fingerprint_and_seed_depend_on_every_party(begun: Transcript) -> None:
    other = Transcript(TERMS, check)
    other.add(sign(said(other, "hello", 0, hello(0))))
    other.add(sign(said(other, "hello", 1, {**hello(1), "sealing": ("01" * 32)})))
    assert begun.fingerprint != other.fingerprint
    assert len(begun.fingerprint.replace(" ", "")) == 16
    with pytest.raises(MissingPartyError):
        _ = begun.seed
    for party in range(2):
        begun.add(sign(said(begun, "seed", party, {"nonce": NONCES[party]})))
    assert len(begun.seed) == 32
    assert begun.seed != other.terms.nonce.encode()


def test_sums_are_committed_to_as_well(committed: Transcript) -> None:
    for step in ("share", "relin"):
        for party in range(2):
            blobs = SHARES if step == "share" else ()
            committed.add(sign(said(committed, step, party, {}, blobs)))
    committed.add(sign(said(committed, "key", 0)))
    for party in range(2):
        committed.add(sign(said(committed, "pledge", party, {"digest": manifest_digest(())})))
    for party in range(2):
        committed.add(sign(said(committed, "check", party)))
    promised = {"digest": manifest_digest(SHARES, {"count": 3})}
    for party in range(2):
        committed.add(sign(said(committed, "m.commit", party, promised)))
    with pytest.raises(TranscriptError, match=r"committed to in 'm\.commit'"):
        committed.add(sign(said(committed, "m.sums", 0, {"count": 4}, SHARES)))
    committed.add(sign(said(committed, "m.sums", 0, {"count": 3}, SHARES)))
    with pytest.raises(TranscriptError, match="who writes in this step"):
        committed.add(sign(said(committed, "w.request", 1)))
