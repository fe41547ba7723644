"""Sessions of several parties on disk: a mailbox whose entries are written once.

    ROOT/<session>/session.json      terms, owner, hashes of the parties' tokens, when it was made
    ROOT/<session>/entries/STEP.N    signed entries
    ROOT/<session>/blobs/SHA256      payloads

Everything is synced to disk before it is acknowledged, and an entry is created exclusively
(`link`), so that a second one is refused whatever happens in between. The relay reads terms and
entries strictly, for their form only: parties check signatures, history and contents themselves.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tacit.directory_lock import DirectoryLock
from tacit.errors import (
    MissingPartyError,
    PartyError,
    WriteOnceError,
)
from tacit.party_entry import SignedEntry, authors
from tacit.party_terms import SessionTerms
from tacit.runtime.frame_upload import storing, write_all
from tacit.runtime.party_blobs import BlobUpload, sync_folder
from tacit.runtime.refusals import (
    BadRequestError,
    BusyError,
    ForbiddenError,
    StorageError,
    UnknownSessionError,
)

_HEX_DIGITS = frozenset("0123456789abcdef")
_TOKEN_BYTES = 24


@dataclass(frozen=True, slots=True)
class PartyLimits:
    """Bounds of the relay.

    Attributes:
        sessions: of one tenant.
        session_bytes: payloads of one party in one session.
        entries: of one session.
        seconds_to_live: a session without a new entry for so long is removed; 0 keeps them.
    """

    sessions: int = 64
    session_bytes: int = 16 << 30
    entries: int = 4096
    seconds_to_live: float = 30 * 86400.0


@dataclass(frozen=True, slots=True)
class Member:
    """A party that showed its token."""

    session: str
    party: int


class PartyStore:
    """Sessions by id; safe to use from several threads."""

    def __init__(
        self, root: Path, limits: PartyLimits, now: Callable[[], float] = time.time
    ) -> None:
        """Prepare the store; what is there is found again when it is asked for."""
        self._root = root
        self._limits = limits
        self._now = now
        self._lock = threading.RLock()
        self._arriving: dict[Member, int] = {}
        self._held: DirectoryLock | None = None
        with storing(f"open the store of sessions {root}"):
            root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def hold(self) -> None:
        """Take the folder for this process, until `close`, and clear what an ended one left.

        Raises:
            DirectoryInUseError: another process has it.
            StorageError: it cannot be written.
        """
        with storing(f"open the store of sessions {self._root}"):
            self._held = DirectoryLock(self._root)
            for leftover in self._root.glob("*/*/*.part"):
                leftover.unlink()

    def close(self) -> None:
        """Let the folder go."""
        if self._held is not None:
            self._held.release()

    def create(self, tenant: str, terms: SessionTerms) -> dict[str, str]:
        """Make a session; returns each party's token, which is kept only as a hash.

        Raises:
            WriteOnceError: there is such a session.
            BusyError: the tenant has too many.
            StorageError: the disk is full.
        """
        with self._lock:
            folder = self._root / terms.session
            if folder.exists():
                raise WriteOnceError("this session was created before: change the nonce")
            if self._count(tenant) >= self._limits.sessions:
                raise BusyError(f"{self._limits.sessions} sessions at most: delete old ones")
            tokens = {name: secrets.token_urlsafe(_TOKEN_BYTES) for name in terms.parties}
            facts = {
                "terms": terms.to_json(),
                "tenant": tenant,
                "tokens": [_digest(tokens[name]) for name in terms.parties],
                "created": self._now(),
            }
            with storing("store a session"):
                making = self._root / f".{secrets.token_hex(8)}"
                for name in ("entries", "blobs"):
                    (making / name).mkdir(parents=True, mode=0o700)
                self._write(making / "session.json", json.dumps(facts).encode())
                os.rename(making, folder)
                sync_folder(self._root)
            return tokens

    def member(self, session: str, token: str) -> Member:
        """Return whose token this is.

        Raises:
            UnknownSessionError: no such session.
            ForbiddenError: no party of it has this token.
        """
        given, found = _digest(token), -1
        hashes = self._facts(session)["tokens"]
        for party, known in enumerate(hashes if isinstance(hashes, list) else []):
            if hmac.compare_digest(str(known), given):
                found = party
        if found < 0:
            raise ForbiddenError("send the token of a party of this session")
        return Member(session, found)

    def terms(self, session: str) -> SessionTerms:
        """Return a session's terms."""
        fields = self._facts(session)["terms"]
        return SessionTerms.from_json(fields if isinstance(fields, dict) else {})

    def state(self, session: str) -> dict[str, object]:
        """Say which entries there are, who is missing in each step, and who is late."""
        facts, terms = self._facts(session), self.terms(session)
        steps: dict[str, dict[int, float]] = {}
        for path in (self._root / session / "entries").iterdir():
            step, _, party = path.name.rpartition(".")
            if step and party.isdecimal() and not path.name.startswith("."):
                steps.setdefault(step, {})[int(party)] = path.stat().st_mtime
        latest = max((t for times in steps.values() for t in times.values()), default=None)
        since = latest if latest is not None else float(str(facts["created"]))
        late = self._now() - since > terms.step_seconds
        count = len(terms.parties)
        described = {
            step: {
                "parties": sorted(times),
                "missing": [terms.parties[p] for p in authors(step, count) if p not in times],
            }
            for step, times in sorted(steps.items())
        }
        return {
            "session": session,
            "terms": terms.to_json(),
            "steps": described,
            "seconds_since_last": max(0.0, self._now() - since),
            "overdue": late,
        }

    def entry(self, session: str, step: str, party: int) -> bytes:
        """Return an entry.

        Raises:
            MissingPartyError: it is not there.
        """
        terms = self.terms(session)
        try:
            return self._entry_path(session, step, party).read_bytes()
        except FileNotFoundError as error:
            name = terms.parties[party] if party < len(terms.parties) else f"party {party}"
            raise MissingPartyError(f"{name!r} has not sent step {step!r} yet") from error

    def add_entry(self, member: Member, step: str, party: int, content: bytes) -> bool:
        """Take an entry in; returns whether it is new.

        Raises:
            WriteOnceError: another one is there.
            ForbiddenError: not the member's own.
            PartyError: its session, step or author are not those of the address, or a payload
                that it names has not been sent.
            WireError: not an entry.
        """
        signed = SignedEntry.from_bytes(content)
        entry, terms = signed.entry, self.terms(member.session)
        if (entry.session, entry.step, entry.party) != (member.session, step, party):
            raise PartyError("an entry of another session, step or party than its address says")
        if party != member.party or party not in authors(step, len(terms.parties)):
            raise ForbiddenError("a party writes its own entries only, and in steps it writes in")
        target = self._entry_path(member.session, step, party)
        for blob in entry.blobs:
            path = self._blob_path(member.session, blob.sha256)
            if not path.exists() or path.stat().st_size != blob.length:
                raise PartyError(f"payload {blob.label!r} has not been sent: send it first")
        with self._lock:
            known = len(list(target.parent.iterdir()))
            if known >= self._limits.entries and not target.exists():
                raise StorageError(f"a session has at most {self._limits.entries} entries")
            return self._link(target, content)

    def present(self, member: Member, sha256s: list[str]) -> list[str]:
        """Return which payloads are there."""
        return [s for s in sha256s if self._blob_path(member.session, _hex(s)).exists()]

    def open_blob(self, member: Member, sha256: str, length: int | None) -> BlobUpload:
        """Begin the upload of a payload.

        Raises:
            StorageError: the party's quota is used up.
            OversizedError, BadRequestError: the declared length.
        """
        if length is None:
            raise BadRequestError("payloads need a Content-Length")
        with self._lock:
            folder = self._root / member.session / "blobs"
            used = self._used(member) + self._arriving.get(member, 0)
            if used + length > self._limits.session_bytes:
                raise StorageError(
                    f"{length} bytes do not fit into the {self._limits.session_bytes - used} left "
                    "of this party's quota"
                )
            target = self._blob_path(member.session, _hex(sha256))
            temporary = folder / f"{sha256}.{member.party}.{secrets.token_hex(8)}.part"
            self._arriving[member] = self._arriving.get(member, 0) + length
        done = partial(self._arrived, member, length)
        try:
            return BlobUpload(sha256, length, temporary, target, member.party, done)
        except BaseException:
            done()
            raise

    def blob_path(self, session: str, sha256: str) -> Path:
        """Return a payload's file.

        Raises:
            MissingPartyError: it is not there.
        """
        path = self._blob_path(session, _hex(sha256))
        if not path.exists():
            raise MissingPartyError("no such payload: it has not been sent yet")
        return path

    def delete(self, tenant: str, session: str) -> None:
        """Remove a session.

        Raises:
            UnknownSessionError: none of this tenant.
        """
        if self._facts(session)["tenant"] != tenant:
            raise UnknownSessionError("no such session")
        with self._lock:
            doomed = self._root / f".deleted-{secrets.token_hex(8)}"
            os.rename(self._root / session, doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    def expire(self) -> int:
        """Remove sessions in which nothing has happened for too long; returns how many."""
        limit, removed = self._limits.seconds_to_live, 0
        if not limit:
            return 0
        for path in self._root.glob("*/session.json"):
            folder = path.parent
            touched = max(path.stat().st_mtime, (folder / "entries").stat().st_mtime)
            if self._now() - touched > limit:
                shutil.rmtree(folder, ignore_errors=True)
                removed += 1
        return removed

    def _arrived(self, member: Member, length: int) -> None:
        with self._lock:
            self._arriving[member] -= length

    def _facts(self, session: str) -> dict[str, object]:
        try:
            facts = json.loads((self._root / _hex(session) / "session.json").read_bytes())
        except FileNotFoundError as error:
            raise UnknownSessionError("no such session") from error
        return facts if isinstance(facts, dict) else {}

    def _count(self, tenant: str) -> int:
        facts = (json.loads(p.read_bytes()) for p in self._root.glob("*/session.json"))
        return sum(f.get("tenant") == tenant for f in facts)

    def _used(self, member: Member) -> int:
        folder = self._root / member.session / "blobs"
        mine = f".{member.party}"
        owned = [p for p in folder.iterdir() if p.name.endswith(mine)]
        return sum((folder / p.stem).stat().st_size for p in owned if (folder / p.stem).exists())

    def _entry_path(self, session: str, step: str, party: int) -> Path:
        authors(step, 1)  # refuses what is no step
        return self._root / _hex(session) / "entries" / f"{step}.{party}"

    def _blob_path(self, session: str, sha256: str) -> Path:
        return self._root / _hex(session) / "blobs" / sha256

    def _link(self, target: Path, content: bytes) -> bool:
        temporary = target.with_name(f".{secrets.token_hex(8)}.part")
        with storing("store an entry"):
            try:
                self._write(temporary, content)
                os.link(temporary, target)
                sync_folder(target.parent)
                return True
            except FileExistsError:
                if target.read_bytes() == content:
                    return False
                raise WriteOnceError(
                    "this party has sent another entry for this step before, which stands"
                ) from None
            finally:
                temporary.unlink(missing_ok=True)

    def _write(self, path: Path, content: bytes) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            write_all(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def _hex(text: str) -> str:
    if len(text) != 64 or not set(text) <= _HEX_DIGITS:
        raise BadRequestError("64 hexadecimal digits expected")
    return text
