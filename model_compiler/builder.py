"""Writing a circuit node by node, with types checked at once and repeated work shared."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tacit.bootstrap import Bootstrap
from tacit.circuit import (
    Attribute,
    Chebyshev,
    Circuit,
    Constant,
    LinearPlan,
    Node,
    Op,
    ToLevel,
    ValueType,
    WeightedSumPlan,
    apply,
)
from tacit.errors import TacitError
from tacit.model_compiler.levels import LevelChecker
from tacit.packed_rows import PackedRows

Floats = NDArray[np.float64]

NEGLIGIBLE = 2.0**-52  # of values stored in [-1, 1]


class CircuitBuilder:
    """Collects nodes; equal operations on equal values are computed once.

    Methods take and return value ids. `label` names the layer a node belongs to.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._checker = LevelChecker()
        self._types: list[ValueType] = []
        self._inputs: list[int] = []
        self._nodes: list[Node] = []
        self._constants: dict[str, Floats] = {}
        self._names: dict[tuple[tuple[int, ...], bytes], str] = {}  # by shape and digest
        self._seen: dict[tuple[Op, tuple[int, ...], Attribute], tuple[int, ...]] = {}

    def input(self, level: int) -> int:
        """Declare an input ciphertext of degree 1."""
        self._inputs.append(self._new(ValueType(level)))
        return self._inputs[-1]

    def type_of(self, value: int) -> ValueType:
        """Return level and degree of a value."""
        return self._types[value]

    def constant(self, values: Floats | PackedRows, name: str) -> str:
        """Store a constant and return its name; equal constants share the first one's.

        Packed rows stand in for an array that is only ever read by rows.
        """
        parts: tuple[NDArray[np.generic], ...]
        if isinstance(values, PackedRows):
            parts = (values.stored, values.codebook, values.shifts)
            kept = cast("Floats", values)
        else:
            kept = np.ascontiguousarray(values, dtype=np.float64).reshape(np.shape(values))
            parts = (kept,)
        content = (values.shape, _digest(parts))
        if content not in self._names:
            unique, count = name, 2
            while unique in self._constants:
                unique, count = f"{name}.{count}", count + 1
            self._constants[unique] = kept
            self._names[content] = unique
        return self._names[content]

    def append(
        self, op: Op, inputs: Sequence[int], attribute: Attribute = None, label: str = ""
    ) -> tuple[int, ...]:
        """Append any node and return its outputs.

        Raises:
            LevelError, CircuitError: the operation is illegal, with the node's label.
        """
        key = (op, tuple(inputs), attribute)
        if key not in self._seen:
            node = Node(op, tuple(inputs), (), attribute, label)
            outputs = tuple(self._new(t) for t in self._check(node))
            self._nodes.append(replace(node, outputs=outputs))
            self._seen[key] = outputs
        return self._seen[key]

    def add(self, a: int, b: int, label: str = "") -> int:
        """Append an addition."""
        return self.append(Op.ADD, (a, b), None, label)[0]

    def subtract(self, a: int, b: int, label: str = "") -> int:
        """Append a subtraction."""
        return self.append(Op.SUBTRACT, (a, b), None, label)[0]

    def negate(self, a: int, label: str = "") -> int:
        """Append a negation."""
        return self.append(Op.NEGATE, (a,), None, label)[0]

    def add_plain(self, a: int, values: Floats, label: str = "") -> int:
        """Append the addition of a constant; zero adds nothing."""
        values = without_negligible(values)
        if not np.any(values):
            return a
        name = self.constant(values, f"{label}/addend")
        return self.append(Op.ADD_PLAIN, (a,), Constant(name), label)[0]

    def multiply_plain(self, a: int, values: Floats, label: str = "") -> int:
        """Append the product with a constant."""
        name = self.constant(values, f"{label}/factor")
        return self.append(Op.MULTIPLY_PLAIN, (a,), Constant(name), label)[0]

    def multiply(self, a: int, b: int, label: str = "") -> int:
        """Append a product of two ciphertexts, at the lower of their levels."""
        level = min(self.type_of(a).level, self.type_of(b).level)
        left, right = self.drop(a, level, label), self.drop(b, level, label)
        return self.append(Op.MULTIPLY, (left, right), None, label)[0]

    def rescale(self, a: int, label: str = "") -> int:
        """Append a rescaling."""
        return self.append(Op.RESCALE, (a,), None, label)[0]

    def drop(self, a: int, level: int, label: str = "") -> int:
        """Append a drop, unless the value is at that level."""
        if self.type_of(a).level == level:
            return a
        return self.append(Op.DROP, (a,), ToLevel(level), label)[0]

    def linear(self, inputs: Sequence[int], plan: LinearPlan, label: str = "") -> tuple[int, ...]:
        """Append a linear transform."""
        return self.append(Op.LINEAR, inputs, plan, label)

    def weighted_sum(
        self, inputs: Sequence[int], plan: WeightedSumPlan, label: str = ""
    ) -> tuple[int, ...]:
        """Append a matrix of scalars."""
        return self.append(Op.WEIGHTED_SUM, inputs, plan, label)

    def chebyshev(self, a: int, coefficients: Floats, label: str = "") -> int:
        """Append a polynomial in the Chebyshev basis."""
        name = self.constant(coefficients, f"{label}/coefficients")
        return self.append(Op.CHEBYSHEV, (a,), Chebyshev(name), label)[0]

    def bootstrap(self, a: int, plan: Bootstrap, series: Floats, label: str = "") -> int:
        """Append a bootstrap; the plan's series gets the name that this returns it under."""
        name = self.constant(series, f"{label}/series")
        return self.append(Op.BOOTSTRAP, (a,), replace(plan, series=name), label)[0]

    def build(self, outputs: Sequence[int]) -> Circuit:
        """Return the circuit without nodes and constants that no output needs; inputs stay."""
        nodes = self._live_nodes(outputs)
        order = [*self._inputs, *(value for node in nodes for value in node.outputs)]
        number = {value: i for i, value in enumerate(order)}
        used = {name for node in nodes for name in constant_names(node.attribute)}
        return Circuit(
            slots=self._slots,
            inputs=tuple(number[v] for v in self._inputs),
            outputs=tuple(number[v] for v in outputs),
            nodes=tuple(
                replace(
                    node,
                    inputs=tuple(number[v] for v in node.inputs),
                    outputs=tuple(number[v] for v in node.outputs),
                )
                for node in nodes
            ),
            types=tuple(self._types[v] for v in order),
            constants={n: v for n, v in self._constants.items() if n in used},
        )

    def _live_nodes(self, outputs: Sequence[int]) -> list[Node]:
        needed = set(outputs)
        kept = []
        for node in reversed(self._nodes):
            if needed.intersection(node.outputs):
                needed.update(node.inputs)
                kept.append(node)
        return kept[::-1]

    def _new(self, value_type: ValueType) -> int:
        self._types.append(value_type)
        return len(self._types) - 1

    def _check(self, node: Node) -> list[ValueType]:
        operands = [self._types[v] for v in node.inputs]
        try:
            return apply(node, operands, self._checker, self._constants)
        except TacitError as error:
            raise type(error)(f"{node.label or 'unnamed'} ({node.op.value}): {error}") from error


def without_negligible(values: Floats) -> Floats:
    """Replace what is far below the precision of encryption by zero.

    Some backends cannot encode a constant of which nothing is left at its scale.
    """
    return np.where(np.abs(values) > NEGLIGIBLE, values, 0.0)


def _digest(parts: Iterable[NDArray[np.generic]]) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{part.dtype}{part.shape}".encode())
        digest.update(np.ascontiguousarray(part).data)
    return digest.digest()


def constant_names(attribute: Attribute) -> tuple[str, ...]:
    """Return the names of the constants an attribute reads."""
    match attribute:
        case Constant(name) | Chebyshev(name) | Bootstrap(name):
            return (name,)
        case LinearPlan(diagonals=rows, bias=bias) | WeightedSumPlan(weights=rows, bias=bias):
            return (rows, bias) if bias else (rows,)
    return ()
