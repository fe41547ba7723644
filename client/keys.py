"""Key pairs: a secret key and the evaluation keys made from it.

Evaluation keys let a server compute on ciphertexts and reveal nothing; they are made one at a time,
written to disk as frames, and named together by `key_id`. The secret key never leaves this process
except into a key file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tacit.client.context import ClientContext, make_context
from tacit.client.frames import FrameEntry, FrameFolder, Progress, no_progress
from tacit.client.key_files import KeyFile, read_key_file, write_key_file
from tacit.client.secret import SecretKey
from tacit.errors import (
    ArtifactError,
    ExpiredKeyError,
    KeyFileError,
    ParameterError,
    ParameterMismatchError,
)
from tacit.evaluation_keys import NeededKey, full_key, keys_at
from tacit.key_levels import KeyLevels
from tacit.key_trimming import trimmed
from tacit.openfhe_keys import (
    ForeignKey,
    SparseKeys,
    read_automorphism_keys,
    read_relinearization_key,
    read_sparse_keys,
)
from tacit.params import CryptoParams
from tacit.signature import Signature
from tacit.wire import EvaluationKey, KeyKind, encode_evaluation_key, key_id
from tacit.wire_key import key_moduli

_FORMAT = 1
_UNREADABLE = (
    *(KeyError, ValueError, TypeError, IndexError, AttributeError),
    *(ParameterError, ArtifactError),
)


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What is known of a key pair without its secret.

    Attributes:
        params: the CKKS parameters.
        rotations: rotation steps (left, in slots) it has Galois keys for.
        relinearization: whether it has a relinearisation key.
        frames: its evaluation-key frames, the relinearisation key first.
        created: seconds since 1970, UTC.
        ttl: seconds it may be used for; None for ever.
        bootstraps: whether it has the keys of bootstrapping.
        key_levels: the highest level that each key is for; None for the top, as in older files.
    """

    params: CryptoParams
    rotations: tuple[int, ...]
    relinearization: bool
    frames: tuple[FrameEntry, ...]
    created: float
    ttl: float | None = None
    bootstraps: bool = False
    key_levels: KeyLevels | None = None

    @property
    def made(self) -> tuple[NeededKey, ...]:
        """The evaluation keys, in the order of the frames."""
        asked = (self.rotations, self.relinearization, self.bootstraps)
        top = KeyLevels.same(self.params.depth, self.params, *asked)
        return keys_at(self.key_levels or top, self.params)

    def checked(self) -> tuple[NeededKey, ...]:
        """Return the evaluation keys if their levels are of these keys and parameters.

        Raises:
            ParameterError: they are not.
        """
        asked = (self.rotations, self.relinearization, self.bootstraps)
        top = KeyLevels.same(self.params.depth, self.params, *asked)
        levels = self.key_levels or top
        known = all(0 <= level <= self.params.depth for level in levels.levels())
        if not known or not levels.same_keys(top):
            raise ParameterError(
                "a level from 0 to the parameters' depth is needed for each evaluation key, and "
                "for no other: take rotations and levels from one signature"
            )
        return self.made

    @property
    def full_key_bytes(self) -> int:
        """Bytes of the frames if every key had all its limbs."""
        return sum(full_key(key, self.params).frame_bytes(self.params) for key in self.made)

    @property
    def key_id(self) -> str:
        """Name of the key set, 64 hexadecimal digits."""
        digests = [bytes.fromhex(entry.sha256) for entry in self.frames]
        return key_id(self.params.digest, digests).hex()

    @property
    def key_bytes(self) -> int:
        """Bytes of all evaluation-key frames."""
        return sum(entry.length for entry in self.frames)

    def expired(self, now: float) -> bool:
        """Tell whether the keys are older than they may be."""
        return self.ttl is not None and now > self.created + self.ttl

    def to_json(self) -> dict[str, object]:
        """Return a JSON-serialisable dict."""
        levels = self.key_levels
        return {
            "format": _FORMAT,
            "params": self.params.to_json(),
            "rotations": list(self.rotations),
            "relinearization": self.relinearization,
            "frames": [[entry.sha256, entry.length] for entry in self.frames],
            "created": self.created,
            "ttl": self.ttl,
            "bootstraps": self.bootstraps,
            "key_levels": None if levels is None else levels.to_json(),
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, object]) -> KeyFacts:
        """Rebuild from `to_json`.

        Raises:
            KeyFileError: another format, or a field is missing or of the wrong type.
        """
        if fields.get("format") != _FORMAT:
            raise KeyFileError("made by another version of Tacit: make new keys")
        try:
            return _facts(fields)
        except _UNREADABLE as error:
            raise KeyFileError("the key file's header is damaged: make new keys") from error


