"""Sessions of several parties: one joint key, nobody who could decrypt alone.

    party, invitations = tacit.Party.create(url, terms, directory)        # the first party
    party = tacit.Party.join(url, session, "hospital b", token, directory)  # every other one
    model = party.keygen()
    moments = party.moments(x)

Every call can be repeated after a crash or a lost connection: what was sent stays as it was.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tacit.client.closing import Closing
from tacit.client.context import make_context
from tacit.client.joint_model import JointModel
from tacit.client.party_folder import PartyFolder
from tacit.client.party_keys import KeyGeneration
from tacit.client.party_moments import PooledMoments, pooled_curvature, pooled_moments
from tacit.client.party_relay import Relay
from tacit.client.party_session import PartySession, StepCost
from tacit.client.party_sums import JointSums
from tacit.errors import PartyError
from tacit.party_entry import KEY_STEPS
from tacit.party_terms import Column, SessionTerms, check_bootstraps
from tacit.signature import Signature

Floats = NDArray[np.float64]

_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class PartyStatus:
    """Where a session stands, as far as this party has checked it.

    Attributes:
        session: its id.
        party: this party's name.
        step: the step of key generation that is not complete yet; "" when all are.
        missing: who has not written in it.
        overdue: whether nothing was heard for longer than the terms allow.
        fingerprint: what people compare; "" before everybody has said hello.
        key_id: of the joint key set; "" before it is tested.
        ended: whether the session ended with a failed test.
        activities: names of steps after key generation, with who is missing in each.
    """

    session: str
    party: str
    step: str
    missing: tuple[str, ...]
    overdue: bool
    fingerprint: str
    key_id: str
    ended: bool
    activities: dict[str, tuple[str, ...]]


class Party(Closing):
    """One party of one session; a context manager. One process uses its folder at a time."""

    def __init__(self, session: PartySession, *, allow_insecure: bool = False) -> None:
        """Take part; use `create`, `join` or `open`."""
        self.session = session
        context = make_context(
            session.terms.params, allow_insecure=allow_insecure, several_parties=True
        )
        self._keys = KeyGeneration(session, context)

    @classmethod
    def create(
        cls,
        url: str,
        terms: SessionTerms,
        directory: Path | str,
        *,
        token: str | None = None,
        passphrase: str | None = None,
        allow_insecure: bool = False,
    ) -> tuple[Party, dict[str, str]]:
        """Create a session at a relay and take part in it as its first party.

        Args:
            url: of the server.
            terms: what all agree on.
            directory: this party's folder, made if it is not there.
            token: bearer token, if the server wants one.
            passphrase: protects the private keys in the folder.
            allow_insecure: accept parameters below 128 bits; for tests only.

        Returns:
            The party, and the other parties' tokens by name: hand each to its party only.

        Raises:
            ServiceError: the server cannot be reached or refuses.
            SecurityError: parameters below 128 bits.
        """
        with Relay(url, token=token) as relay:
            tokens = relay.create(terms)
        first = terms.parties[0]
        party = cls.join(
            url,
            terms.session,
            first,
            tokens.pop(first),
            directory,
            token=token,
            passphrase=passphrase,
            allow_insecure=allow_insecure,
        )
        return party, tokens

    @classmethod
    def join(
        cls,
        url: str,
        session: str,
        name: str,
        invitation: str,
        directory: Path | str,
        *,
        columns: Sequence[str] | None = None,
        token: str | None = None,
        passphrase: str | None = None,
        allow_insecure: bool = False,
    ) -> Party:
        """Join a session; its terms are fetched and must have the session's id.

        Args:
            url: of the server.
            session: its id, heard from the first party, not from the server.
            name: of this party.
            invitation: this party's token.
            directory: its folder, made if it is not there.
            columns: of this party's table: must be those of the terms, in order.
            token, passphrase, allow_insecure: see `create`.

        Raises:
            PartyError: no such party, or the folder belongs to another session.
            SchemaMismatchError: other columns.
            ServiceError: the server cannot be reached or refuses.
        """
        relay = Relay(url, session, party_token=invitation, token=token)
        folder = PartyFolder(Path(directory), passphrase)
        with _closing(relay, folder):
            terms = relay.terms()
            index = terms.index_of(name)
            if columns is not None:
                terms.check_columns(columns)
            folder.create(terms, {"url": url, "party": index}, invitation)
            opened = PartySession.open(folder, relay, terms, index)
            return cls(opened, allow_insecure=allow_insecure)

    @classmethod
    def open(
        cls,
        directory: Path | str,
        *,
        token: str | None = None,
        passphrase: str | None = None,
        allow_insecure: bool = False,
    ) -> Party:
        """Go on with a session from this party's folder.

        Raises:
            KeyFileError: no such folder, or it is damaged.
            PartyError: another process has it.
        """
        folder = PartyFolder(Path(directory), passphrase)
        with _closing(folder):
            folder.lock()
            facts, terms = folder.read_json("party.json"), folder.terms()
            party_token, index = folder.token(), facts.get("party")
            if type(index) is not int:
                raise PartyError(f"{folder.path} does not say whose it is")
        url = str(facts.get("url"))
        relay = Relay(url, terms.session, party_token=party_token, token=token)
        with _closing(relay, folder):
            opened = PartySession.open(folder, relay, terms, index)
            return cls(opened, allow_insecure=allow_insecure)

    def __repr__(self) -> str:
        return f"Party({self.name!r}, session {self.terms.session[:12]})"

    def close(self) -> None:
        """Close the connections and let the folder go."""
        self.session.close()

    @property
    def terms(self) -> SessionTerms:
        """What all agreed on."""
        return self.session.terms

    @property
    def name(self) -> str:
        """This party's name."""
        return self.terms.parties[self.session.party]

    @property
    def costs(self) -> dict[str, StepCost]:
        """Seconds and bytes of each step that was worked on in this process."""
        return dict(self.session.costs)

    def keygen(self, *, seconds: float = _HOUR) -> JointModel:
        """Make the joint key with the others, or go on; returns it when it is tested.

        Args:
            seconds: how long to wait for the others in each step.

        Raises:
            MissingPartyError: names who did not come; call again later.
            WrongShareError: the test failed; names whose share was wrong. The session has ended.
            TranscriptError, SchemaMismatchError, WriteOnceError: the parties do not agree.
        """
        self._keys.run(seconds)
        return self.model()

    def model(self) -> JointModel:
        """Return the joint key that `keygen` made.

        Raises:
            PartyError: it is not made yet.
        """
        self._keys.facts()
        return JointModel(self._keys)

    def moments(self, x: Floats, *, name: str = "moments", seconds: float = _HOUR) -> PooledMoments:
        """Compute the pooled table's counts, means and deviations; see `pooled_moments`."""
        return pooled_moments(JointSums(self._keys, name), x, seconds)

    def curvature(
        self,
        moments: PooledMoments,
        x: Floats,
        *,
        name: str = "curvature",
        seconds: float = _HOUR,
    ) -> float:
        """Compute the curvature of the pooled logistic loss; see `pooled_curvature`."""
        return pooled_curvature(JointSums(self._keys, name), moments, x, seconds)

    def sums(self, name: str, values: Floats, *, seconds: float = _HOUR) -> Floats:
        """Add numbers up over all parties; only the totals are decrypted. See `JointSums.run`."""
        return JointSums(self._keys, name).run(values, seconds)

    def verify(self) -> int:
        """Check the kept transcript, without the relay; returns the number of entries.

        Raises:
            TranscriptError, WriteOnceError, SchemaMismatchError: something is wrong with one.
        """
        session = self.session
        checked = PartySession.open(session.folder, session.relay, session.terms, session.party)
        if checked.transcript.complete("key"):
            self._keys.test.key_id()
        return len(checked.transcript.entries)

    def status(self) -> PartyStatus:
        """Fetch what is new and say where the session stands.

        Raises:
            ServiceError: the relay cannot be reached or refuses.
            TranscriptError: an entry is wrong.
        """
        session = self.session
        session.sync()
        transcript, names = session.transcript, self.terms.parties
        step = next((s for s in KEY_STEPS if not transcript.complete(s)), "")
        later = sorted({s for s, _ in transcript.entries} - set(KEY_STEPS))
        missing = transcript.missing(step) if step else ()
        return PartyStatus(
            session=self.terms.session,
            party=self.name,
            step=step,
            missing=tuple(names[p] for p in missing),
            overdue=bool(missing) and session.relay.state().get("overdue") is True,
            fingerprint=transcript.fingerprint if transcript.complete("hello") else "",
            key_id=self._keys.facts().key_id if session.folder.has("joint.json") else "",
            ended=session.folder.has("given-up"),
            activities={s: tuple(names[p] for p in transcript.missing(s)) for s in later},
        )


