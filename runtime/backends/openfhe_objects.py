"""Trusted OpenFHE objects from checked limbs, and back.

OpenFHE's loaders check nothing, so they only ever see archives that we wrote ourselves: the limbs
were checked by the wire format, and everything around them comes from a template that the context
made itself. Evaluation keys are loaded under a tag of our own making.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import openfhe

from tacit.circuit import Circuit
from tacit.errors import InternalError, KeyMismatchError
from tacit.key_trimming import Words, covered_limbs
from tacit.openfhe_bytes import ForeignCiphertext
from tacit.openfhe_context import Template, template_from_context
from tacit.openfhe_keys import write_automorphism_keys, write_relinearization_key
from tacit.params import CryptoParams
from tacit.runtime.backends.openfhe import DEFAULT_PLAINTEXT_BYTES, OpenFHEEvaluator
from tacit.runtime.backends.openfhe_archives import ciphertext_of, limbs_of
from tacit.runtime.backends.openfhe_key_limits import KeyLimits
from tacit.runtime.backends.openfhe_parameters import CONTEXTS, make_context
from tacit.runtime.backends.openfhe_plaintexts import PlaintextBudget
from tacit.runtime.backends.openfhe_raising import SparseSwitch
from tacit.wire import Ciphertext, EvaluationKey, KeyKind

_SWITCHING = (KeyKind.TO_SPARSE, KeyKind.FROM_SPARSE)


@dataclass(frozen=True, slots=True, eq=False)
class OpenFHEKeys:
    """One owner's evaluation keys, loaded into OpenFHE's tables for the life of the process.

    Trimmed keys take no more memory than they have residues; OpenFHE would crash if it used one
    above its level, so evaluators compare levels before each use.

    Attributes:
        size_bytes: of the keys' residues.
        limits: the highest levels of trimmed keys.
        sparse: the keys of an encapsulated secret, None without.
    """

    params: CryptoParams
    context: openfhe.CryptoContext
    template: Template
    key_id: bytes
    tag: str
    size_bytes: int
    budget: PlaintextBudget
    limits: KeyLimits
    sparse: SparseSwitch | None = None

    def evaluator(self, circuit: Circuit) -> OpenFHEEvaluator:
        """Make the evaluator of one circuit; all share a budget of encoded constants.

        Raises:
            UnknownKeyError: a key is trimmed to levels below those the circuit uses it at.
        """
        return OpenFHEEvaluator(
            self.params,
            self.context,
            circuit=circuit,
            budget=self.budget,
            limits=self.limits,
            sparse=self.sparse,
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
        return ciphertext_of(self.context, self.template, foreign)

    def frame(self, result: openfhe.Ciphertext) -> Ciphertext:
        """Take the limbs out of one of OpenFHE's ciphertexts.

        Raises:
            InternalError: it is not at a level of the parameters.
        """
        foreign, _ = limbs_of(result)
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
    switching: dict[KeyKind, Words] = {}
    for key in keys:
        level = covered_limbs(key, params) - 1
        if key.kind in _SWITCHING:
            switching[key.kind] = key.limbs
        elif not _load(params, template, tag, key):
            raise InternalError("OpenFHE did not take an evaluation key")
        if key.kind is not KeyKind.TO_SPARSE and level < params.depth:
            levels[key.galois_element] = level
        size_bytes += key.limbs.nbytes
    budget = budget or PlaintextBudget(DEFAULT_PLAINTEXT_BYTES)
    limits = KeyLimits(params, levels)
    made = OpenFHEKeys(params, context, template, key_id, tag, size_bytes, budget, limits)
    if len(switching) < len(_SWITCHING):
        return made
    both = [switching[kind] for kind in _SWITCHING]
    return replace(made, sparse=SparseSwitch.of(params, template, tag, *both))


def _load(params: CryptoParams, template: Template, tag: str, key: EvaluationKey) -> bool:
    special = params.special_moduli
    try:
        if key.kind is KeyKind.RELINEARIZATION:
            archive = write_relinearization_key(template, tag, special, key.limbs)
            load = openfhe.DeserializeEvalMultKeyString
        else:
            limbs = {key.galois_element: key.limbs}
            archive = write_automorphism_keys(template, tag, special, limbs)
            load = openfhe.DeserializeEvalAutomorphismKeyString
        with CONTEXTS:
            loaded = load(archive, openfhe.BINARY)
    except RuntimeError as error:
        raise InternalError(f"OpenFHE refused an evaluation key: {error}") from error
    return loaded is None or bool(loaded)
