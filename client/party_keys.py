"""Joint key generation: the steps `hello` to `check` of one party.

See `tacit.party_entry` for the steps and docs/parties.md for why they are as they are.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tacit.client.context import ClientContext
from tacit.client.frames import FrameEntry, FrameFolder
from tacit.client.keys import KeyFacts
from tacit.client.party_blame import Blame
from tacit.client.party_check import TEST_BITS, KeyTest
from tacit.client.party_public import JointPublicKey
from tacit.client.party_secret import PartySecret, joint_key_a, joint_public_a
from tacit.client.party_session import PartySession, Said
from tacit.client.party_shares import (
    PRODUCT,
    PUBLIC,
    RELINEARIZATION,
    TEST,
    ShareReader,
    kept,
    rotation_label,
)
from tacit.client.party_smudging import largest_log_bound, smudged
from tacit.errors import KeyFileError, ParameterError, PartyError, WrongShareError
from tacit.key_trimming import padded
from tacit.params import CryptoParams
from tacit.party_entry import KEY_STEPS, Blob
from tacit.party_frame import Share, ShareKind, encode_share
from tacit.party_transcript import commitment
from tacit.wire import (
    EvaluationKey,
    KeyKind,
    encode_ciphertext,
    encode_evaluation_key,
    key_id,
)

Limbs = NDArray[np.uint64]


@dataclass(slots=True, eq=False)
class KeyGeneration:
    """The making of a joint key by one party.

    Attributes:
        session: of the party.
        context: made for several parties.
    """

    session: PartySession
    context: ClientContext
    _secret: PartySecret | None = field(default=None, repr=False)
    _public: JointPublicKey | None = field(default=None, repr=False)

    def run(self, seconds: float) -> KeyFacts:
        """Take part until the joint key is made and tested, or go on after a restart.

        Args:
            seconds: how long to wait for the others in each step.

        Returns:
            What is known of the joint key set.

        Raises:
            MissingPartyError: names who did not come.
            WrongShareError: the test failed; names whose share was wrong.
            TranscriptError, SchemaMismatchError, WriteOnceError: the parties do not agree.
            ParameterError: the parameters leave no room for the noise of shares.
        """
        session = self.session
        if session.folder.has("joint.json"):
            return self.facts()
        self._check_parameters()
        for step in KEY_STEPS:
            if session.leads or step != "key":
                session.say(step, partial(self._said, step))
            session.wait(step, seconds)
        session.working("check", lambda: self._finish(seconds))
        return self.facts()

    def facts(self) -> KeyFacts:
        """Return what is known of the joint key set.

        Raises:
            PartyError: the key is not made yet.
        """
        if not self.session.folder.has("joint.json"):
            raise PartyError("the joint key is not made yet: `tacit party keygen`")
        return KeyFacts.from_json(self.session.folder.read_json("joint.json"))

    @property
    def frames(self) -> FrameFolder:
        """Where the first party keeps the joint evaluation keys."""
        return FrameFolder(self.session.folder.path / "frames")

    def public_key(self) -> JointPublicKey:
        """Return the joint public key: the sum of the signed shares of all."""
        transcript = self.session.transcript
        if self._public is not None:
            return self._public
        limbs = np.stack([self.reader.public_sum(), joint_public_a(self._params, transcript.seed)])
        named = self.test.key_id() if transcript.complete("key") else bytes(32)
        made = JointPublicKey.of(self.context, limbs, named)
        # Before the key set is assembled it has no name yet.
        self._public = made if any(named) else None
        return made

    def secret(self) -> PartySecret:
        """Read this party's share of the joint secret, and compare it with its public share.

        Raises:
            KeyFileError: it cannot be read, or is not the secret of this session.
        """
        if self._secret is not None:
            return self._secret
        read = PartySecret.from_bytes(self.context, self.session.folder.read_secret("secret.key"))
        own = self.reader.public_share(self.session.transcript.entry("share", self.session.party))
        if not Blame(self._params, self.session.transcript.seed).public_share_fits(
            own, read.limbs()
        ):
            raise KeyFileError("this folder's secret is not the one of this session's public key")
        self._secret = read
        return read

    @property
    def reader(self) -> ShareReader:
        """Reads the shares of all parties."""
        return ShareReader(self.session, self._params)

    @property
    def test(self) -> KeyTest:
        """The test of the joint key."""
        return KeyTest(self.reader)

    @property
    def _params(self) -> CryptoParams:
        return self.context.params

    def _check_parameters(self) -> None:
        params, parties = self._params, len(self.session.terms.parties)
        if largest_log_bound(params, parties, params.scale(params.depth), TEST_BITS) < 1:
            raise ParameterError(
                f"a scale of 2^{params.log_scale} leaves no room for the noise that OpenFHE adds "
                "to shares of a decryption (2^20 in each coefficient): choose a larger scale"
            )

    def _said(self, step: str) -> Said:
        match step:
            case "hello":
                return self._hello()
            case "seed":
                return {"nonce": self._nonce()}, ()
            case "commit":
                return {"digest": self.session.plan("share", self._make_shares)}, ()
            case "relin":
                return self._relin()
            case "key":
                return self._assemble()
            case "pledge":
                return {"digest": self.session.plan("check", self._make_test_share)}, ()
            case _:
                return self.session.planned(step)

    def _hello(self) -> Said:
        folder, identity = self.session.folder, self.session.identity
        if not folder.has("planned/nonce.json"):
            folder.write_json("planned/nonce.json", {"nonce": secrets.token_hex(32)})
        return {
            "signing": identity.signing_key.hex(),
            "sealing": identity.sealing_key.hex(),
            "commitment": commitment(self._nonce()),
            "schema": self.session.terms.schema_digest,
        }, ()

    def _nonce(self) -> str:
        return str(self.session.folder.read_json("planned/nonce.json")["nonce"])

    def _make_shares(self) -> Said:
        """Make the secret and all first shares. Nothing has left yet if this is run again."""
        params, seed = self._params, self.session.transcript.seed
        secret, b = PartySecret.generate(self.context, joint_public_a(params, seed))
        self.session.folder.write_secret("secret.key", secret.to_bytes())
        blobs = [self._share(PUBLIC, ShareKind.PUBLIC_KEY, 0, b[None], params.moduli)]
        for key in self.session.terms.needed:
            a, moduli, element = (
                joint_key_a(params, seed, key.element),
                key.moduli(params),
                key.element,
            )
            if key.kind is KeyKind.RELINEARIZATION:
                limbs = kept(secret.relinearization_share(a), key, params)
                label, kind = RELINEARIZATION, ShareKind.RELINEARIZATION
            else:
                limbs = kept(secret.rotation_share(element, a), key, params)
                label, kind = rotation_label(element), ShareKind.ROTATION
            blobs.append(self._share(label, kind, element, limbs, moduli))
        return {}, tuple(blobs)

    def _relin(self) -> Said:
        if not self.session.terms.relinearization:
            return {}, ()
        params, key = self._params, self.session.terms.needed[0]
        first = EvaluationKey(self.reader.first_sum(key), key.kind, 0, params.digest)
        made = self.secret().relinearization_product(padded(first, params))
        limbs = kept(made, key, params)
        flat = limbs.reshape(-1, *limbs.shape[2:])
        kind = ShareKind.RELINEARIZATION_PRODUCT
        return {}, (self._share(PRODUCT, kind, 0, flat, key.moduli(params)),)

    def _share(
        self, label: str, kind: ShareKind, element: int, limbs: Limbs, moduli: tuple[int, ...]
    ) -> Blob:
        share = Share(kind, element, limbs, self._params.digest)
        return self.session.folder.add_blob(label, encode_share(share, moduli))

    def _assemble(self) -> Said:
        """The first party: add all shares, keep the keys as frames, and use each key once."""
        params, frames = self._params, self.frames
        entries: list[FrameEntry] = []

        def stored() -> Iterator[EvaluationKey]:
            for want, key in zip(self.session.terms.needed, self.reader.joint_keys(), strict=True):
                frame = encode_evaluation_key(
                    key, params.moduli, params.special_moduli, limbs=want.limbs
                )
                entries.append(frames.add(frame))
                yield key

        public = self.public_key()
        result = public.test_result(self.test.values(), stored(), self.test.limbs)
        named = key_id(params.digest, [bytes.fromhex(entry.sha256) for entry in entries])
        result = replace(result, key_id=named)
        blob = self.session.folder.add_blob(TEST, encode_ciphertext(result, params.moduli))
        listed = [[entry.sha256, entry.length] for entry in entries]
        return {"key_id": named.hex(), "frames": listed}, (blob,)

    def _make_test_share(self) -> Said:
        ciphertext = self.test.ciphertext()
        foreign = self.public_key().foreign(ciphertext)
        share = self.secret().partial_decryption(foreign, leads=self.session.leads)
        moduli = self._params.moduli[: ciphertext.level + 1]
        limbs = smudged(share, moduli, self.test.log_bound(ciphertext))
        kind = ShareKind.PARTIAL_DECRYPTION
        return {}, (self._share(TEST, kind, 0, limbs[None], moduli),)

    def _finish(self, seconds: float) -> None:
        if not self.test.passes(self.public_key()):
            self._give_up(seconds)
        terms = self.session.terms
        facts = KeyFacts(
            self._params,
            terms.rotations,
            terms.relinearization,
            self.test.frames(),
            time.time(),
            key_levels=terms.key_levels,
        )
        self.session.folder.write_json("joint.json", facts.to_json())

    def _give_up(self, seconds: float) -> None:
        """End the session: show our secret, look at everybody's shares, and name who was wrong."""
        session = self.session
        session.folder.write_json("given-up", {"reason": "the test of the joint key failed"})
        session.say("open", self._opened)
        session.wait("open", seconds)
        found = "; ".join(self.test.findings())
        raise WrongShareError(
            f"the test of the joint key failed: {found}. This session has ended: begin a new one"
        )

    def _opened(self) -> Said:
        serialised = self.session.folder.read_secret("secret.key")
        limbs = PartySecret.from_bytes(self.context, serialised).limbs()
        return {}, (self._share("secret", ShareKind.SECRET, 0, limbs[None], self._params.moduli),)
