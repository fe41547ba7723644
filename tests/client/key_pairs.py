"""Key pairs of one secret: the full keys, and the same ones trimmed for a model."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from tacit import wire
from tacit.client.frames import FrameFolder
from tacit.client.keys import KeyFacts, KeyPair
from tacit.key_trimming import trimmed
from tacit.signature import Signature


def full_pair(signature: Signature, folder: Path) -> KeyPair:
    """Make keys with all limbs for insecure parameters."""
    return KeyPair.generate(
        signature.params,
        signature.rotations,
        signature.relinearization,
        folder,
        bootstraps=signature.bootstraps,
        allow_insecure=True,
    )


def decoded(keys: KeyPair) -> list[wire.EvaluationKey]:
    """Read the frames of keys with all limbs."""
    p = keys.params
    expected = wire.KeyExpectation(p.digest, p.log_n, p.moduli, p.special_moduli, p.dnum)
    frames = [keys.folder.file(entry).read_bytes() for entry in keys.facts.frames]
    return [wire.decode_evaluation_key(frame, expected) for frame in frames]


def trimmed_pair(full: KeyPair, signature: Signature, folder: Path) -> KeyPair:
    """Trim full keys to the levels of a signature; the secret stays the same."""
    params, frames = full.params, FrameFolder(folder)
    entries = []
    for key, want in zip(decoded(full), signature.needed_keys, strict=True):
        small = trimmed(key, want.limbs, params)
        frame = wire.encode_evaluation_key(
            small, params.moduli, params.special_moduli, limbs=want.limbs
        )
        entries.append(frames.add(frame))
    facts: KeyFacts = replace(
        full.facts,
        frames=tuple(entries),
        created=time.time(),
        key_levels=signature.key_levels,
    )
    return replace(full, facts=facts, folder=frames)


def readdressed(frame: bytes, keys: KeyPair) -> bytes:
    """Name another key set of the same secret in a ciphertext frame."""
    p = keys.params
    scales = tuple(p.scale(level) for level in range(p.depth + 1))
    expected = wire.CiphertextExpectation(p.digest, p.log_n, p.moduli, scales)
    sent = wire.decode_ciphertext(frame, expected)
    return wire.encode_ciphertext(replace(sent, key_id=bytes.fromhex(keys.key_id)), p.moduli)


def payload(frame: bytes) -> bytes:
    """Return what follows the key id in a ciphertext frame's header, and the limbs."""
    return bytes(frame[96:])
