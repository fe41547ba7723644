"""Circuits as JSON; the constants travel beside it as arrays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tacit.bootstrap import Bootstrap
from tacit.circuit import (
    Attribute,
    Chebyshev,
    Circuit,
    Constant,
    LinearPlan,
    LinearTerm,
    Node,
    Op,
    Steps,
    ToLevel,
    ValueType,
    WeightedSumPlan,
)
from tacit.errors import ArtifactError

Json = dict[str, object]


def circuit_to_json(circuit: Circuit) -> Json:
    """Return a JSON-serialisable dict without the constants."""
    return {
        "slots": circuit.slots,
        "inputs": list(circuit.inputs),
        "outputs": list(circuit.outputs),
        "types": [[t.level, t.degree] for t in circuit.types],
        "nodes": [
            [n.op.value, list(n.inputs), list(n.outputs), _attribute_to_json(n.attribute), n.label]
            for n in circuit.nodes
        ],
    }


def circuit_from_json(fields: Json, constants: Mapping[str, NDArray[np.float64]]) -> Circuit:
    """Rebuild a circuit.

    Raises:
        ArtifactError: a field is missing or of the wrong type.
        CircuitError: the nodes break the rules of a circuit.
    """
    try:
        nodes: list[list[object]] = fields["nodes"]  # type: ignore[assignment]
        types: list[list[int]] = fields["types"]  # type: ignore[assignment]
        return Circuit(
            slots=int(str(fields["slots"])),
            inputs=_ids(fields["inputs"]),
            outputs=_ids(fields["outputs"]),
            nodes=tuple(
                Node(Op(op), _ids(reads), _ids(writes), _attribute_from_json(attr), str(label))
                for op, reads, writes, attr, label in nodes
            ),
            types=tuple(ValueType(int(level), int(degree)) for level, degree in types),
            constants=constants,
        )
    except (KeyError, ValueError, TypeError) as error:
        raise ArtifactError(f"not a circuit: {type(error).__name__}: {error}") from error


def _ids(value: object) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise ArtifactError(f"expected a list of numbers, got {type(value).__name__}")
    return tuple(int(v) for v in value)


def _attribute_to_json(attribute: Attribute) -> Json | None:
    match attribute:
        case None:
            return None
        case LinearPlan():
            return {
                "linear": attribute.outputs,
                "terms": [[t.output, t.input, t.giant, t.baby, t.row] for t in attribute.terms],
                "diagonals": attribute.diagonals,
                "bias": attribute.bias,
                "folds": list(attribute.folds),
                "joint_folds": list(attribute.joint_folds),
                "in_sequence": attribute.in_sequence,
            }
        case WeightedSumPlan():
            fields = {"weights": attribute.weights, "bias": attribute.bias}
            return {"weighted_sum": attribute.outputs, **fields}
        case Chebyshev(coefficients):
            return {"chebyshev": coefficients}
        case Constant(name):
            return {"constant": name}
        case Steps(count):
            return {"steps": count}
        case ToLevel(level):
            return {"level": level}
        case Bootstrap():
            return {
                "bootstrap": attribute.series,
                "level": attribute.level,
                "log_slots": attribute.log_slots,
                "stages": [attribute.to_coefficients, attribute.to_slots],
                "period": attribute.period,
            }


def _attribute_from_json(fields: object) -> Attribute:
    match fields:
        case None:
            return None
        case {
            "linear": int(outputs),
            "terms": list(terms),
            "diagonals": str(rows),
            "bias": str(bias),
            "folds": list(folds),
            **others,
        }:
            parsed = tuple(LinearTerm(*_ids(term)) for term in terms)
            joint = _ids(others.get("joint_folds", []))
            in_sequence = bool(others.get("in_sequence"))
            return LinearPlan(outputs, parsed, rows, bias, _ids(folds), joint, in_sequence)
        case {"weighted_sum": int(outputs), "weights": str(weights), "bias": str(bias)}:
            return WeightedSumPlan(outputs, weights, bias)
        case {"chebyshev": str(name)}:
            return Chebyshev(name)
        case {"constant": str(name)}:
            return Constant(name)
        case {"steps": int(count)}:
            return Steps(count)
        case {
            "bootstrap": str(name),
            "level": int(level),
            "log_slots": int(log_slots),
            "stages": [int(first), int(second)],
            "period": float(period),
        }:
            return Bootstrap(name, level, log_slots, first, second, period)
        case {"level": int(level)}:
            return ToLevel(level)
    raise ArtifactError(f"not an operation's attribute: {fields!r:.80}")
