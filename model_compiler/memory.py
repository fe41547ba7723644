"""Memory of a served model on the native engine, before any key exists.

Keys, frames, encoded constants and tables follow from the parameters and the circuit; working
arrays from running the circuit on sizes (`native_arrays`). `python -m bench memory` compares all of
it with a process.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from tacit.bootstrap import Bootstrap, stage_groups, stage_steps
from tacit.circuit import Circuit, WeightedSumPlan
from tacit.evaluation_keys import full_key, keys_bytes
from tacit.model_compiler.cost import CostModel, execute_types
from tacit.model_compiler.native_arrays import pool_bytes
from tacit.model_compiler.op_times import Backend, MachineTimes
from tacit.params import CryptoParams
from tacit.signature import Plan, Signature, TensorSpec
from tacit.wire import Packing, ciphertext_frame_bytes

Floats = NDArray[np.float64]


# Python's objects of a served model and of its first request; question `memory` of `bench` found
# 0.6 to 1.9 MB for eight models beside what is accounted for here.
OBJECT_BYTES = 1_200_000
# What a worker keeps of encoded constants, by default, and what it encodes at a time of others.
CONSTANT_BYTES = 2 << 30
GROUP_BYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class KeyMemory:
    """What one customer's evaluation keys take.

    Attributes:
        keys: rotation keys, the relinearisation key and those of bootstrapping.
        total_bytes: all of them in the server's memory, trimmed to the levels of their use.
        upload_bytes: all frames, sent once.
        full_bytes: all keys in memory if none was trimmed.
        full_upload_bytes: their frames.
        permutation_bytes: tables of the rotations' permutations.
    """

    keys: int
    total_bytes: int
    upload_bytes: int
    full_bytes: int
    full_upload_bytes: int
    permutation_bytes: int


@dataclass(frozen=True, slots=True)
class PlanMemory:
    """What one plan takes, one evaluation at a time.

    Attributes:
        input_bytes: input ciphertexts in memory; input_frame_bytes: on the wire.
        output_bytes: answers in memory; output_frame_bytes: on the wire.
        encoded_bytes: constants, encoded once for all customers, if all of them are kept.
        kept_bytes: those of them that a worker keeps, by default.
        value_bytes: the same constants as numbers, as the artifact holds them, and bootstraps'
            matrices.
        working_bytes: intermediate ciphertexts and working arrays, kept between evaluations.
        passing_bytes: constants that are encoded when they are needed, the most at a time.
    """

    input_bytes: int
    input_frame_bytes: int
    output_bytes: int
    output_frame_bytes: int
    encoded_bytes: int
    kept_bytes: int
    value_bytes: int
    working_bytes: int
    passing_bytes: int

    @property
    def resident_bytes(self) -> int:
        """Memory of an evaluation beside keys and tables, its frames included."""
        frames = self.input_frame_bytes + self.output_frame_bytes
        constants = self.kept_bytes + self.value_bytes + self.passing_bytes
        return self.input_bytes + frames + constants + self.working_bytes


def key_memory(signature: Signature) -> KeyMemory:
    """Account for one customer's keys."""
    params, rotations = signature.params, len(signature.rotations)
    keys = signature.needed_keys
    full = [full_key(key, params) for key in keys]
    return KeyMemory(
        keys=len(keys),
        total_bytes=keys_bytes(keys, params),
        upload_bytes=sum(key.frame_bytes(params) for key in keys),
        full_bytes=keys_bytes(full, params),
        full_upload_bytes=sum(key.frame_bytes(params) for key in full),
        permutation_bytes=(rotations + signature.bootstraps) * params.n // 2,
    )


def table_bytes(params: CryptoParams) -> int:
    """Return what the tables of a ring take: roots, the rotations' correction, the encoder's."""
    primes = len(params.moduli) + len(params.special_moduli)
    return params.n * (32 * primes + 8 * len(params.moduli)) + params.slots * 24


