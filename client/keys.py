"""Key pairs: a secret key and the evaluation keys made from it.

Evaluation keys let a server compute on ciphertexts and reveal nothing; they are made one at a time,
written to disk as frames, and named together by `key_id`. The secret key never leaves this process
except into a key file.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tacit.client.context import ClientContext, make_context
from tacit.client.frames import FrameEntry, FrameFolder, Progress, no_progress
from tacit.client.key_files import KeyFile, read_key_file, write_key_file
from tacit.client.secret import SecretKey
from tacit.errors import ExpiredKeyError, KeyFileError, ParameterError, ParameterMismatchError
from tacit.openfhe_keys import read_automorphism_keys, read_relinearization_key
from tacit.params import CryptoParams
from tacit.signature import Signature
from tacit.wire import EvaluationKey, KeyKind, encode_evaluation_key, key_id

_FORMAT = 1
# OpenFHE keeps made keys in tables of the process until they are removed: one maker at a time.
_MAKING = threading.Lock()


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
    """

    params: CryptoParams
    rotations: tuple[int, ...]
    relinearization: bool
    frames: tuple[FrameEntry, ...]
    created: float
    ttl: float | None = None

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
        return {
            "format": _FORMAT,
            "params": self.params.to_json(),
            "rotations": list(self.rotations),
            "relinearization": self.relinearization,
            "frames": [[entry.sha256, entry.length] for entry in self.frames],
            "created": self.created,
            "ttl": self.ttl,
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
        except (KeyError, ValueError, TypeError, IndexError, ParameterError) as error:
            raise KeyFileError("the key file's header is damaged: make new keys") from error


def _facts(fields: Mapping[str, Any]) -> KeyFacts:
    ttl = fields["ttl"]
    return KeyFacts(
        CryptoParams.from_json(fields["params"]),
        tuple(int(step) for step in fields["rotations"]),
        bool(fields["relinearization"]),
        tuple(FrameEntry(str(sha256), int(length)) for sha256, length in fields["frames"]),
        float(fields["created"]),
        None if ttl is None else float(ttl),
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
            ttl: seconds the keys may be used for.
            progress: hears "keys", how many are made, and how many there are.
            allow_insecure: accept parameters below 128 bits, in tests.

        Raises:
            SecurityError: parameters below 128 bits, and not `allow_insecure`.
            KeyFileError: the folder cannot be written.
            UnusableEnvironmentError: OpenFHE cannot be imported, or the process was forked.
        """
        context = make_context(params, allow_insecure=allow_insecure)
        secret = SecretKey.generate(context)
        frames = FrameFolder(folder)
        elements = galois_elements(params, rotations)
        total = len(elements) + relinearization
        entries: list[FrameEntry] = []
        progress("keys", 0, total)
        for frame in evaluation_frames(context, secret, elements, relinearization):
            entries.append(frames.add(frame))
            progress("keys", len(entries), total)
        facts = KeyFacts(
            params, tuple(sorted(rotations)), relinearization, tuple(entries), time.time(), ttl
        )
        return cls(facts, context, secret, frames)

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
        needed = (signature.params, signature.rotations, signature.relinearization)
        if (self.params, self.facts.rotations, self.facts.relinearization) != needed:
            raise ParameterMismatchError(
                f"these keys were not made for {signature.model!r} version {signature.version}: "
                "make keys from its signature"
            )


def galois_elements(params: CryptoParams, rotations: Sequence[int]) -> tuple[int, ...]:
    """Return the Galois element 5^r modulo 2N of each rotation step r, in order."""
    return tuple(pow(5, step % params.slots, 2 * params.n) for step in rotations)


def evaluation_frames(
    context: ClientContext, secret: SecretKey, elements: Sequence[int], relinearization: bool
) -> Iterator[bytes]:
    """Make evaluation keys one at a time and yield each as a frame; one is in memory at a time."""
    if relinearization:
        with _MAKING:
            archive = secret.relinearization_archive()
        key, _ = read_relinearization_key(archive)
        yield _frame(context, key.limbs, key.special_moduli, KeyKind.RELINEARIZATION, 0)
    for element in elements:
        with _MAKING:
            archive = secret.automorphism_archive(element)
        key = read_automorphism_keys(archive)[0][element]
        yield _frame(context, key.limbs, key.special_moduli, KeyKind.ROTATION, element)


def _frame(
    context: ClientContext,
    limbs: object,
    special_moduli: tuple[int, ...],
    kind: KeyKind,
    element: int,
) -> bytes:
    params = context.params
    if special_moduli != params.special_moduli:
        raise ParameterError("OpenFHE uses other special moduli than the parameters: use 1.6.1")
    key = EvaluationKey(limbs, kind, element, params.digest)  # type: ignore[arg-type]
    return encode_evaluation_key(key, params.moduli, params.special_moduli)
