"""Inputs whose answer is known: what a client sends along to see that a server computes rightly.

Where a plan carries several rows in a ciphertext, the last one holds them, in every evaluation: a
*reserved row*. It travels through the same operations as the customer's rows and costs no level.
What spoils a whole ciphertext spoils it too: other weights, other evaluation keys, a damaged limb,
or a value of any row that outgrew the modulus. Where one row fills the ciphertexts, they are an
evaluation of their own, a *probe*, sent now and then among the customer's. It tells lasting faults,
other weights or keys and damaged constants, but not one that befell another evaluation.

Neither shows what happens within the slots of another row alone, such as an activation slightly
beyond its polynomial's domain, or one that a bootstrap wrapped around. A server that means harm can
compute a reserved row rightly and the others not; it cannot tell a probe from other evaluations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tacit.errors import ArtifactError, OverflowedAnswerError, WrongAnswerError
from tacit.params import CryptoParams

if TYPE_CHECKING:
    from tacit.signature import Plan, TensorSpec

Floats = NDArray[np.float64]

# Stored values lie in [-1, 1]. What is this far out, and near what a ciphertext can hold at all,
# is a value that outgrew the modulus, or noise.
_BEYOND = 2.0
_SHARE_OF_ROOM = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class KnownAnswer:
    """Inputs of a reserved row or of a probe, and what must come back.

    Attributes:
        inputs: stored values of each input tensor, shape (size,), in [-1, 1].
        outputs: stored values of each output tensor, shape (size,).
        tolerance: greatest |difference| of an honest answer, in stored units.
    """

    inputs: Mapping[str, Floats]
    outputs: Mapping[str, Floats]
    tolerance: float

    def __post_init__(self) -> None:
        arrays = (*self.inputs.values(), *self.outputs.values())
        if not all(array.ndim == 1 and np.isfinite(array).all() for array in arrays):
            raise ArtifactError("a known answer needs finite values, one list per tensor")
        if not 0.0 < self.tolerance < 1.0:
            raise ArtifactError(f"a tolerance between 0 and 1 is needed, got {self.tolerance}")

    def check_fits(self, plan: Plan, *, reserved: bool) -> None:
        """See that tensors and sizes are the plan's, and that a row is reserved, or none is.

        Raises:
            ArtifactError: they are not.
        """
        for specs, values in ((plan.inputs, self.inputs), (plan.outputs, self.outputs)):
            sizes = {spec.name: spec.layout.size for spec in specs}
            if sizes != {name: array.size for name, array in values.items()}:
                raise ArtifactError(f"plan {plan.name!r}: the known answer has other tensors")
            if reserved and any(plan.batch >= spec.layout.batch for spec in specs):
                raise ArtifactError(f"plan {plan.name!r} reserves no row for its known answer")

    def with_rows(self, spec: TensorSpec, rows: Floats) -> Floats:
        """Return rows of stored values with the known one in the reserved place, the last.

        Args:
            spec: the input tensor.
            rows: shape (r, size), r < the layout's batch.
        """
        full = np.zeros((spec.layout.batch, spec.layout.size))
        full[: len(rows)] = rows
        full[-1] = self.inputs[spec.name]
        return full


def check_known_answer(params: CryptoParams, plan: Plan, vectors: Floats) -> None:
    """See that the reserved row of every evaluation came back as the signature says.

    Plans without a reserved row pass.

    Args:
        params: the model's parameters.
        plan: the plan that was asked for.
        vectors: decrypted slots, shape (evaluations, ciphertexts of all outputs, slots).

    Raises:
        OverflowedAnswerError: values near the limit of what a ciphertext holds: one outgrew its
            range inside the model, or the server used other evaluation keys.
        WrongAnswerError: another answer: other weights, another circuit, or a fault.
    """
    if plan.known_answer is not None:
        _check(params, plan, plan.known_answer, vectors)


def check_probe(params: CryptoParams, plan: Plan, vectors: Floats) -> float:
    """See that an evaluation of `tacit.packing.known_vectors` came back as the signature says.

    Args:
        params: the model's parameters.
        plan: a plan with a known answer of either kind.
        vectors: its decrypted slots, shape (evaluations, ciphertexts of all outputs, slots).

    Returns:
        How far the answer is off, in half ranges of the outputs.

    Raises:
        OverflowedAnswerError, WrongAnswerError: as for `check_known_answer`.
    """
    known = plan.known_answer or plan.probe
    assert known is not None
    return _check(params, plan, known, vectors)


def _check(params: CryptoParams, plan: Plan, known: KnownAnswer, vectors: Floats) -> float:
    counts = np.cumsum([spec.layout.ciphertexts for spec in plan.outputs])[:-1]
    parts = np.split(vectors, counts, axis=1)
    off = 0.0
    for spec, part in zip(plan.outputs, parts, strict=True):
        greatest = float(np.abs(part).max()) if np.isfinite(part).all() else np.inf
        if greatest > max(_BEYOND, _SHARE_OF_ROOM * params.room(spec.level, spec.degree)):
            raise OverflowedAnswerError(_overflow_text(plan.name))
        off = max(off, _difference(spec, known.outputs[spec.name], part))
    if off > _BEYOND:
        raise OverflowedAnswerError(_overflow_text(plan.name))
    if off > known.tolerance:
        raise WrongAnswerError(
            f"plan {plan.name!r}: the row with a known answer came back off by {off:.2g} of its "
            f"half range, at most {known.tolerance:.2g} is explained by encryption: "
            "the server computed with other weights or made a fault; do not use this answer, read "
            "the signature again and ask once more"
        )
    return off


def _difference(spec: TensorSpec, expected: Floats, vectors: Sequence[Floats] | Floats) -> float:
    """Return how far an output of the row is off, in any evaluation."""
    rows = [spec.layout.unpack(np.asarray(part), spec.layout.batch)[-1] for part in vectors]
    return float(np.abs(np.stack(rows) - expected).max())


def _overflow_text(name: str) -> str:
    return (
        f"plan {name!r}: the answer holds values far outside every range: a value of some row "
        "outgrew the range it was calibrated for, or the server used other evaluation keys. Do not "
        "use this answer: check the inputs, have the model compiled with wider calibration rows, "
        "or upload the keys again"
    )