def _facts(fields: Mapping[str, Any]) -> KeyFacts:
    ttl, levels = fields["ttl"], fields.get("key_levels")
    return KeyFacts(
        CryptoParams.from_json(fields["params"]),
        tuple(int(step) for step in fields["rotations"]),
        bool(fields["relinearization"]),
        tuple(FrameEntry(str(sha256), int(length)) for sha256, length in fields["frames"]),
        float(fields["created"]),
        None if ttl is None else float(ttl),
        bool(fields.get("bootstraps", False)),
        None if levels is None else KeyLevels.from_json(levels),
    )


@dataclass(frozen=True, slots=True, eq=False)
class KeyPair:
    """A secret key, its context, and where its evaluation-key frames are."""

    facts: KeyFacts
    context: ClientContext = field(repr=False)
    secret: SecretKey
    folder: FrameFolder

    @classmethod
    def generate(
        cls,
        params: CryptoParams,
        rotations: Sequence[int],
        relinearization: bool,
        folder: Path,
        *,
        bootstraps: bool = False,
        key_levels: KeyLevels | None = None,
        ttl: float | None = None,
        progress: Progress = no_progress,
        allow_insecure: bool = False,
    ) -> KeyPair:
        """Make a secret key and its evaluation keys, one at a time.

        Args:
            params: the CKKS parameters.
            rotations: rotation steps (left, in slots), as in a signature.
            relinearization: whether to make the relinearisation key.
            folder: where the frames are written.
            bootstraps: whether to make the keys of bootstrapping.
            key_levels: the highest level that each key is for: they are trimmed to it. None for
                the top.
            ttl: seconds the keys may be used for.
            progress: hears "keys", how many are made, and how many there are.
            allow_insecure: accept parameters below 128 bits, in tests.

        Raises:
            SecurityError: parameters below 128 bits, and not `allow_insecure`.
            ParameterError: levels of other keys than those asked for, or above the parameters.
            KeyFileError: the folder cannot be written.
            UnusableEnvironmentError: OpenFHE cannot be imported, or the process was forked.
        """
        context = make_context(params, allow_insecure=allow_insecure)
        secret = SecretKey.generate(context)
        frames = FrameFolder(folder)
        steps = tuple(sorted(rotations))
        asked = KeyFacts(
            params, steps, relinearization, (), time.time(), ttl, bootstraps, key_levels
        )
        keys = asked.checked()
        entries: list[FrameEntry] = []
        progress("keys", 0, len(keys))
        for frame in evaluation_frames(context, secret, keys):
            entries.append(frames.add(frame))
            progress("keys", len(entries), len(keys))
        return cls(replace(asked, frames=tuple(entries)), context, secret, frames)

    @classmethod
    def for_model(
        cls,
        signature: Signature,
        folder: Path,
        *,
        ttl: float | None = None,
        progress: Progress = no_progress,
        allow_insecure: bool = False,
    ) -> KeyPair:
        """Make the keys a model needs; arguments and errors are those of `generate`."""
        return cls.generate(
            signature.params,
            signature.rotations,
            signature.relinearization,
            folder,
            bootstraps=signature.bootstraps,
            key_levels=signature.key_levels,
            ttl=ttl,
            progress=progress,
            allow_insecure=allow_insecure,
        )

    @classmethod
    def load(
        cls,
        path: Path,
        folder: Path,
        passphrase: str | None = None,
        *,
        allow_insecure: bool = False,
    ) -> KeyPair:
        """Read a key file; the frames must be in `folder`.

        Raises:
            KeyFileError: missing, damaged, readable by others, or the passphrase is wrong.
        """
        content = read_key_file(path, passphrase)
        facts = KeyFacts.from_json(content.facts)
        frames = FrameFolder(folder)
        if frames.missing(facts.frames):
            raise KeyFileError(f"evaluation-key frames are missing in {folder}: make new keys")
        context = make_context(facts.params, allow_insecure=allow_insecure)
        return cls(facts, context, SecretKey.from_bytes(context, content.secret), frames)

    def save(self, path: Path, passphrase: str | None = None) -> None:
        """Write the key file, mode 0600.

        Raises:
            KeyFileError: it cannot be written.
        """
        write_key_file(path, KeyFile(self.facts.to_json(), self.secret.to_bytes()), passphrase)

    def moved(self, folder: Path) -> KeyPair:
        """Return the same pair after its frames were moved to another folder."""
        return replace(self, folder=FrameFolder(folder))

    @property
    def params(self) -> CryptoParams:
        """The CKKS parameters."""
        return self.facts.params

    @property
    def key_id(self) -> str:
        """Name of the key set, 64 hexadecimal digits."""
        return self.facts.key_id

    def check(self, signature: Signature, now: Callable[[], float] = time.time) -> None:
        """Return if the keys are young enough and are the ones a model needs.

        Raises:
            ExpiredKeyError: too old.
            ParameterMismatchError: made for other parameters or rotations.
        """
        if self.facts.expired(now()):
            raise ExpiredKeyError("these keys are older than they may be: make new ones")
        made = set(self.facts.made)
        if self.params != signature.params or made != set(signature.needed_keys):
            raise ParameterMismatchError(
                f"these keys were not made for {signature.model!r} version {signature.version}: "
                "make keys from its signature"
            )