@contextmanager
def _closing(*opened: Relay | PartyFolder) -> Iterator[None]:
    """Close what was opened if what follows fails."""
    try:
        yield
    except BaseException:
        for one in opened:
            one.close()
        raise


def terms_for(
    signature: Signature,
    name: str,
    parties: Sequence[str],
    columns: Sequence[Column],
    most_rows: int,
    *,
    smudging_bits: int = 30,
    least_smudging_bits: int = 30,
    precision_bits: int = 10,
    step_seconds: int = 86400,
) -> SessionTerms:
    """Write the terms of a session for a model or a training that a server offers.

    Args:
        signature: its public half.
        name: of the session, for people.
        parties: names, the first one leads.
        columns: the features with their public ranges.
        most_rows: of all parties together, at most.
        smudging_bits, least_smudging_bits, precision_bits, step_seconds: see `SessionTerms`.

    Raises:
        UnsupportedKeysError: it bootstraps.
        PartyError, SchemaMismatchError: terms that cannot be.
    """
    check_bootstraps(signature.bootstraps)
    return SessionTerms(
        name=name,
        parties=tuple(parties),
        params=signature.params,
        rotations=signature.rotations,
        relinearization=signature.relinearization,
        key_levels=signature.key_levels,
        columns=tuple(columns),
        most_rows=most_rows,
        nonce=secrets.token_hex(16),
        smudging_bits=smudging_bits,
        least_smudging_bits=least_smudging_bits,
        precision_bits=precision_bits,
        step_seconds=step_seconds,
        model=signature.model,
        key_config=signature.key_config,
    )
