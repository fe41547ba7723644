"""Trusted OpenFHE objects from checked limbs, and back.

OpenFHE's loaders check nothing, so they only ever see archives that we wrote ourselves: the limbs
were checked by the wire format, and everything around them comes from a template that the context
made itself. Evaluation keys are loaded under a tag of our own making.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import openfhe

from tacit.circuit import Circuit
from tacit.errors import InternalError, KeyMismatchError
from tacit.key_trimming import covered_limbs, padded
from tacit.openfhe_bytes import ForeignCiphertext, read_ciphertext, write_ciphertext
from tacit.openfhe_context import Template, template_from_context
from tacit.openfhe_keys import (
    write_automorphism_keys,
    write_relinearization_key,
    write_sparse_key,
)
from tacit.params import CryptoParams
from tacit.runtime.backends.openfhe import DEFAULT_PLAINTEXT_BYTES, OpenFHEEvaluator
from tacit.runtime.backends.openfhe_key_limits import KeyLimits
from tacit.runtime.backends.openfhe_parameters import make_context
from tacit.runtime.backends.openfhe_plaintexts import PlaintextBudget
from tacit.wire import Ciphertext, EvaluationKey, KeyKind


@dataclass(frozen=True, slots=True, eq=False)
class OpenFHEKeys:
    """One owner's evaluation keys, loaded into OpenFHE's tables for the life of the process.

    Trimmed keys were padded with zeros to the shape that OpenFHE expects: they save nothing here,
    and evaluators refuse them above their levels.

    Attributes:
        size_bytes: of the keys' residues, padding included.
        limits: the highest levels of trimmed keys.
    """

    params: CryptoParams
    context: openfhe.CryptoContext
    template: Template
    key_id: bytes
    tag: str
    size_bytes: int
    budget: PlaintextBudget
    limits: KeyLimits
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def evaluator(self, circuit: Circuit) -> OpenFHEEvaluator:
        """Make the evaluator of one circuit; all share a budget of encoded constants.

        Raises:
            UnknownKeyError: a key is trimmed to levels below those the circuit uses it at.
        """
        return OpenFHEEvaluator(
            self.params, self.context, circuit=circuit, budget=self.budget, limits=self.limits
        )

    def ciphertext(self, received: Ciphertext) -> openfhe.Ciphertext:
        """Rebuild a checked ciphertext as an OpenFHE object.

        Raises:
            KeyMismatchError: it belongs to other keys.
        """
        if received.key_id != self.key_id:
            raise KeyMismatchError("encrypted under another key set: use the keys of this session")
        level = self.params.depth - received.level
        foreign = ForeignCiphertext(
            received.limbs, level, received.degree, received.scale, received.slots, self.tag
        )
        archive = write_ciphertext(self.template, foreign)
        with self.lock:  # it looks the context up in a table of the whole process
            loaded = openfhe.DeserializeCiphertextString(archive, openfhe.BINARY)
        # Results of a loaded ciphertext are copied by slow code of the Python module; those of a
        # compressed one, here to the same level, are not.
        return self.context.Compress(loaded, received.level + 1, received.degree)

    def frame(self, result: openfhe.Ciphertext) -> Ciphertext:
        """Take the limbs out of one of OpenFHE's ciphertexts.

        Raises:
            InternalError: it is not at a level of the parameters.
        """
        with self.lock:
            archive = openfhe.Serialize(result, openfhe.BINARY)
        foreign, _ = read_ciphertext(archive)
        level = self.params.depth - foreign.level
        if level < 0 or foreign.limbs.shape[1] != level + 1:
            raise InternalError(f"OpenFHE gave {foreign.limbs.shape[1]} limbs at level {level}")
        return Ciphertext(
            foreign.limbs,
            level,
            foreign.noise_scale_degree,
            foreign.scaling_factor,
            foreign.slots,
            self.params.digest,
            self.key_id,
        )


def load_keys(
    params: CryptoParams,
    key_id: bytes,
    keys: Iterable[EvaluationKey],
    budget: PlaintextBudget | None = None,
) -> OpenFHEKeys:
    """Make the context and load evaluation keys, one at a time to bound memory.

    Args:
        params: what the keys were made for.
        key_id: names the key set.
        keys: checked, each purpose once; they may be trimmed.
        budget: of encoded constants; None for one of its own.

    Raises:
        InternalError: OpenFHE refuses what we wrote.
        ParameterMismatchError: a key of a shape that neither full nor trimmed keys have.
    """
    context = make_context(params)
    # The context has its tables; without this, OpenFHE computes them again for every archive.
    openfhe.DisablePrecomputeCRTTablesAfterDeserializaton()
    # OpenFHE makes its FFT tables when it encodes first: here, before there are threads.
    context.MakeCKKSPackedPlaintext([0.0] * params.slots)
    template = template_from_context(openfhe.Serialize(context, openfhe.BINARY))
    tag = f"tacit-{key_id.hex()}"
    size_bytes, levels = 0, {}
    for key in keys:
        limbs = padded(key, params)
        if not _load(params, template, tag, replace(key, limbs=limbs)):
            raise InternalError("OpenFHE did not take an evaluation key")
        if limbs is not key.limbs:
            levels[key.galois_element] = covered_limbs(key, params) - 1
        size_bytes += limbs.nbytes
    budget = budget or PlaintextBudget(DEFAULT_PLAINTEXT_BYTES)
    limits = KeyLimits(params, levels)
    return OpenFHEKeys(params, context, template, key_id, tag, size_bytes, budget, limits)


def _load(params: CryptoParams, template: Template, tag: str, key: EvaluationKey) -> bool:
    special = params.special_moduli
    try:
        if key.kind is KeyKind.RELINEARIZATION:
            archive = write_relinearization_key(template, tag, special, key.limbs)
            loaded = openfhe.DeserializeEvalMultKeyString(archive, openfhe.BINARY)
        elif key.kind is KeyKind.ROTATION:
            limbs = {key.galois_element: key.limbs}
            archive = write_automorphism_keys(template, tag, special, limbs)
            loaded = openfhe.DeserializeEvalAutomorphismKeyString(archive, openfhe.BINARY)
        else:
            archive = write_sparse_key(template, tag, special, key.galois_element, key.limbs)
            loaded = openfhe.DeserializeEvalAutomorphismKeyString(archive, openfhe.BINARY)
    except RuntimeError as error:
        raise InternalError(f"OpenFHE refused an evaluation key: {error}") from error
    return loaded is None or bool(loaded)
