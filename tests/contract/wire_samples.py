"""Ciphertexts and keys of random residues, small enough for many tests of the wire."""

import dataclasses
import hashlib

import numpy as np
import pytest
from numpy.typing import NDArray

from tacit.moduli import choose_moduli, flexible_scales
from tacit.wire import (
    Ciphertext,
    CiphertextExpectation,
    EvaluationKey,
    KeyExpectation,
    KeyKind,
    Packing,
)

LOG_N, DEPTH = 7, 3
CHOSEN = choose_moduli(LOG_N, DEPTH, 40, 50, 2)
Q, P = CHOSEN.moduli, CHOSEN.special_moduli
SCALES = flexible_scales(Q, 40)
DIGEST = hashlib.sha256(b"parameters").digest()
KEY = hashlib.sha256(b"keys").digest()
EXPECTED = CiphertextExpectation(DIGEST, LOG_N, Q, SCALES)
EXPECTED_KEY = KeyExpectation(DIGEST, LOG_N, Q, P, 2)
PACKINGS = pytest.mark.parametrize("packing", list(Packing))


def residues(
    moduli: tuple[int, ...], leading: tuple[int, ...], seed: int = 0, log_n: int = LOG_N
) -> NDArray[np.uint64]:
    """Random residues with 0, 1 and q - 1 among them."""
    rng = np.random.default_rng(seed)
    limbs = np.empty((*leading, len(moduli), 1 << log_n), dtype=np.uint64)
    for i, modulus in enumerate(moduli):
        limbs[..., i, :] = rng.integers(0, modulus, (*leading, 1 << log_n), dtype=np.uint64)
        limbs[..., i, :3] = (0, 1, modulus - 1)
    return limbs


def ciphertext(
    level: int = DEPTH, degree: int = 1, components: int = 2, seed: int = 0
) -> Ciphertext:
    limbs = residues(Q[: level + 1], (components,), seed)
    return Ciphertext(limbs, level, degree, SCALES[level] ** degree, 64, DIGEST, KEY)


def rotation_key(element: int = 5) -> EvaluationKey:
    return EvaluationKey(residues(Q + P, (2, 2)), KeyKind.ROTATION, element, DIGEST)


def resealed(frame: bytes, at: int, patch: bytes) -> bytes:
    """Overwrite some bytes and compute the checksum again, as docs/wire-format.md says."""
    changed = bytearray(frame)
    changed[at : at + len(patch)] = patch
    content = bytes(changed[:24] + changed[32:])
    changed[24:32] = hashlib.blake2b(content, digest_size=8).digest()
    return bytes(changed)


TRIMMED_LIMBS = 2  # of 4, one digit of 2
EXPECTED_TRIMMED = dataclasses.replace(EXPECTED_KEY, limbs={25: TRIMMED_LIMBS})


def trimmed_key(element: int = 25) -> EvaluationKey:
    limbs = residues(Q[:TRIMMED_LIMBS] + P, (2, 1))
    return EvaluationKey(limbs, KeyKind.ROTATION, element, DIGEST)
