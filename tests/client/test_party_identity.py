"""Signatures and sealed messages between parties."""

from __future__ import annotations

import pytest

from tacit.client.party_identity import SEAL_BYTES, Identity, seal, signed_by
from tacit.errors import DamagedInputError, KeyFileError

PEOPLE = [Identity.generate() for _ in range(3)]
READERS = {i: person.sealing_key for i, person in enumerate(PEOPLE) if i != 0}
CONTEXT = b"session step 0"
MESSAGE = bytes(range(256)) * 20


def test_a_signature_is_for_one_message_and_one_key() -> None:
    signature = PEOPLE[0].sign(b"said")
    assert signed_by(PEOPLE[0].signing_key, signature, b"said")
    assert not signed_by(PEOPLE[1].signing_key, signature, b"said")
    assert not signed_by(PEOPLE[0].signing_key, signature, b"said otherwise")
    assert not signed_by(b"short", signature, b"said")


def test_an_identity_comes_back_from_its_bytes_and_hides_them() -> None:
    again = Identity.from_bytes(PEOPLE[0].to_bytes())
    assert again.signing_key == PEOPLE[0].signing_key
    assert again.sealing_key == PEOPLE[0].sealing_key
    assert PEOPLE[0].to_bytes().hex()[:16] not in repr(PEOPLE[0])
    with pytest.raises(KeyFileError, match="64 bytes"):
        Identity.from_bytes(b"short")


def test_every_reader_and_nobody_else_opens_a_sealed_message() -> None:
    sealed = seal(MESSAGE, READERS, CONTEXT)
    assert len(sealed) < len(MESSAGE) + SEAL_BYTES
    for reader in READERS:
        assert PEOPLE[reader].unseal(reader, sealed, CONTEXT) == MESSAGE
    for person, reader, context in (
        (0, 0, CONTEXT),
        (0, 1, CONTEXT),
        (2, 1, CONTEXT),
        (1, 1, b"session step 1"),
    ):
        with pytest.raises(DamagedInputError):
            PEOPLE[person].unseal(reader, sealed, context)
    assert MESSAGE[:32] not in sealed
    assert seal(MESSAGE, READERS, CONTEXT) != sealed


def test_a_changed_or_cut_message_is_refused() -> None:
    sealed = seal(MESSAGE, READERS, CONTEXT)
    for place in (0, 3, 4, 40, 120, len(sealed) // 2, len(sealed) - 1):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(DamagedInputError):
            PEOPLE[1].unseal(1, bytes(changed), CONTEXT)
    for length in (0, 3, 4, 100, len(sealed) - 1):
        with pytest.raises(DamagedInputError):
            PEOPLE[1].unseal(1, sealed[:length], CONTEXT)


def test_keys_that_give_no_secret_are_refused() -> None:
    with pytest.raises(DamagedInputError, match="party 1"):
        seal(MESSAGE, {1: bytes(32)}, CONTEXT)
