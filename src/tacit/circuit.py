"""Circuits of ciphertext operations, the Evaluator protocol, and the one interpreter.

A `Circuit` is a flat, frozen SSA list. Each value is a ciphertext with a **level** (rescalings
left) and a **degree**: degree 1 means its scale is the parameters' scale of that level, degree 2
the square of it (a product that is not rescaled yet). There are no other scales, so two values
with equal level and degree can always be added.

`execute` runs a circuit on any `Evaluator`. A backend, the level checker and the cost model are
evaluators over different types; no pass repeats a rule (they are in `tacit.type_rules`). Coarse
operations (a whole linear transform, a polynomial) have a default decomposition into fine ones in
`tacit.decompose`, which a backend may replace by a fused one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from tacit.bootstrap import Bootstrap
from tacit.errors import CircuitError, OutOfMemoryError, TacitError
from tacit.linear_plan import LinearPlan as LinearPlan
from tacit.linear_plan import LinearTerm as LinearTerm

Floats = NDArray[np.float64]


class Op(str, Enum):
    """Ciphertext operations."""

    ADD = "add"
    SUBTRACT = "subtract"
    NEGATE = "negate"
    ADD_PLAIN = "add_plain"
    MULTIPLY_PLAIN = "multiply_plain"
    MULTIPLY = "multiply"
    ROTATE = "rotate"
    RESCALE = "rescale"
    DROP = "drop"
    LINEAR = "linear"
    WEIGHTED_SUM = "weighted_sum"
    CHEBYSHEV = "chebyshev"
    BOOTSTRAP = "bootstrap"


@dataclass(frozen=True, slots=True)
class ValueType:
    """Level (rescalings left) and degree (1, or 2 before a rescale) of a ciphertext."""

    level: int
    degree: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Plain:
    """A plaintext constant.

    Attributes:
        key: identifies the constant within its circuit, for caches of encoded plaintexts.
        values: shape () for the same value in every slot, or (length,) with length a divisor of
            the slots: element i fills slots [i * repeat, (i + 1) * repeat).
    """

    key: str
    values: Floats

    def expand(self, slots: int) -> Floats:
        """Return the slot vector, shape (slots,).

        Raises:
            CircuitError: the length does not divide the slots.
        """
        if self.values.ndim == 0:
            return np.full(slots, float(self.values))
        if self.values.ndim != 1 or slots % len(self.values):
            raise CircuitError(
                f"constant {self.key!r} has shape {self.values.shape}: one axis, of a length that "
                f"divides {slots}, is needed"
            )
        return np.repeat(self.values, slots // len(self.values))

    @property
    def is_scalar(self) -> bool:
        """Tell whether every slot holds the same value by construction."""
        return self.values.ndim == 0


@dataclass(frozen=True, slots=True)
class WeightedSumPlan:
    """outputs = weights @ inputs + bias, one scalar per pair of ciphertexts. Costs one level.

    Attributes:
        weights: name of a constant of shape (outputs, inputs).
        bias: name of a constant of shape (outputs,), or "".
    """

    outputs: int
    weights: str
    bias: str


@dataclass(frozen=True, slots=True)
class Chebyshev:
    """sum_k coefficients[k] T_k(x), x in [-1, 1]; `coefficients` names a constant of shape (d+1,).

    Costs `tacit.decompose.chebyshev_depth(d)` levels.
    """

    coefficients: str


@dataclass(frozen=True, slots=True)
class Constant:
    """Names a plaintext constant of shape () or (length,)."""

    name: str


@dataclass(frozen=True, slots=True)
class Steps:
    """Rotation to the left by `count` slots."""

    count: int


@dataclass(frozen=True, slots=True)
class ToLevel:
    """Target level of a drop."""

    level: int


Attribute = None | LinearPlan | WeightedSumPlan | Chebyshev | Constant | Steps | ToLevel | Bootstrap


@dataclass(frozen=True, slots=True)
class Node:
    """One operation; `label` says which layer of the model it belongs to."""

    op: Op
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    attribute: Attribute = None
    label: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Circuit:
    """A frozen SSA program on ciphertexts.

    Attributes:
        slots: slots of every ciphertext, N/2.
        inputs: value ids of the input ciphertexts.
        outputs: value ids of the output ciphertexts.
        nodes: in execution order.
        types: level and degree of every value, indexed by value id.
        constants: weights, by name; float64.
    """

    slots: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    nodes: tuple[Node, ...]
    types: tuple[ValueType, ...]
    constants: Mapping[str, Floats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = set(self.inputs)
        for node in self.nodes:
            if not known.issuperset(node.inputs):
                raise CircuitError(f"node {node.label!r} ({node.op.value}) reads an unknown value")
            if known.intersection(node.outputs):
                raise CircuitError(f"node {node.label!r} ({node.op.value}) writes a value twice")
            known.update(node.outputs)
        if not known.issuperset(self.outputs):
            raise CircuitError("an output is never written")
        if known != set(range(len(self.types))):
            raise CircuitError("every value needs exactly one type")

    @property
    def rotations(self) -> frozenset[int]:
        """Non-zero rotation steps modulo the slots, the Galois keys the circuit needs."""
        steps: set[int] = set()
        for node in self.nodes:
            if isinstance(node.attribute, LinearPlan):
                steps |= node.attribute.rotations()
            elif isinstance(node.attribute, Steps):
                steps.add(node.attribute.count)
            elif isinstance(node.attribute, Bootstrap):
                steps |= node.attribute.rotations(self.slots)
        return frozenset(step % self.slots for step in steps) - {0}

    @property
    def needs_relinearization(self) -> bool:
        """Tell whether two ciphertexts are ever multiplied."""
        products = (Op.MULTIPLY, Op.CHEBYSHEV, Op.BOOTSTRAP)
        return any(node.op in products for node in self.nodes)

    @property
    def bootstraps(self) -> bool:
        """Tell whether it needs the keys of bootstrapping: conjugation, and a sparse secret's."""
        return any(node.op is Op.BOOTSTRAP for node in self.nodes)


