"""Entries, terms and frames of parties: one spelling, strict limits, everything else refused."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tacit.errors import (
    DamagedInputError,
    HeaderError,
    OversizedError,
    ParameterError,
    ParameterMismatchError,
    PartyError,
    ResidueError,
    SchemaMismatchError,
    TacitError,
    TruncatedError,
)
from tacit.joint_randomness import joint_polynomial
from tacit.key_levels import KeyLevels
from tacit.params import CryptoParams, Security
from tacit.party_entry import (
    KEY_STEPS,
    LARGEST_ENTRY,
    Blob,
    Entry,
    SignedEntry,
    authors,
    manifest_digest,
    step_before,
    step_head,
)
from tacit.party_frame import (
    Share,
    ShareExpectation,
    ShareKind,
    decode_share,
    encode_share,
    sum_limbs,
)
from tacit.party_terms import Column, SessionTerms, canonical

PARAMS = CryptoParams.choose(8, 2, 50, 60, 2, security=Security.UNCHECKED_INSECURE)
TERMS = SessionTerms(
    "hearts",
    ("north", "south"),
    PARAMS,
    (1, -2),
    True,
    (Column("age", 0, 120), Column("pressure", 50, 250)),
    500,
    "ab" * 16,
)
ENTRY = Entry("00" * 32, "seed", 1, "11" * 32, {"nonce": "22" * 32}, (Blob("x", "33" * 32, 5),))
SIGNED = SignedEntry(ENTRY, bytes(64))


def test_terms_come_back_the_same_and_are_named_by_their_content() -> None:
    again = SessionTerms.from_json(json.loads(canonical(TERMS.to_json())))
    assert again == TERMS
    assert again.session == TERMS.session
    assert dataclasses.replace(TERMS, smudging_bits=31).session != TERMS.session
    assert len(TERMS.needed) == 3
    levels = KeyLevels({1: 0, PARAMS.slots - 2: 2}, 1)
    trimmed = dataclasses.replace(TERMS, key_levels=levels)
    assert SessionTerms.from_json(json.loads(canonical(trimmed.to_json()))) == trimmed
    assert [key.limbs for key in trimmed.needed] == [2, 1, 3]
    assert len(dataclasses.replace(TERMS, conjugation=True).needed) == 4


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"parties": ("alone",)}, PartyError),
        ({"parties": ("north", "north")}, PartyError),
        ({"parties": tuple(f"p{i}" for i in range(33))}, PartyError),
        ({"parties": ("north", "../south")}, PartyError),
        ({"columns": (Column("age", 0, 1), Column("age", 0, 2))}, SchemaMismatchError),
        ({"nonce": "xyz"}, PartyError),
        ({"most_rows": 0}, PartyError),
        ({"smudging_bits": 61}, PartyError),
        ({"precision_bits": 0}, PartyError),
        ({"key_levels": KeyLevels({1: 0}, 1)}, PartyError),
        ({"key_levels": KeyLevels({1: 0, PARAMS.slots - 2: 3}, 1)}, PartyError),
        ({"smudging_bits": 10, "least_smudging_bits": 11}, PartyError),
    ],
)
def test_terms_that_cannot_be_are_refused(
    changes: dict[str, object], error: type[TacitError]
) -> None:
    with pytest.raises(error):
        dataclasses.replace(TERMS, **changes)  # type: ignore[arg-type]


def test_columns_need_names_and_finite_ranges() -> None:
    for name, low, high in (("", 0.0, 1.0), ("a", 1.0, 1.0), ("a", 0.0, float("inf"))):
        with pytest.raises(SchemaMismatchError):
            Column(name, low, high)


@pytest.mark.parametrize("field", sorted(TERMS.to_json()))
def test_terms_with_a_field_missing_added_or_of_another_type_are_refused(field: str) -> None:
    fields = json.loads(canonical(TERMS.to_json()))
    for broken in (
        {key: value for key, value in fields.items() if key != field},
        {**fields, field: {"x": 1}},
        {**fields, field + "x": 1},
    ):
        with pytest.raises((PartyError, ParameterError)):
            SessionTerms.from_json(broken)


def test_an_entry_comes_back_the_same() -> None:
    again = SignedEntry.from_bytes(SIGNED.to_bytes())
    assert again == SIGNED
    assert again.entry.blob("x").length == 5
    with pytest.raises(HeaderError, match="no blob 'y'"):
        again.entry.blob("y")


def test_an_entry_has_one_spelling_only() -> None:
    text = ENTRY.to_bytes()
    for other in (text + b" ", text.replace(b'":', b'": '), text.replace(b"seed", b"\\u0073eed")):
        with pytest.raises(HeaderError):
            SignedEntry.from_bytes(bytes(64) + other)


def test_entries_over_the_limits_are_refused() -> None:
    with pytest.raises(OversizedError):
        SignedEntry.from_bytes(bytes(LARGEST_ENTRY + 1))
    with pytest.raises(TruncatedError):
        SignedEntry.from_bytes(bytes(64))
    for changed in (
        dataclasses.replace(ENTRY, party=32),
        dataclasses.replace(ENTRY, step="../etc"),
        dataclasses.replace(ENTRY, previous="0"),
        dataclasses.replace(ENTRY, blobs=(Blob("x", "33" * 32, 0),)),
        dataclasses.replace(ENTRY, blobs=(Blob("x", "33" * 32, 1), Blob("x", "34" * 32, 1))),
        dataclasses.replace(ENTRY, blobs=(Blob("x", "33" * 32, 1 << 40),)),
    ):
        with pytest.raises(HeaderError):
            SignedEntry.from_bytes(bytes(64) + changed.to_bytes())


@given(st.integers(0, len(SIGNED.to_bytes()) - 1), st.integers(1, 255))
def test_a_changed_byte_is_another_entry_or_none(place: int, flip: int) -> None:
    changed = bytearray(SIGNED.to_bytes())
    changed[place] ^= flip
    with contextlib.suppress(DamagedInputError):
        assert SignedEntry.from_bytes(bytes(changed)) != SIGNED


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader(received: bytes) -> None:
    with pytest.raises(DamagedInputError):
        SignedEntry.from_bytes(bytes(64) + received)


def test_deeply_nested_json_is_refused_like_any_other() -> None:
    with pytest.raises(HeaderError):
        SignedEntry.from_bytes(bytes(64) + b"[" * 200_000)


def test_steps_follow_each_other_and_activities_begin_behind_the_keys() -> None:
    for step, following in itertools.pairwise(KEY_STEPS):
        assert step_before(following) == step
    assert step_before(KEY_STEPS[0]) is None
    assert step_before("open") == "check"
    assert step_before("moments.commit") == "check"
    assert step_before("moments.sums") == "moments.commit"
    assert step_before("weights.share") == "weights.request"
    assert authors("key", 3) == (0,)
    assert authors("weights.request", 3) == (0,)
    assert authors("weights.share", 3) == (0, 1, 2)
    for wrong in ("", "x", "x.y", "a.b.share", "A.share", "-.share"):
        with pytest.raises(HeaderError):
            step_before(wrong)


def test_heads_and_manifests_depend_on_everything() -> None:
    head = step_head("seed", "00" * 32, ["11" * 32, "22" * 32])
    assert head != step_head("seed", "00" * 32, ["22" * 32, "11" * 32])
    assert head != step_head("seed", "01" * 32, ["11" * 32, "22" * 32])
    assert head != step_head("commit", "00" * 32, ["11" * 32, "22" * 32])
    assert manifest_digest(ENTRY.blobs) != manifest_digest(())
    assert manifest_digest((), {"count": 1}) != manifest_digest((), {"count": 2})


def share(seed: int = 0) -> Share:
    draws = np.random.default_rng(seed).integers(0, 1 << 62, (2, 3, PARAMS.n), dtype=np.uint64)
    limbs = draws % np.array(PARAMS.moduli, dtype=np.uint64)[:, None]
    return Share(ShareKind.ROTATION, 5, limbs, PARAMS.digest)


EXPECTED = ShareExpectation(ShareKind.ROTATION, 5, 2, PARAMS.moduli, PARAMS.log_n, PARAMS.digest)


def test_a_share_comes_back_the_same() -> None:
    frame = encode_share(share(), PARAMS.moduli)
    assert len(frame) == EXPECTED.frame_bytes
    again = decode_share(frame, EXPECTED)
    assert np.array_equal(again.limbs, share().limbs)


def test_a_share_that_is_not_the_expected_one_is_refused() -> None:
    frame = encode_share(share(), PARAMS.moduli)
    with pytest.raises(TruncatedError):
        decode_share(frame[:-1], EXPECTED)
    with pytest.raises(OversizedError):
        decode_share(frame + b"\0", EXPECTED)
    with pytest.raises(ParameterMismatchError):
        decode_share(frame, dataclasses.replace(EXPECTED, params_digest=bytes(32)))
    for place in (0, 8, 10, 11, 12, 16, 18, 20, 24):
        changed = bytearray(frame)
        changed[place] ^= 1
        with pytest.raises(HeaderError):
            decode_share(bytes(changed), EXPECTED)
    with pytest.raises(ResidueError):
        decode_share(frame[:64] + b"\xff" * (len(frame) - 64), EXPECTED)


def test_sums_of_shares_are_sums_modulo_each_prime() -> None:
    parts = [share(seed).limbs for seed in range(4)]
    q = np.array(PARAMS.moduli, dtype=object)[:, None]
    wanted = sum(part.astype(object) for part in parts) % q
    assert (sum_limbs(parts, PARAMS.moduli).astype(object) == wanted).all()


def test_joint_polynomials_are_the_same_for_all_and_differ_by_seed_label_and_limb() -> None:
    one = joint_polynomial(b"s" * 32, "a", PARAMS.moduli, PARAMS.n)
    assert np.array_equal(one, joint_polynomial(b"s" * 32, "a", PARAMS.moduli, PARAMS.n))
    assert (one < np.array(PARAMS.moduli, dtype=np.uint64)[:, None]).all()
    for seed, label in ((b"t" * 32, "a"), (b"s" * 32, "b")):
        other = joint_polynomial(seed, label, PARAMS.moduli, PARAMS.n)
        assert not np.array_equal(one[0], other[0])
    # Longer polynomials begin with the shorter ones: the words are taken in order.
    longer = joint_polynomial(b"s" * 32, "a", PARAMS.moduli, 2 * PARAMS.n)
    assert np.array_equal(longer[:, : PARAMS.n], one)


def test_joint_polynomials_are_known_values() -> None:
    """Two implementations must agree on every residue: these were computed word by word."""
    import hashlib

    modulus = PARAMS.moduli[1]
    stream = hashlib.shake_256(
        b"tacit joint polynomial 1\0" + bytes(32) + (1).to_bytes(4, "little") + b"key 5 digit 0"
    ).digest(1 << 15)
    mask = (1 << modulus.bit_length()) - 1
    words = [int.from_bytes(stream[i : i + 8], "little") & mask for i in range(0, 1 << 15, 8)]
    wanted = [word for word in words if word < modulus][:64]
    found = joint_polynomial(bytes(32), "key 5 digit 0", PARAMS.moduli, 64)
    assert found[1].tolist() == wanted
