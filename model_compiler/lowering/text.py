"""Circuits as text, one line per node, for people and golden tests."""

from __future__ import annotations

from tacit.bootstrap import Bootstrap
from tacit.circuit import (
    Attribute,
    Chebyshev,
    Circuit,
    Constant,
    LinearPlan,
    Steps,
    ToLevel,
    ValueType,
    WeightedSumPlan,
)


def circuit_text(circuit: Circuit) -> str:
    """Return one line per input, node and output: values, types, operation, layer."""
    lines = [f"slots {circuit.slots}"]
    lines += [f"input {_value(circuit, v)}" for v in circuit.inputs]
    for node in circuit.nodes:
        results = ", ".join(_value(circuit, v) for v in node.outputs)
        operands = ", ".join(f"%{v}" for v in node.inputs)
        attribute = attribute_text(node.attribute)
        label = f"  # {node.label}" if node.label else ""
        lines.append(f"{results} = {node.op.value}({operands}){attribute}{label}")
    lines.append("return " + ", ".join(f"%{v}" for v in circuit.outputs))
    return "\n".join(lines)


def attribute_text(attribute: Attribute) -> str:
    """Describe a node's attribute, with a leading blank, or nothing."""
    match attribute:
        case LinearPlan():
            babies = {(t.input, t.baby) for t in attribute.terms if t.baby}
            giants = {(t.output, t.giant) for t in attribute.terms if t.giant}
            folds = _folds_text(attribute)
            order = " in sequence" if attribute.in_sequence else ""
            return (
                f" {attribute.diagonals}: {len(attribute.terms)} diagonals, {len(babies)} baby and "
                f"{len(giants)} giant rotations{order}, folds {folds}"
            )
        case WeightedSumPlan():
            return f" {attribute.weights}: {attribute.outputs} sums"
        case Chebyshev(name) | Constant(name):
            return f" {name}"
        case Steps(count):
            return f" by {count}"
        case ToLevel(level):
            return f" to {level}"
        case Bootstrap():
            stages = f"{attribute.to_coefficients} and {attribute.to_slots} stages"
            return f" {attribute.series}: to {attribute.level} in {stages}"
        case None:
            return ""


def _folds_text(plan: LinearPlan) -> str:
    """List the steps, those of joint folds with a plus between them."""
    steps, groups = iter(plan.folds), plan.joint_folds or (1,) * len(plan.folds)
    return ",".join("+".join(str(next(steps)) for _ in range(n)) for n in groups) or "none"


def _value(circuit: Circuit, value: int) -> str:
    return f"%{value}:{_type(circuit.types[value])}"


def _type(value_type: ValueType) -> str:
    return f"{value_type.level}" if value_type.degree == 1 else f"{value_type.level}²"
