"""A search for the secret key in bytes that leave the client."""

import numpy as np
from numpy.typing import NDArray

from tacit.client.keys import KeyPair
from tacit.wire_packing import pack


def secret_limbs(keys: KeyPair) -> NDArray[np.uint64]:
    """The secret key's residues, shape (limbs, N): found in OpenFHE's archive by their length."""
    params, archive = keys.params, keys.secret.to_bytes()
    length = params.n.to_bytes(8, "little")
    limbs: list[NDArray[np.uint64]] = []
    start = 0
    for modulus in params.moduli:
        while True:
            start = archive.index(length, start) + 8
            limb = np.frombuffer(archive[start : start + 8 * params.n], dtype="<u8")
            after = archive[start + 8 * params.n :][:8]
            if len(limb) == params.n and int.from_bytes(after, "little") == modulus:
                break
        assert limb.max() < modulus
        limbs.append(limb)
        start += 8 * params.n
    return np.stack(limbs)


def pieces_found(keys: KeyPair, sent: bytes) -> int:
    """How many of 64 pieces of the secret, raw and bit-packed, occur in `sent`."""
    limbs = secret_limbs(keys)
    pieces: list[bytes] = []
    for limb, modulus in zip(limbs, keys.params.moduli, strict=True):
        packed = np.empty(modulus.bit_length() * keys.params.n // 8, dtype=np.uint8)
        pack(limb[None, None, :], (modulus,), packed)
        for form in (limb.tobytes(), packed.tobytes()):
            step = len(form) // 8
            pieces += [form[at : at + 24] for at in range(0, len(form) - 24, step)]
    assert len(pieces) >= 64
    return sum(piece in sent for piece in pieces)
