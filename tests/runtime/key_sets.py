"""Evaluation-key frames with random residues: well-formed, of no use, made without OpenFHE."""

import hashlib
from dataclasses import dataclass

import httpx
import numpy as np
from numpy.typing import NDArray

from tacit import wire
from tacit.runtime.key_rules import galois_elements
from tacit.signature import Signature


@dataclass(frozen=True)
class KeySet:
    """Frames by SHA-256, and what is declared about them."""

    signature: Signature
    frames: dict[str, bytes]

    @property
    def key_id(self) -> str:
        digests = [bytes.fromhex(sha256) for sha256 in self.frames]
        return wire.key_id(self.signature.params.digest, digests).hex()

    @property
    def declaration(self) -> dict[str, object]:
        return {
            "params_digest": self.signature.params.digest.hex(),
            "key_config": self.signature.key_config,
            "frames": [{"sha256": h, "bytes": len(f)} for h, f in self.frames.items()],
        }

    def declare(self, client: httpx.Client) -> httpx.Response:
        return client.post(f"/v1/keys/{self.key_id}", json=self.declaration)

    def put(
        self, client: httpx.Client, sha256: str, content: bytes | None = None
    ) -> httpx.Response:
        frame = self.frames[sha256] if content is None else content
        return client.put(f"/v1/keys/{self.key_id}/frames/{sha256}", content=frame)


def random_limbs(signature: Signature, seed: int) -> NDArray[np.uint64]:
    """Residues of one key, shape (2, digits, limbs of Q and P, N)."""
    params = signature.params
    moduli = np.array([*params.moduli, *params.special_moduli], dtype=np.uint64)
    shape = (2, params.dnum, len(moduli), params.n)
    draws = np.random.default_rng(seed).integers(0, 1 << 63, shape, dtype=np.uint64)
    return draws % moduli[:, None]


def random_key_set(signature: Signature, seed: int, elements: list[int] | None = None) -> KeySet:
    """One frame for each key the signature needs (0 is relinearisation), or for `elements`."""
    params = signature.params
    needed = [0] * signature.relinearization + sorted(galois_elements(signature))
    frames = {}
    for index, element in enumerate(needed if elements is None else elements):
        kind = wire.KeyKind.ROTATION if element else wire.KeyKind.RELINEARIZATION
        limbs = random_limbs(signature, 1000 * seed + index)
        key = wire.EvaluationKey(limbs, kind, element, params.digest)
        frame = wire.encode_evaluation_key(key, params.moduli, params.special_moduli)
        frames[hashlib.sha256(frame).hexdigest()] = frame
    return KeySet(signature, frames)
