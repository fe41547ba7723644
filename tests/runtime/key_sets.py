"""Evaluation-key frames with random residues: well-formed, of no use, made without OpenFHE."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import httpx
import numpy as np
from numpy.typing import NDArray

from tacit import wire
from tacit.evaluation_keys import NeededKey
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


def random_limbs(
    signature: Signature, seed: int, needed: NeededKey | None = None
) -> NDArray[np.uint64]:
    """Residues of one key, shape (2, digits, limbs of Q and P, N); by default a full one."""
    params = signature.params
    whole = NeededKey(wire.KeyKind.RELINEARIZATION, 0, len(params.moduli))
    key = needed or whole
    moduli = np.array(key.moduli(params), dtype=np.uint64)
    shape = (2, key.digits(params), len(moduli), params.n)
    draws = np.random.default_rng(seed).integers(0, 1 << 63, shape, dtype=np.uint64)
    return draws % moduli[:, None]


def random_key_set(
    signature: Signature,
    seed: int,
    elements: list[int] | None = None,
    *,
    packing: wire.Packing = wire.Packing.BITS,
) -> KeySet:
    """One frame for each key the signature needs; or full ones for `elements`, 0 relinearises."""
    params = signature.params
    needed: Sequence[NeededKey] = signature.needed_keys
    if elements is not None:
        kinds = [wire.KeyKind.ROTATION if e else wire.KeyKind.RELINEARIZATION for e in elements]
        whole = len(params.moduli)
        needed = [NeededKey(k, e, whole) for k, e in zip(kinds, elements, strict=True)]
    frames = {}
    for index, want in enumerate(needed):
        limbs = random_limbs(signature, 1000 * seed + index, want)
        key = wire.EvaluationKey(limbs, want.kind, want.element, params.digest)
        frame = wire.encode_evaluation_key(
            key, params.moduli, params.special_moduli, packing, limbs=want.limbs
        )
        frames[hashlib.sha256(frame).hexdigest()] = frame
    return KeySet(signature, frames)
