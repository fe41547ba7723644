"""Simulation: the deployed circuit, run on numbers in the clear, on as many rows as wanted.

The same prologue, packing, circuit and epilogue as with encryption, with the clear backend in the
place of OpenFHE: what comes out is what a customer would decrypt, but for the noise, which can be
added too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tacit.artifact import Artifact
from tacit.circuit import Node, execute
from tacit.errors import InputShapeError
from tacit.packing import core_inputs, model_outputs, pack, unpack
from tacit.runtime.backends.clear import ClearCiphertext, ClearEvaluator
from tacit.signature import Plan

Array = NDArray[Any]
Floats = NDArray[np.float64]
Observe = Callable[[int, Node, Sequence[ClearCiphertext]], None]

# Evaluations are computed together as long as one ciphertext of all of them stays below this.
_BLOCK_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Simulation:
    """What a simulation found.

    Attributes:
        outputs: the model's outputs by name, first axis = rows.
        plan: the plan that ran.
        evaluations: circuit evaluations.
        overflows: operations whose values outgrew the modulus and wrapped around; 0 for inputs in
            the calibrated range.
    """

    outputs: Mapping[str, Array]
    plan: str
    evaluations: int
    overflows: int


def simulate(
    artifact: Artifact,
    inputs: Array | Mapping[str, Array],
    plan: str | None = None,
    noise: bool = False,
    *,
    clip: bool = False,
    seed: int = 0,
) -> Simulation:
    """Run a compiled model in the clear.

    Args:
        artifact: both halves of the model.
        inputs: the model's input, first axis = rows; or all its inputs by name.
        plan: default the one predicted to be fastest with encryption.
        noise: add the noise that encryption would.
        clip: move values outside the calibrated range to its edge instead of refusing them.
        seed: of the noise.

    Raises:
        InputShapeError: another shape than the model takes.
        InputRangeError: a value outside the calibrated range, and not `clip`.
        ArtifactError: no such plan.
    """
    signature = artifact.signature
    tensors = core_inputs(signature, _named(artifact, inputs))
    rows = len(next(iter(tensors.values())))
    chosen = signature.plan_for(rows) if plan is None else signature.plan(plan)
    evaluator = ClearEvaluator(signature.params, noise=noise, seed=seed)
    step = chosen.batch * _evaluations_per_block(artifact)
    pieces = []
    for start in range(0, rows, step):
        part = {name: values[start : start + step] for name, values in tensors.items()}
        vectors = pack(chosen, part, clip=clip)
        answers = _run(artifact, chosen, evaluator, vectors)
        pieces.append(unpack(chosen, answers, len(next(iter(part.values())))))
    core = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    outputs = model_outputs(signature, core)
    return Simulation(outputs, chosen.name, -(-rows // chosen.batch), evaluator.overflows)


def magnitudes(artifact: Artifact, plan: str, inputs: Array | Mapping[str, Array]) -> list[float]:
    """Return the largest absolute slot value after each operation of a plan.

    Args:
        artifact: both halves of the model.
        plan: name of the plan.
        inputs: rows as customers send them; those outside the calibrated range are clipped.

    Raises:
        InputShapeError: another shape than the model takes.
        ArtifactError: no such plan.
    """
    chosen = artifact.signature.plan(plan)
    evaluator = ClearEvaluator(artifact.signature.params)
    found: list[float] = []

    def observe(index: int, node: Node, outputs: Sequence[ClearCiphertext]) -> None:
        found.append(max(float(np.abs(output.values).max()) for output in outputs))

    tensors = core_inputs(artifact.signature, _named(artifact, inputs))
    most = chosen.batch * _evaluations_per_block(artifact)
    some = {name: values[:most] for name, values in tensors.items()}
    _run(artifact, chosen, evaluator, pack(chosen, some, clip=True), observe)
    return found


def _evaluations_per_block(artifact: Artifact) -> int:
    return max(1, _BLOCK_BYTES // (8 * artifact.signature.params.slots))


def _run(
    artifact: Artifact,
    plan: Plan,
    evaluator: ClearEvaluator,
    vectors: Floats,
    observe: Observe | None = None,
) -> Floats:
    """Run slot vectors of shape (evaluations, ciphertexts, slots) through the circuit."""
    specs = [spec for spec in plan.inputs for _ in range(spec.layout.ciphertexts)]
    inputs = [evaluator.encrypt(vectors[:, i], spec.level) for i, spec in enumerate(specs)]
    answers = execute(artifact.circuits[plan.name], inputs, evaluator, observe)
    return np.stack([answer.values for answer in answers], axis=1)


def _named(artifact: Artifact, inputs: Array | Mapping[str, Array]) -> Mapping[str, Array]:
    if isinstance(inputs, Mapping):
        return inputs
    names = list(artifact.signature.model_inputs)
    if len(names) != 1:
        raise InputShapeError(f"the model reads {names}: pass a dict of arrays by name")
    return {names[0]: inputs}
