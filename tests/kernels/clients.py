"""Clients with random keys and ciphertexts: right in shape and range, and nobody can decrypt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tacit.kernels.automorphism import rotation_element
from tacit.params import CryptoParams
from tacit.runtime.backends.native_ciphertext import NativeCiphertext
from tacit.runtime.backends.native_engine import NativeEngine
from tacit.runtime.backends.native_keys import NativeKeys, load_keys
from tacit.wire import EvaluationKey, KeyKind
from tests.kernels.residues import residues

Words = NDArray[np.uint64]


def random_keys(params: CryptoParams, steps: Sequence[int], seed: int) -> list[EvaluationKey]:
    """Return a relinearisation key and rotation keys of random residues."""
    rng = np.random.default_rng(seed)
    moduli = params.moduli + params.special_moduli
    elements = [0, *(rotation_element(params.log_n, step) for step in steps)]
    made = []
    for element in elements:
        rows = [residues(rng, moduli, params.n) for _ in range(2 * params.dnum)]
        limbs = np.stack(rows).reshape(2, params.dnum, len(moduli), params.n)
        kind = KeyKind.ROTATION if element else KeyKind.RELINEARIZATION
        made.append(EvaluationKey(limbs, kind, element, params.digest))
    return made


def client(engine: NativeEngine, steps: Sequence[int], seed: int) -> NativeKeys:
    """Return random keys named by their seed."""
    return load_keys(engine, bytes([seed]) * 32, random_keys(engine.params, steps, seed))


def ciphertext(keys: NativeKeys, level: int, seed: int, degree: int = 1) -> NativeCiphertext:
    """Return a ciphertext of random residues, the edges among them."""
    params, rng = keys.engine.params, np.random.default_rng(seed)
    parts = [residues(rng, params.moduli[: level + 1], params.n) for _ in range(2)]
    return keys.upload(np.stack(parts), level, degree)
