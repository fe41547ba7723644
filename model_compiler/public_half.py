"""The public half of a compiled model: what a client must know, and nothing more."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from tacit.key_levels import circuit_key_levels
from tacit.known_answer import KnownAnswer
from tacit.model_compiler.lowering.plans import PlanChoice
from tacit.model_compiler.passes.calibrate import Ranges
from tacit.model_compiler.passes.ranges import TensorRange
from tacit.model_compiler.passes.scale import ScaledGraph
from tacit.params import CryptoParams
from tacit.precision import bits
from tacit.signature import Plan, Signature, TensorSpec

Floats = NDArray[np.float64]


def make_signature(
    scaled: ScaledGraph,
    ranges: Ranges,
    params: CryptoParams,
    plans: Mapping[str, PlanChoice],
    approximation_error: Mapping[str, float],
    version: str,
    known: Mapping[str, KnownAnswer] = MappingProxyType({}),
) -> Signature:
    """Describe the plans to a client.

    Args:
        scaled: names, shapes, prologue and epilogue, and how inputs and outputs are stored.
        ranges: calibrated input ranges, margin applied.
        params: the parameters.
        plans: by name.
        approximation_error: by output, in stored units.
        version: the model's version.
        known: the known answer of each plan that has one.
    """
    graph = scaled.graph
    worst = max(approximation_error.values(), default=0.0)
    return Signature(
        model=graph.name,
        version=version,
        params=params,
        plans=tuple(
            _plan(name, plan, params, scaled, ranges, worst, known.get(name))
            for name, plan in plans.items()
        ),
        model_inputs=dict(graph.model_inputs),
        model_outputs=graph.model_outputs,
        prologue=graph.prologue,
        epilogue=graph.epilogue,
        notes={"security": params.security.value, "ranges": ranges.source.value},
    )


def _plan(
    name: str,
    plan: PlanChoice,
    params: CryptoParams,
    scaled: ScaledGraph,
    ranges: Ranges,
    approximation_error: float,
    known: KnownAnswer | None,
) -> Plan:
    lowered = plan.lowered
    row, probe = (known, None) if lowered.batch > 1 else (None, known)
    inputs = [_input_spec(n, scaled, ranges.tensors[n], plan) for n in lowered.inputs]
    outputs = [_output_spec(n, scaled, plan) for n in lowered.outputs]
    return Plan(
        name=name,
        batch=lowered.batch - (row is not None),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        rotations=tuple(sorted(lowered.circuit.rotations)),
        relinearization=lowered.circuit.needs_relinearization,
        seconds=plan.prediction.seconds,
        precision_bits=min(bits(plan.error + approximation_error), 53.0),
        bootstraps=lowered.circuit.bootstraps,
        key_levels=circuit_key_levels(lowered.circuit, params),
        known_answer=row,
        probe=probe,
    )


def _input_spec(
    name: str, scaled: ScaledGraph, bounds: TensorRange, plan: PlanChoice
) -> TensorSpec:
    placement = scaled.placements[name]
    return TensorSpec(
        name=name,
        shape=scaled.graph.shapes[name],
        layout=plan.lowered.inputs[name],
        scale=placement.scale,
        offset=placement.offset,
        low=_shortened(bounds.low),
        high=_shortened(bounds.high),
        level=plan.lowered.levels[name],
    )


def _output_spec(name: str, scaled: ScaledGraph, plan: PlanChoice) -> TensorSpec:
    """Describe an output; its range is the one its public scale spans."""
    placement = scaled.placements[name]
    return TensorSpec(
        name=name,
        shape=scaled.graph.shapes[name],
        layout=plan.lowered.outputs[name],
        scale=placement.scale,
        offset=placement.offset,
        low=placement.offset - placement.scale,
        high=placement.offset + placement.scale,
        level=plan.lowered.output_level,
    )


def _shortened(values: Floats) -> Floats:
    """Return one number where all are equal."""
    return np.asarray(values[0]) if np.all(values == values[0]) else values
