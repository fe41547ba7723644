"""The compiler's report: JSON-serialisable facts about a compiled model, for `tacit inspect`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np

from tacit.circuit import Op
from tacit.known_answer import KnownAnswer
from tacit.model_compiler.choose_params import Choice
from tacit.model_compiler.graph import Affine, Fourier, Graph, Node, Polynomial
from tacit.model_compiler.lowering.depths import circuit_depth
from tacit.model_compiler.lowering.latency import Stages
from tacit.model_compiler.lowering.plans import PlanChoice
from tacit.model_compiler.lowering.text import circuit_text
from tacit.model_compiler.memory import memory_facts
from tacit.model_compiler.op_times import MachineTimes
from tacit.model_compiler.passes.approximate import Approximated
from tacit.model_compiler.passes.calibrate import Ranges
from tacit.model_compiler.passes.scale import ScaledGraph
from tacit.precision import bits
from tacit.signature import Signature

Json = dict[str, object]


def write_report(
    *,
    signature: Signature,
    imported: Graph,
    scaled: ScaledGraph,
    ranges: Ranges,
    approximated: Approximated,
    approximation_error: Mapping[str, float],
    choice: Choice,
    plans: Mapping[str, PlanChoice],
    reasons: Mapping[str, str],
    reach: Mapping[str, float],
    known: Mapping[str, KnownAnswer | str],
    pass_seconds: Mapping[str, float],
    times: MachineTimes,
    way: str = "",
    stages: Stages | None = None,
) -> Json:
    """Collect what the passes found.

    Returns:
        Keys: model, bootstraps, depth, parameters, ranges, activations, layers (each with `reach`,
        the part of its output's range that the calibration rows fill), approximation, known_answer,
        plans, plan_reasons, key_bytes, memory, pass_seconds, target, machine.
    """
    return {
        "model": {
            "name": imported.name,
            "version": signature.version,
            "inputs": {n: list(s) for n, s in imported.model_inputs.items()},
            "outputs": list(imported.model_outputs),
            "prologue": [step.op for step in imported.prologue],
            "epilogue": [step.op for step in imported.epilogue],
        },
        "bootstraps": _bootstraps(way, stages, plans),
        "depth": signature.params.depth if stages else circuit_depth(scaled.graph),
        "parameters": {
            **signature.params.to_json(),
            "log_qp": signature.params.log_qp,
            "considered": [c if isinstance(c, str) else c.to_json() for c in choice.considered],
            "neighbours": [candidate.to_json() for candidate in choice.neighbours],
            "reason": choice.reason,
        },
        "ranges": {
            "source": ranges.source.value,
            "margin": ranges.margin,
            "tensors": {
                name: {"low": float(r.low.min()), "high": float(r.high.max())}
                for name, r in ranges.tensors.items()
            },
        },
        "activations": [asdict(report) for report in approximated.activations],
        "layers": [_layer(node, reach) for node in scaled.graph.nodes],
        "approximation": {
            "error_of_half_range": dict(approximation_error),
            **_approximation(approximated),
        },
        "plans": {name: _plan(plan) for name, plan in plans.items()},
        "plan_reasons": dict(reasons),
        "known_answer": {
            name: k if isinstance(k, str) else _known_text(k, plans[name])
            for name, k in known.items()
        },
        "key_bytes": signature.key_bytes,
        "full_key_bytes": signature.full_key_bytes,
        "memory": memory_facts(signature, {n: p.circuit for n, p in plans.items()}),
        "pass_seconds": dict(pass_seconds),
        "target": times.backend.value,
        "machine": times.machine,
    }


def _known_text(known: KnownAnswer, plan: PlanChoice) -> str:
    text = f"checked to {known.tolerance:.2g} of the half range"
    if plan.lowered.batch > 1:
        return text
    return f"{text}, in an evaluation of its own, as one row fills the ciphertexts"


def _bootstraps(way: str, stages: Stages | None, plans: Mapping[str, PlanChoice]) -> Json:
    """Say why there are bootstraps or none, how many, and in what stages."""
    if stages is None:
        return {"reason": way}
    return {
        "reason": way,
        "stages_to_coefficients": stages.to_coefficients,
        "stages_to_slots": stages.to_slots,
        "count": {
            name: sum(node.op is Op.BOOTSTRAP for node in plan.circuit.nodes)
            for name, plan in plans.items()
        },
    }


def _approximation(approximated: Approximated) -> Json:
    """Collect errors of the model's outputs, as fractions of their range, and warnings."""
    score, budget = approximated.score, approximated.budget
    return {
        "accuracy_asked": budget.accuracy,
        "error_of_output_range": _finite(score.error),
        "rms_error_of_output_range": _finite(score.rms),
        "argmax_agreement": score.agreement,
        "greatest_changed_margin": _finite(score.changed_margin),
        "within_budget": approximated.within_budget,
        "warnings": [] if approximated.within_budget else [_over_budget(approximated)],
    }


def _over_budget(approximated: Approximated) -> str:
    score, asked = approximated.score, approximated.budget.accuracy
    return (
        f"the polynomials miss the accuracy asked for, {asked:.3g} of the outputs' range: the root "
        f"mean square error is {score.rms:.3g}, the greatest {score.error:.3g}, and "
        f"{100 * score.agreement:.2f} % of the calibration rows keep their argmax. Better ones "
        "would need more levels than they are worth; allow a larger error, or train with fewer "
        "or smoother activations"
    )


def _plan(plan: PlanChoice) -> Json:
    lowered, prediction = plan.lowered, plan.prediction
    layouts = [*lowered.inputs.values()], [*lowered.outputs.values()]
    sent, returned = (sum(layout.ciphertexts for layout in group) for group in layouts)
    return {
        "batch": lowered.batch,
        "input_levels": dict(lowered.levels),
        "ciphertexts_sent": sent,
        "ciphertexts_returned": returned,
        "seconds": prediction.seconds,
        "seconds_per_row": plan.seconds_per_row,
        "seconds_by_layer": dict(prediction.seconds_by_layer),
        "bytes_by_layer": dict(prediction.bytes_by_layer),
        "prepare_seconds": prediction.prepare_seconds,
        "operations": dict(prediction.operations),
        "rotation_keys": prediction.rotation_keys,
        "key_bytes": prediction.key_bytes,
        "plaintext_bytes": prediction.plaintext_bytes,
        "ciphertext_bytes": prediction.ciphertext_bytes,
        "peak_bytes": prediction.peak_bytes,
        "encryption_error": plan.error,
        "encryption_bits": min(bits(plan.error), 53.0),
        "levels": _levels(plan),
        "circuit": circuit_text(lowered.circuit) if len(lowered.circuit.nodes) <= 500 else "",
    }


def _levels(plan: PlanChoice) -> list[Json]:
    """List operation, layer and resulting level of every node."""
    circuit = plan.circuit
    return [
        {
            "op": node.op.value,
            "layer": node.label,
            "level": circuit.types[node.outputs[0]].level,
            "degree": circuit.types[node.outputs[0]].degree,
        }
        for node in circuit.nodes
    ]


def _layer(node: Node, reach: Mapping[str, float]) -> Json:
    facts: Json = {"kind": type(node).__name__.lower(), "output": node.output, "from": node.origin}
    if node.output in reach:
        facts["reach"] = reach[node.output]
    if isinstance(node, Affine):
        facts["size"] = [len(node.bias), sum(int(m.shape[1]) for m in node.matrices)]
        facts["weights"] = sum(int(m.nnz) for m in node.matrices)
    elif isinstance(node, Polynomial):
        facts["degree"] = len(node.coefficients) - 1
    elif isinstance(node, Fourier):
        facts |= {"degree": node.degree, "function": node.function}
    return facts


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
