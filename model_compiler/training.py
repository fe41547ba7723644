"""From a training task to an artifact: every step is a plan, run by any backend."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from tacit.artifact import Artifact, save
from tacit.key_levels import circuit_key_levels
from tacit.layout import Layout
from tacit.model_compiler.cost import predict
from tacit.model_compiler.levels import check_levels
from tacit.model_compiler.lowering.lowered import Lowered
from tacit.model_compiler.training_choice import (
    TrainingChoice,
    TrainingOptions,
    choose_training,
)
from tacit.model_compiler.training_parties import slot_error
from tacit.params import CryptoParams
from tacit.signature import Plan, Signature, TensorSpec
from tacit.training import TrainingTask
from tacit.training_plan import NOTE, Step, TrainingPlan

_NAME_DIGITS = 16
_PRECISION_BITS = 10.0


def training_name(task: TrainingTask) -> str:
    """Return the name under which a server keeps a task's artifact."""
    return f"training-{task.digest[:_NAME_DIGITS]}"


def compile_training(
    task: TrainingTask, out_dir: str | Path, options: TrainingOptions | None = None
) -> Artifact:
    """Compile a training task and save both halves.

    Args:
        task: what is trained.
        out_dir: where the artifact goes.
        options: see `TrainingOptions`.

    Raises:
        ParameterError: no secure parameters fit the task.
        ArtifactError: the directory cannot be written.
    """
    options = options or TrainingOptions()
    choice = choose_training(task, options)
    plans = choice.circuits.all()
    for lowered in plans.values():
        check_levels(lowered.circuit)
    seconds = {
        name: predict(lowered.circuit, choice.params, options.times).seconds
        for name, lowered in plans.items()
    }
    signature = _signature(task, choice, plans, seconds)
    circuits = {name: lowered.circuit for name, lowered in plans.items()}
    report: dict[str, object] = {
        "task": task.to_json(),
        "choice": choice.describe(),
        "seconds": seconds,
        "steps": [asdict(step) for step in choice.circuits.steps],
    }
    return save(Artifact(signature, circuits, report), Path(out_dir))


def _signature(
    task: TrainingTask,
    choice: TrainingChoice,
    plans: Mapping[str, Lowered],
    seconds: Mapping[str, float],
) -> Signature:
    circuits = choice.circuits
    steps = []
    done = 0
    for step in circuits.steps:
        done = step.iteration or done
        name = circuits.name(step)
        steps.append(Step(name, done, step.after, seconds[name]))
    made = Signature(
        model=training_name(task),
        version="1",
        params=choice.params,
        plans=tuple(
            _plan(name, low, choice.params, seconds[name], _precision(name, choice))
            for name, low in plans.items()
        ),
        model_inputs={},
        model_outputs=(),
    )
    view = TrainingPlan(made, task, tuple(steps), circuits.geometry.batches)
    view.check_sums()
    return Signature(
        made.model,
        made.version,
        made.params,
        made.plans,
        made.model_inputs,
        made.model_outputs,
        notes={NOTE: view.note(), "security": choice.params.security.value},
    )


def _precision(name: str, choice: TrainingChoice) -> float:
    """Return the bits that a plan promises; of joint weights, those that shares are sized by."""
    if choice.circuits.geometry.task.parties > 1 and name.startswith("weights-"):
        return -math.log2(slot_error(choice.params, choice.circuits))
    return _PRECISION_BITS


def _plan(
    name: str, lowered: Lowered, params: CryptoParams, seconds: float, precision_bits: float
) -> Plan:
    circuit = lowered.circuit
    outputs, first = [], 0
    for output, layout in lowered.outputs.items():
        at = circuit.types[circuit.outputs[first]].level
        outputs.append(_spec(output, layout, at))
        first += layout.ciphertexts
    return Plan(
        name=name,
        batch=lowered.batch,
        inputs=tuple(_spec(n, layout, lowered.levels[n]) for n, layout in lowered.inputs.items()),
        outputs=tuple(outputs),
        rotations=tuple(sorted(circuit.rotations)),
        relinearization=circuit.needs_relinearization,
        seconds=seconds,
        precision_bits=precision_bits,
        bootstraps=circuit.bootstraps,
        key_levels=circuit_key_levels(circuit, params),
    )


def _spec(name: str, layout: Layout, level: int) -> TensorSpec:
    one, zero = np.asarray(1.0), np.asarray(0.0)
    return TensorSpec(name, (layout.size,), layout, one, zero, -one, one, level)