def plan_memory(
    circuit: Circuit,
    params: CryptoParams,
    plan: Plan,
    *,
    constant_bytes: int = CONSTANT_BYTES,
    threads: int = 1,
) -> PlanMemory:
    """Account for one plan.

    Args:
        circuit: of the plan.
        params: of the circuit.
        plan: its inputs and outputs.
        constant_bytes: encoded constants that a worker may keep.
        threads: that share an operation.
    """
    model = CostModel(params, MachineTimes(Backend.NATIVE, {}, ""))
    execute_types(circuit, model)
    sums = [
        (circuit.types[node.inputs[0]].level + 1, circuit.constants[node.attribute.weights])
        for node in circuit.nodes
        if isinstance(node.attribute, WeightedSumPlan)
    ]
    encoded = model.plaintext_bytes + sum(_scalar_bytes(*each) for each in sums)
    beyond = max(0, encoded - constant_bytes)
    return PlanMemory(
        input_bytes=_limb_bytes(params, plan.inputs),
        input_frame_bytes=_frame_bytes(params, plan.inputs, Packing.BITS),
        output_bytes=_limb_bytes(params, plan.outputs),
        output_frame_bytes=_frame_bytes(params, plan.outputs, Packing.RAW),
        encoded_bytes=encoded,
        kept_bytes=encoded - beyond,
        value_bytes=sum(values.nbytes for values in circuit.constants.values())
        + _matrix_bytes(circuit),
        working_bytes=pool_bytes(circuit, params, threads),
        passing_bytes=min(beyond, GROUP_BYTES),
    )


def process_bytes(signature: Signature, memory: PlanMemory) -> int:
    """Return what a process takes for one model, one customer and one request at a time."""
    keys = key_memory(signature)
    shared = table_bytes(signature.params) + keys.total_bytes + keys.permutation_bytes
    return shared + memory.resident_bytes + OBJECT_BYTES


def memory_facts(signature: Signature, circuits: dict[str, Circuit]) -> dict[str, object]:
    """Return the whole account, JSON-serialisable, for reports."""
    keys, params = key_memory(signature), signature.params
    return {
        "keys": asdict(keys),
        "table_bytes": table_bytes(params),
        "plans": {
            plan.name: _facts(signature, plan_memory(circuits[plan.name], params, plan))
            for plan in signature.plans
        },
    }


def _facts(signature: Signature, memory: PlanMemory) -> dict[str, int]:
    return {
        **asdict(memory),
        "resident_bytes": memory.resident_bytes,
        "process_bytes": process_bytes(signature, memory),
    }


def _matrix_bytes(circuit: Circuit) -> int:
    """Return what the bootstraps' matrices take as complex numbers, of all slots."""
    plans = {
        (plan.log_slots, plan.to_coefficients, plan.to_slots, plan.period, plan.level): plan
        for node in circuit.nodes
        if isinstance(plan := node.attribute, Bootstrap)
    }
    rows = sum(
        len(stage_steps(plan.log_slots, group))
        for plan in plans.values()
        for stages in (plan.to_coefficients, plan.to_slots)
        for group in stage_groups(plan.log_slots, stages)
    )
    return 16 * circuit.slots * rows


def _scalar_bytes(limbs: int, weights: Floats) -> int:
    """Return what a matrix of scalars takes as residues; rows without zeros if most are zero."""
    used = np.count_nonzero(weights, axis=1)
    dense = 2 * used.sum() >= weights.size
    count = weights.size if dense else np.maximum(used, 1).sum()
    return int(8 * limbs * count)


def _limb_bytes(params: CryptoParams, specs: Iterable[TensorSpec]) -> int:
    return sum(s.layout.ciphertexts * params.ciphertext_bytes(s.level) for s in specs)


def _frame_bytes(params: CryptoParams, specs: Iterable[TensorSpec], packing: Packing) -> int:
    return sum(
        spec.layout.ciphertexts
        * ciphertext_frame_bytes(packing, params.log_n, params.moduli[: spec.level + 1])
        for spec in specs
    )