C = TypeVar("C")


class Evaluator(Protocol[C]):
    """What a backend must do with ciphertexts of type C.

    Rules of level l and degree d: add and subtract need equal types; multiply and multiply_plain
    need degree 1 and give degree 2 at the same level; rescale takes (l, 2) to (l - 1, 1); drop
    takes (l, 1) to (l', 1) with l' < l and the scale of l'; rotations, negate and add_plain keep
    the type; linear and weighted_sum need (l, 1) and give (l - 1, 1); bootstrap takes any (l, 1),
    l high enough for its first stages, to the level of its plan. Multiplying needs l >= 1.
    Errors are those of `tacit.type_rules`.
    """

    def add(self, a: C, b: C) -> C:
        """Add two ciphertexts of equal type."""
        ...

    def subtract(self, a: C, b: C) -> C:
        """Subtract two ciphertexts of equal type."""
        ...

    def negate(self, a: C) -> C:
        """Negate a ciphertext."""
        ...

    def add_plain(self, a: C, plain: Plain) -> C:
        """Add a constant, encoded at the ciphertext's level and degree."""
        ...

    def multiply_plain(self, a: C, plain: Plain) -> C:
        """Multiply by a constant: degree 1 to degree 2."""
        ...

    def multiply(self, a: C, b: C) -> C:
        """Multiply two ciphertexts of equal level and degree 1, and relinearise: degree 2."""
        ...

    def rotate(self, a: C, steps: int) -> C:
        """Rotate the slots to the left."""
        ...

    def rotate_many(self, a: C, steps: Sequence[int]) -> list[C]:
        """Rotate one ciphertext by several steps, hoisted where the backend can; 0 is allowed."""
        ...

    def rescale(self, a: C) -> C:
        """Divide by the last modulus: (l, 2) to (l - 1, 1)."""
        ...

    def drop(self, a: C, level: int) -> C:
        """Lower a degree-1 ciphertext to `level`, with that level's scale."""
        ...

    def linear(
        self, inputs: Sequence[C], plan: LinearPlan, constants: Mapping[str, Floats]
    ) -> list[C]:
        """Apply a linear transform."""
        ...

    def weighted_sum(
        self, inputs: Sequence[C], plan: WeightedSumPlan, constants: Mapping[str, Floats]
    ) -> list[C]:
        """Apply a matrix of scalars to a vector of ciphertexts."""
        ...

    def chebyshev(self, a: C, polynomial: Chebyshev, constants: Mapping[str, Floats]) -> C:
        """Evaluate a polynomial in the Chebyshev basis on [-1, 1]."""
        ...

    def bootstrap(self, a: C, plan: Bootstrap, constants: Mapping[str, Floats]) -> C:
        """Raise the level, and apply a function to slots in [-1/2, 1/2)."""
        ...

    def type_of(self, a: C) -> ValueType:
        """Return level and degree as the backend tracks them."""
        ...


