"""Entries: the messages of a session, one per step and party, signed and chained.

An entry on the wire is its author's Ed25519 signature (64 bytes) and the canonical JSON it signs.
Large payloads are blobs, named in the entry by SHA-256 and length. `previous` is the head of the
step before, a hash over all its entries, so that whoever signs an entry also signs what everybody
said before it: a relay that shows parties different histories is found out at the next step.

Steps of key generation, in order (all parties write in each, but for `key`, which the first does):

    hello    public keys for signatures and sealed messages, and a commitment to a nonce
    seed     the nonce; all nonces and the terms give the seed of the joint polynomials
    commit   the digest of what will be said in `share`
    share    shares of the public key, of the relinearisation key's first round, of the rotations
    relin    shares of the relinearisation key's second round
    key      the id of the assembled key set, and a test computed with it
    pledge   the digest of what will be said in `check`
    check    shares of the test's decryption
    open     only after a failed test: every party's secret, to find out whose share was wrong

Later activities have a name of their own and begin behind `check`:

    NAME.commit, NAME.sums, NAME.total     encrypted sums; shares of the total's decryption
    NAME.request, NAME.share               ciphertexts to decrypt; shares of their decryption
    NAME.rows                              how many rows each party will send
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tacit.errors import HeaderError, OversizedError, TruncatedError
from tacit.party_terms import MOST_PARTIES, canonical

SIGNATURE_BYTES = 64
LARGEST_ENTRY = 1 << 20
LARGEST_BLOB = 1 << 31
MOST_BLOBS = 1 << 13
KEY_STEPS = ("hello", "seed", "commit", "share", "relin", "key", "pledge", "check")
_FIELDS = {"session", "step", "party", "previous", "body", "blobs"}
_BEFORE = {
    **dict(zip(KEY_STEPS[1:], KEY_STEPS, strict=False)),
    "open": "check",
}
_ACTIVITY = {
    "commit": "check",
    "sums": "commit",
    "total": "sums",
    "request": "check",
    "rows": "check",
    "share": "request",
}
_ACTIVITY_STEP = re.compile(r"([a-z0-9][a-z0-9-]{0,39})\.([a-z]{1,10})")
_LEADERS = ("key", "request")
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Blob:
    """A payload: what it is, its SHA-256 (hex) and its length in bytes."""

    label: str
    sha256: str
    length: int

    def to_json(self) -> list[object]:
        """Return a JSON-serialisable list."""
        return [self.label, self.sha256, self.length]


@dataclass(frozen=True, slots=True)
class Entry:
    """What one party says in one step.

    Attributes:
        session: its id.
        step: see the module.
        party: the author's number.
        previous: head of the step before, hex.
        body: JSON.
        blobs: payloads.
    """

    session: str
    step: str
    party: int
    previous: str
    body: Mapping[str, object] = field(default_factory=dict)
    blobs: tuple[Blob, ...] = ()

    def to_bytes(self) -> bytes:
        """Return the canonical JSON that is signed."""
        return canonical(
            {
                "session": self.session,
                "step": self.step,
                "party": self.party,
                "previous": self.previous,
                "body": dict(self.body),
                "blobs": [blob.to_json() for blob in self.blobs],
            }
        )

    @property
    def digest(self) -> str:
        """SHA-256 hex of the canonical JSON."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def blob(self, label: str) -> Blob:
        """Return the blob of that label.

        Raises:
            HeaderError: there is none.
        """
        for blob in self.blobs:
            if blob.label == label:
                return blob
        raise HeaderError(f"entry {self.step!r} of party {self.party} has no blob {label!r}")


