"""The transcript of a session: every entry, checked against each other, without a server.

Whoever holds the entries can check alone that each is signed by its author's key, that everybody
saw the same history, and that what was shown later is what was committed to before. Which human
stands behind a key is compared by people: `fingerprint` is short enough to be read on the phone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tacit.errors import MissingPartyError, SchemaMismatchError, TranscriptError, WriteOnceError
from tacit.party_entry import (
    KEY_STEPS,
    Entry,
    SignedEntry,
    authors,
    manifest_digest,
    step_before,
    step_head,
)
from tacit.party_terms import SessionTerms, canonical

CheckSignature = Callable[[bytes, bytes, bytes], bool]
"""(public key, signature, message) -> whether it is right."""

_COMMITTED = {"share": "commit", "check": "pledge"}


@dataclass(slots=True)
class Transcript:
    """Entries by step and party.

    Attributes:
        terms: the session's.
        check_signature: Ed25519, given from outside.
        entries: those taken in so far, each checked.
    """

    terms: SessionTerms
    check_signature: CheckSignature
    entries: dict[tuple[str, int], SignedEntry] = field(default_factory=dict)

    def add(self, signed: SignedEntry) -> None:
        """Check an entry against everything before it and take it in.

        Raises:
            WriteOnceError: the party said something else in this step before.
            TranscriptError: wrong session, author or signature, another history, or not what was
                committed to.
            SchemaMismatchError: the party has other columns.
            MissingPartyError: the step before is not complete.
        """
        entry = signed.entry
        known = self.entries.get((entry.step, entry.party))
        if known is not None:
            if known != signed:
                raise WriteOnceError(self._blame(entry, "said something else before"))
            return
        if entry.session != self.terms.session:
            raise TranscriptError(self._blame(entry, "belongs to another session"))
        if entry.party not in authors(entry.step, len(self.terms.parties)):
            raise TranscriptError(self._blame(entry, "is not by one who writes in this step"))
        before = step_before(entry.step)
        if entry.previous != self.head(before):
            raise TranscriptError(
                self._blame(
                    entry,
                    f"was written after another history up to {before!r}: the relay "
                    "showed the parties different entries",
                )
            )
        if entry.step == KEY_STEPS[0]:
            self._check_hello(entry)
        key = self.signing_key(entry.party, entry)
        if not self.check_signature(key, signed.signature, entry.to_bytes()):
            raise TranscriptError(self._blame(entry, "is not signed by its author"))
        self._check_commitment(entry)
        self.entries[entry.step, entry.party] = signed

    def entry(self, step: str, party: int) -> Entry:
        """Return an entry.

        Raises:
            MissingPartyError: it is not there.
        """
        signed = self.entries.get((step, party))
        if signed is None:
            name = self.terms.parties[party]
            raise MissingPartyError(f"{name!r} has not sent step {step!r} yet")
        return signed.entry

    def missing(self, step: str) -> tuple[int, ...]:
        """Return the parties whose entry in a step is not there yet."""
        wanted = authors(step, len(self.terms.parties))
        return tuple(party for party in wanted if (step, party) not in self.entries)

    def complete(self, step: str) -> bool:
        """Tell whether everybody has written in a step."""
        return not self.missing(step)

    def step(self, step: str) -> tuple[Entry, ...]:
        """Return all entries of a complete step.

        Raises:
            MissingPartyError: names who is missing.
        """
        missing = self.missing(step)
        if missing:
            names = ", ".join(self.terms.parties[party] for party in missing)
            raise MissingPartyError(f"step {step!r} waits for {names}")
        wanted = authors(step, len(self.terms.parties))
        return tuple(self.entries[step, party].entry for party in wanted)

    def head(self, step: str | None) -> str:
        """Return the head of a complete step; before the first one, the session's id.

        Raises:
            MissingPartyError: the step is not complete.
        """
        if step is None:
            return self.terms.session
        digests = [entry.digest for entry in self.step(step)]
        return step_head(step, self.head(step_before(step)), digests)

    @property
    def fingerprint(self) -> str:
        """What people compare: 16 digits of a hash over the terms and everybody's keys.

        Raises:
            MissingPartyError: not everybody has said hello.
        """
        digits = self.head(KEY_STEPS[0])[:16]
        return " ".join(digits[i : i + 4] for i in range(0, 16, 4))

    @property
    def seed(self) -> bytes:
        """The seed of the joint polynomials: a hash over the terms and all nonces.

        Raises:
            MissingPartyError: not everybody has shown its nonce.
        """
        nonces = [entry.body["nonce"] for entry in self.step("seed")]
        return hashlib.sha256(
            canonical({"session": self.terms.session, "nonces": nonces, "head": self.head("hello")})
        ).digest()

    def signing_key(self, party: int, hello: Entry | None = None) -> bytes:
        """Return a party's Ed25519 public key, 32 bytes."""
        said = hello if hello and hello.step == KEY_STEPS[0] else self.entry(KEY_STEPS[0], party)
        return _key(said.body, "signing")

    def sealing_key(self, party: int) -> bytes:
        """Return a party's X25519 public key, 32 bytes."""
        return _key(self.entry(KEY_STEPS[0], party).body, "sealing")

    def _check_hello(self, entry: Entry) -> None:
        schema = entry.body.get("schema")
        if schema != self.terms.schema_digest:
            raise SchemaMismatchError(
                self._blame(
                    entry, "has other columns than the session: compare names, order, ranges"
                )
            )
        for name in ("signing", "sealing"):
            _key(entry.body, name)

    def _check_commitment(self, entry: Entry) -> None:
        kind = entry.step.rsplit(".", 1)[-1]
        if entry.step == "seed":
            hello = self.entry("hello", entry.party)
            if hello.body.get("commitment") != commitment(str(entry.body.get("nonce"))):
                raise TranscriptError(self._blame(entry, "is not the nonce that was committed to"))
        earlier = _COMMITTED.get(entry.step) or (
            step_before(entry.step) if kind == "sums" else None
        )
        if earlier is None:
            return
        promised = self.entry(earlier, entry.party).body.get("digest")
        if promised != manifest_digest(entry.blobs, entry.body):
            raise TranscriptError(
                self._blame(entry, f"is not what was committed to in {earlier!r}")
            )

    def _blame(self, entry: Entry, what: str) -> str:
        parties = self.terms.parties
        name = parties[entry.party] if entry.party < len(parties) else f"party {entry.party}"
        return f"the entry {entry.step!r} of {name!r} {what}"


def commitment(nonce: str) -> str:
    """Return the commitment to a nonce of 64 hexadecimal digits."""
    return hashlib.sha256(b"tacit party nonce" + nonce.encode()).hexdigest()


def _key(body: Mapping[str, object], name: str) -> bytes:
    value = body.get(name)
    try:
        key = bytes.fromhex(value if isinstance(value, str) else "")
    except ValueError:
        key = b""
    if len(key) != 32:
        raise TranscriptError(f"a hello without its {name} key of 32 bytes")
    return key