def execute(
    circuit: Circuit,
    inputs: Sequence[C],
    evaluator: Evaluator[C],
    observe: Callable[[int, Node, Sequence[C]], None] | None = None,
) -> list[C]:
    """Run a circuit; values are released after their last use.

    Args:
        circuit: the program.
        inputs: one ciphertext per `circuit.inputs`.
        evaluator: the meaning of the operations.
        observe: called after each node with (index, node, its outputs), for progress and reports.

    Raises:
        CircuitError: wrong number of inputs.
        TacitError: from the evaluator, with the node's label added to the message.
        OutOfMemoryError: memory ran out at a node.
    """
    if len(inputs) != len(circuit.inputs):
        raise CircuitError(f"circuit needs {len(circuit.inputs)} inputs, got {len(inputs)}")
    values = dict(zip(circuit.inputs, inputs, strict=True))
    last_use = last_uses(circuit)
    for index, node in enumerate(circuit.nodes):
        place = f"node {index} ({node.op.value}, {node.label or 'unnamed'})"
        try:
            results = apply(node, [values[i] for i in node.inputs], evaluator, circuit.constants)
        except TacitError as error:
            error.args = (f"{place}: {error}",)
            raise
        except MemoryError as error:
            raise OutOfMemoryError(
                f"{place}: memory ran out: try again later, or ask for less at once"
            ) from error
        values.update(zip(node.outputs, results, strict=True))
        if observe is not None:
            observe(index, node, results)
        for value in set(node.inputs) | set(node.outputs):
            if last_use.get(value, -1) <= index:
                del values[value]
    return [values[i] for i in circuit.outputs]


def last_uses(circuit: Circuit) -> dict[int, int]:
    """Return for each value used the index of the last node that does; outputs outlive all."""
    last = {value: i for i, node in enumerate(circuit.nodes) for value in node.inputs}
    last.update(dict.fromkeys(circuit.outputs, len(circuit.nodes)))
    return last


def apply(
    node: Node, operands: Sequence[C], evaluator: Evaluator[C], constants: Mapping[str, Floats]
) -> list[C]:
    """Run one node."""
    match node.op, node.attribute:
        case Op.ADD, None:
            return [evaluator.add(*operands)]
        case Op.SUBTRACT, None:
            return [evaluator.subtract(*operands)]
        case Op.NEGATE, None:
            return [evaluator.negate(*operands)]
        case Op.ADD_PLAIN, Constant(name):
            return [evaluator.add_plain(operands[0], Plain(name, constants[name]))]
        case Op.MULTIPLY_PLAIN, Constant(name):
            return [evaluator.multiply_plain(operands[0], Plain(name, constants[name]))]
        case Op.MULTIPLY, None:
            return [evaluator.multiply(*operands)]
        case Op.ROTATE, Steps(count):
            return [evaluator.rotate(operands[0], count)]
        case Op.RESCALE, None:
            return [evaluator.rescale(*operands)]
        case Op.DROP, ToLevel(level):
            return [evaluator.drop(operands[0], level)]
        case Op.LINEAR, LinearPlan() as plan:
            return evaluator.linear(operands, plan, constants)
        case Op.WEIGHTED_SUM, WeightedSumPlan() as plan:
            return evaluator.weighted_sum(operands, plan, constants)
        case Op.CHEBYSHEV, Chebyshev() as polynomial:
            return [evaluator.chebyshev(operands[0], polynomial, constants)]
        case Op.BOOTSTRAP, Bootstrap() as plan:
            return [evaluator.bootstrap(operands[0], plan, constants)]
    raise CircuitError(f"{node.op.value} cannot carry {type(node.attribute).__name__}")