@dataclass(frozen=True, slots=True)
class SignedEntry:
    """An entry and its author's signature."""

    entry: Entry
    signature: bytes = field(repr=False)

    def to_bytes(self) -> bytes:
        """Return the wire form."""
        return self.signature + self.entry.to_bytes()

    @classmethod
    def from_bytes(cls, received: bytes | memoryview) -> SignedEntry:
        """Read the wire form strictly; the signature is not checked here.

        Raises:
            TruncatedError, OversizedError, HeaderError: not an entry in canonical form.
        """
        if len(received) <= SIGNATURE_BYTES:
            raise TruncatedError("an entry is longer than its signature")
        if len(received) > LARGEST_ENTRY:
            raise OversizedError(f"an entry has at most {LARGEST_ENTRY} bytes")
        signature, text = bytes(received[:SIGNATURE_BYTES]), bytes(received[SIGNATURE_BYTES:])
        try:
            fields = json.loads(text)
            entry = _entry(fields)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise HeaderError(f"not an entry of a session: {error}") from error
        if entry.to_bytes() != text:
            raise HeaderError("an entry must be canonical JSON")
        return cls(entry, signature)


def step_before(step: str) -> str | None:
    """Return the step that must be complete before this one; None before the first.

    Raises:
        HeaderError: not a step.
    """
    if step == KEY_STEPS[0]:
        return None
    if step in _BEFORE:
        return _BEFORE[step]
    name, kind = _activity(step)
    before = _ACTIVITY[kind]
    return before if before == "check" else f"{name}.{before}"


def authors(step: str, parties: int) -> tuple[int, ...]:
    """Return the numbers of the parties that write in a step.

    Raises:
        HeaderError: not a step.
    """
    kind = step if step in (*KEY_STEPS, "open") else _activity(step)[1]
    return (0,) if kind in _LEADERS else tuple(range(parties))


def step_head(step: str, previous: str, digests: Sequence[str]) -> str:
    """Return the head of a complete step: a hash over what was before and all its entries.

    Args:
        step: its name.
        previous: head of the step before.
        digests: of its entries, in the order of the parties.
    """
    return hashlib.sha256(
        canonical({"step": step, "previous": previous, "entries": list(digests)})
    ).hexdigest()


def manifest_digest(blobs: Sequence[Blob], body: Mapping[str, object] | None = None) -> str:
    """Return what a party commits to before it shows a step's blobs and body."""
    listed = {"blobs": [blob.to_json() for blob in blobs], "body": dict(body or {})}
    return hashlib.sha256(canonical(listed)).hexdigest()


def _activity(step: str) -> tuple[str, str]:
    found = _ACTIVITY_STEP.fullmatch(step)
    if found is None or found[2] not in _ACTIVITY:
        raise HeaderError(f"{step[:64]!r} is no step of a session")
    return found[1], found[2]


def _entry(fields: Mapping[str, object]) -> Entry:
    if not isinstance(fields, dict) or set(fields) != _FIELDS:
        raise TypeError(f"an object with {sorted(_FIELDS)} expected")
    session, previous = _digest(fields["session"]), _digest(fields["previous"])
    step, party, body, blobs = (fields[name] for name in ("step", "party", "body", "blobs"))
    if type(party) is not int or not 0 <= party < MOST_PARTIES:
        raise TypeError("a party's number expected")
    if not isinstance(step, str) or not isinstance(body, dict):
        raise TypeError("a step and an object expected")
    step_before(step)
    if not isinstance(blobs, list) or len(blobs) > MOST_BLOBS:
        raise TypeError(f"a list of at most {MOST_BLOBS} blobs expected")
    read = tuple(_blob(blob) for blob in blobs)
    if len({blob.label for blob in read}) < len(read):
        raise TypeError("two blobs of the same label")
    return Entry(session, step, party, previous, body, read)


def _blob(value: object) -> Blob:
    if not isinstance(value, list) or len(value) != 3:
        raise TypeError("a blob is [label, sha256, bytes]")
    label, sha256, length = value
    if not isinstance(label, str) or not 1 <= len(label) <= 64:
        raise TypeError("a blob's label has 1 to 64 characters")
    if type(length) is not int or not 1 <= length <= LARGEST_BLOB:
        raise TypeError(f"a blob has 1 to {LARGEST_BLOB} bytes")
    return Blob(label, _digest(sha256), length)


def _digest(value: object) -> str:
    if not isinstance(value, str) or not _HEX.fullmatch(value):
        raise TypeError("64 hexadecimal digits expected")
    return value
