"""One party's side of a session: what it says, once, and what it hears, checked."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from tacit.client.party_folder import PartyFolder
from tacit.client.party_identity import SEAL_BYTES, Identity, seal, signed_by
from tacit.client.party_relay import Relay
from tacit.errors import MissingPartyError, OversizedError, PartyError, ServiceError
from tacit.party_entry import Blob, Entry, SignedEntry, manifest_digest, step_before
from tacit.party_terms import SessionTerms
from tacit.party_transcript import Transcript

Said = tuple[Mapping[str, object], tuple[Blob, ...]]
"""A body and payloads that are in the folder."""

Result = TypeVar("Result")

_POLL_SECONDS = 0.05
_LONGEST_POLL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class StepCost:
    """What a step took this party: seconds of work, bytes each way."""

    seconds: float
    sent: int
    received: int


@dataclass(slots=True, eq=False)
class PartySession:
    """Folder, relay and transcript of one party.

    Attributes:
        folder: locked for this process.
        relay: of this session.
        terms: agreed on.
        party: this party's number.
        identity: its private keys.
        transcript: everything checked so far.
        costs: of the steps that were worked on in this process.
    """

    folder: PartyFolder
    relay: Relay
    terms: SessionTerms
    party: int
    identity: Identity
    transcript: Transcript
    costs: dict[str, StepCost] = field(default_factory=dict)

    @classmethod
    def open(
        cls, folder: PartyFolder, relay: Relay, terms: SessionTerms, party: int
    ) -> PartySession:
        """Read the folder; the identity is made if it is not there yet.

        Raises:
            KeyFileError: the folder cannot be read or written.
            TranscriptError: what it holds does not fit together.
        """
        if not folder.has("identity.key"):
            folder.write_secret("identity.key", Identity.generate().to_bytes())
        identity = Identity.from_bytes(folder.read_secret("identity.key"))
        session = cls(folder, relay, terms, party, identity, Transcript(terms, signed_by))
        session._take(list(folder.entries()))
        return session

    @property
    def leads(self) -> bool:
        """Whether this party assembles keys and asks for decryptions."""
        return self.party == 0

    def sync(self) -> None:
        """Fetch the entries that are new, check them and keep them.

        Raises:
            TranscriptError, SchemaMismatchError, WriteOnceError: something is wrong with one.
            ServiceError: the relay cannot be reached or refuses.
        """
        steps = self.relay.state().get("steps")
        if not isinstance(steps, dict):
            raise ServiceError("the relay did not say which entries it has")
        for step, party in self._unknown(steps):
            before = step_before(step)
            if before is None or self.transcript.complete(before):
                self._hear(self.relay.entry(step, party), step, party)

    def say(self, step: str, make: Callable[[], Said]) -> None:
        """Write this party's entry of a step, once, and send it.

        Args:
            step: all steps before it must be complete.
            make: called only if the entry was never written; its payloads must be in the folder.

        Raises:
            PartyError: this party gave its secret up.
        """
        start, before = time.monotonic(), self._bytes()
        signed = self.folder.entry(step, self.party)
        if signed is None:
            if self.folder.has("given-up") and step != "open":
                raise PartyError("this session ended with a failed test: begin a new one")
            body, blobs = make()
            previous = self.transcript.head(step_before(step))
            entry = Entry(self.terms.session, step, self.party, previous, body, blobs)
            signed = SignedEntry(entry, self.identity.sign(entry.to_bytes()))
            self.folder.write_once(signed)
        self.transcript.add(signed)
        for blob in signed.entry.blobs:
            self.relay.send_blob(blob, self.folder.blob_path(blob))
        self.relay.send_entry(signed)
        self._spent(step, start, before)

    def wait(self, step: str, seconds: float) -> tuple[Entry, ...]:
        """Wait until everybody has written in a step; returns the entries.

        Raises:
            MissingPartyError: names who is missing when the time is over.
        """
        deadline, pause = time.monotonic() + seconds, _POLL_SECONDS
        while not self.transcript.complete(step):
            self.sync()
            if self.transcript.complete(step):
                break
            if time.monotonic() >= deadline:
                return self.transcript.step(step)
            time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
            pause = min(1.5 * pause, _LONGEST_POLL_SECONDS)
        return self.transcript.step(step)

    def working(self, step: str, work: Callable[[], Result]) -> Result:
        """Count work on a step that is not in `say`; returns what it gives."""
        start, before = time.monotonic(), self._bytes()
        try:
            return work()
        finally:
            self._spent(step, start, before)

    def plan(self, step: str, make: Callable[[], Said]) -> str:
        """Fix what will be said in a step, once; returns the digest to commit to."""
        name = f"planned/{step}.json"
        if not self.folder.has(name):
            body, blobs = make()
            listed = [blob.to_json() for blob in blobs]
            self.folder.write_json(name, {"body": dict(body), "blobs": listed})
        body, blobs = self.planned(step)
        return manifest_digest(blobs, body)

    def planned(self, step: str) -> Said:
        """Return what was fixed by `plan`."""
        fields = self.folder.read_json(f"planned/{step}.json")
        body, listed = fields["body"], fields["blobs"]
        if not isinstance(body, dict) or not isinstance(listed, list):
            raise PartyError(f"the plan of step {step!r} in {self.folder.path} is damaged")
        return body, tuple(Blob(str(label), str(sha), int(size)) for label, sha, size in listed)

    def payload(self, entry: Entry, label: str, most_bytes: int, *, keep: bool = False) -> bytes:
        """Return an entry's payload, from the folder or the relay.

        Args:
            entry: that names it.
            label: of the payload.
            most_bytes: a longer one is not fetched.
            keep: in the folder, so that it is fetched once only.

        Raises:
            HeaderError: the entry names no such payload.
            OversizedError: it is longer than it may be.
            ChecksumError: the relay sent another one.
        """
        blob = entry.blob(label)
        if blob.length > most_bytes:
            raise OversizedError(
                f"payload {label!r} of {blob.length} bytes, at most {most_bytes} expected"
            )
        content = self.folder.blob(blob)
        if content is None:
            content = self.relay.blob(blob)
            if keep:
                self.folder.add_blob(label, content)
        return content

    def sealed(self, message: bytes, step: str) -> bytes:
        """Encrypt a message for the other parties."""
        others = [p for p in range(len(self.terms.parties)) if p != self.party]
        readers = {party: self.transcript.sealing_key(party) for party in others}
        return seal(message, readers, self._context(step, self.party))

    def unsealed(self, entry: Entry, label: str, most_bytes: int) -> bytes:
        """Fetch and open another party's sealed payload; see `payload`."""
        sealed = self.payload(entry, label, most_bytes + SEAL_BYTES)
        return self.identity.unseal(self.party, sealed, self._context(entry.step, entry.party))

    def close(self) -> None:
        """Close the connections and let the folder go."""
        self.relay.close()
        self.folder.close()

    def _context(self, step: str, author: int) -> bytes:
        return f"{self.terms.session} {step} {author}".encode()

    def _unknown(self, steps: Mapping[str, object]) -> list[tuple[str, int]]:
        """List entries that the relay has and we do not, earlier steps first."""
        found = []
        for step, fields in steps.items():
            parties = fields.get("parties") if isinstance(fields, dict) else None
            for party in parties if isinstance(parties, list) else []:
                if isinstance(party, int) and (step, party) not in self.transcript.entries:
                    found.append((_depth(step), step, party))
        return [(step, party) for _, step, party in sorted(found)]

    def _hear(self, signed: SignedEntry, step: str, party: int) -> None:
        if (signed.entry.step, signed.entry.party) != (step, party):
            raise ServiceError("the relay answered with another entry than was asked for")
        self.transcript.add(signed)
        self.folder.write_once(signed)

    def _take(self, kept: Sequence[SignedEntry]) -> None:
        """Take entries of the folder in, earlier steps first."""
        for signed in sorted(kept, key=lambda s: (_depth(s.entry.step), s.entry.step)):
            try:
                self.transcript.add(signed)
            except MissingPartyError as error:
                raise PartyError(
                    f"{self.folder.path} lacks entries that step {signed.entry.step!r} builds on"
                ) from error

    def _bytes(self) -> tuple[int, int]:
        return self.relay.traffic.sent, self.relay.traffic.received

    def _spent(self, step: str, start: float, before: tuple[int, int]) -> None:
        sent, received = self._bytes()
        known = self.costs.get(step, StepCost(0.0, 0, 0))
        self.costs[step] = StepCost(
            known.seconds + time.monotonic() - start,
            known.sent + sent - before[0],
            known.received + received - before[1],
        )


def _depth(step: str) -> int:
    before, depth = step_before(step), 0
    while before is not None:
        before, depth = step_before(before), depth + 1
    return depth
