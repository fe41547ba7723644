"""One OpenFHE key pair, its evaluation keys as limbs, and ciphertexts moved between backends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import openfhe
from numpy.typing import NDArray

from tacit.kernels.cpu_kernels import CpuKernels
from tacit.kernels.library import InstructionSet
from tacit.openfhe_bytes import ForeignCiphertext, Template, read_ciphertext, write_ciphertext
from tacit.openfhe_context import template_from_context
from tacit.openfhe_keys import read_automorphism_keys, read_relinearization_key
from tacit.params import CryptoParams
from tacit.runtime.backends.native import NativeEvaluator
from tacit.runtime.backends.native_engine import NativeEngine
from tacit.runtime.backends.native_keys import NativeCiphertext, NativeKeys, load_keys
from tacit.runtime.backends.openfhe import OpenFHEEvaluator
from tacit.runtime.backends.openfhe_parameters import make_context
from tacit.wire import EvaluationKey, KeyKind

Floats = NDArray[np.float64]

KEY_ID = bytes(32)


@dataclass(frozen=True, slots=True, eq=False)
class Exchange:
    """Both backends under one key.

    Attributes:
        params: the parameters.
        context: OpenFHE's.
        keys: OpenFHE's key pair.
        template: what surrounds limbs in OpenFHE's archives.
        openfhe: evaluator on OpenFHE ciphertexts.
        native: evaluator on limbs.
        native_keys: the evaluation keys that it uses.
    """

    params: CryptoParams
    context: Any
    keys: Any
    template: Template
    openfhe: OpenFHEEvaluator
    native: NativeEvaluator
    native_keys: NativeKeys

    def encrypt(self, values: Floats, level: int) -> Any:
        """Encrypt with OpenFHE."""
        plaintext = self.context.MakeCKKSPackedPlaintext(values, 1, self.params.depth - level)
        return self.context.Encrypt(self.keys.publicKey, plaintext)

    def decrypt(self, ciphertext: Any) -> Floats:
        """Decrypt an OpenFHE ciphertext."""
        plaintext = self.context.Decrypt(self.keys.secretKey, ciphertext)
        return np.asarray(plaintext.GetRealPackedValueArray())

    def to_native(self, ciphertext: Any) -> NativeCiphertext:
        """Take the limbs out."""
        foreign, _ = read_ciphertext(openfhe.Serialize(ciphertext, openfhe.BINARY))
        level = self.params.depth - foreign.level
        return self.native_keys.upload(foreign.limbs, level, foreign.noise_scale_degree)

    def to_openfhe(self, ciphertext: NativeCiphertext) -> Any:
        """Put limbs into an OpenFHE ciphertext."""
        scale = self.params.scale(ciphertext.level) ** ciphertext.degree
        foreign = ForeignCiphertext(
            self.native_keys.download(ciphertext),
            self.params.depth - ciphertext.level,
            ciphertext.degree,
            scale,
            self.params.slots,
            self.keys.publicKey.GetKeyTag(),
        )
        archive = write_ciphertext(self.template, foreign)
        return openfhe.DeserializeCiphertextString(archive, openfhe.BINARY)


def make_exchange(
    params: CryptoParams,
    rotations: Sequence[int],
    *,
    instructions: InstructionSet | None = None,
    threads: int = 1,
    correct_rotations: bool = True,
    engine: NativeEngine | None = None,
    key_id: bytes = KEY_ID,
) -> Exchange:
    """Make keys with OpenFHE and give their public limbs to the native backend.

    Args:
        params: the parameters.
        rotations: steps to make keys for.
        instructions: of the native kernels.
        threads: of the native kernels.
        correct_rotations: see `NativeEvaluator`.
        engine: to load the keys into, instead of a new one.
        key_id: names the key set.
    """
    context = make_context(params)
    keys = context.KeyGen()
    context.EvalMultKeyGen(keys.secretKey)
    context.EvalRotateKeyGen(keys.secretKey, list(rotations))
    if engine is None:
        engine = NativeEngine(
            params, CpuKernels(params, instructions=instructions, threads=threads)
        )
    limbs = load_keys(engine, key_id, evaluation_keys(params, keys))
    native = NativeEvaluator(limbs, correct_rotations=correct_rotations)
    template = template_from_context(openfhe.Serialize(context, openfhe.BINARY))
    oracle = OpenFHEEvaluator(params, context, correct_rotations=correct_rotations)
    return Exchange(params, context, keys, template, oracle, native, limbs)


def evaluation_keys(params: CryptoParams, keys: Any) -> list[EvaluationKey]:
    """Read OpenFHE's evaluation keys under this key pair's tag as limbs."""
    tag = keys.publicKey.GetKeyTag()
    relinearization, _ = read_relinearization_key(
        openfhe.SerializeEvalMultKeyString(openfhe.BINARY, tag)
    )
    rotations, _ = read_automorphism_keys(
        openfhe.SerializeEvalAutomorphismKeyString(openfhe.BINARY, tag)
    )
    made = [EvaluationKey(relinearization.limbs, KeyKind.RELINEARIZATION, 0, params.digest)]
    made += [
        EvaluationKey(key.limbs, KeyKind.ROTATION, element, params.digest)
        for element, key in rotations.items()
    ]
    return made