def evaluation_frames(
    context: ClientContext, secret: SecretKey, needed: Iterable[NeededKey]
) -> Iterator[bytes]:
    """Make evaluation keys one at a time and yield each as a frame; one is in memory at a time."""
    params = context.params
    wanted = tuple(needed)
    for want, key in zip(wanted, make_keys(context, secret, wanted), strict=True):
        moduli, special = params.moduli, params.special_moduli
        yield encode_evaluation_key(key, moduli, special, limbs=want.limbs)


def make_keys(
    context: ClientContext, secret: SecretKey, needed: Iterable[NeededKey]
) -> Iterator[EvaluationKey]:
    """Make evaluation keys one at a time, each trimmed to the limbs that are needed.

    OpenFHE makes keys with all limbs; one such key is in memory at a time, but the two of a sparse
    secret are made together.
    """
    sparse: SparseKeys | None = None
    for want in needed:
        match want.kind:
            case KeyKind.RELINEARIZATION:
                key, _ = read_relinearization_key(secret.relinearization_archive())
            case KeyKind.ROTATION:
                archive = secret.automorphism_archive(want.element)
                key = read_automorphism_keys(archive)[0][want.element]
            case KeyKind.TO_SPARSE | KeyKind.FROM_SPARSE:
                sparse = sparse or read_sparse_keys(secret.sparse_archive())
                key = sparse.to_sparse if want.kind is KeyKind.TO_SPARSE else sparse.from_sparse
        yield trimmed(_checked(context, key, want), want.limbs, context.params)


def _checked(context: ClientContext, key: ForeignKey, want: NeededKey) -> EvaluationKey:
    params = context.params
    _, special = key_moduli(want.kind, params.log_n, params.moduli, params.special_moduli)
    if key.special_moduli != special:
        raise ParameterError("OpenFHE uses other special moduli than the parameters: use 1.6.1")
    return EvaluationKey(key.limbs, want.kind, want.element, params.digest)
