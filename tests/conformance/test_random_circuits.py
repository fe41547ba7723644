"""Random circuits: every backend must agree with the clear one, within the bits to expect."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

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
    apply,
    execute,
)
from tacit.errors import TacitError
from tacit.params import CryptoParams
from tacit.runtime.backends.clear import ClearCiphertext, ClearEvaluator
from tests.conformance.backends import Backend

Floats = NDArray[np.float64]

_STEPS = (1, 2, 3, 8, 64, -1, -7)
# Values this large still fit every modulus with bits to spare.
_LARGEST = 4.0


class _Grower:
    """Appends random legal nodes, running them on the clear backend to know types and sizes."""

    def __init__(self, params: CryptoParams, seed: int) -> None:
        self._params = params
        self._rng = np.random.default_rng(seed)
        self._evaluator = ClearEvaluator(params)
        self.inputs = [self._rng.uniform(-1, 1, params.slots) for _ in range(2)]
        self._values: list[ClearCiphertext] = [self._evaluator.encrypt(x) for x in self.inputs]
        self._nodes: list[Node] = []
        self._constants: dict[str, Floats] = {}

    def grow(self, nodes: int) -> Circuit:
        """Try random nodes until there are enough that the rules and the sizes allow."""
        while len(self._nodes) < nodes:
            self._try(list(Op)[int(self._rng.integers(len(Op)))])
        outputs = tuple(i for i in range(len(self._values)) if self._values[i].degree == 1)[-3:]
        return Circuit(
            slots=self._params.slots,
            inputs=(0, 1),
            outputs=outputs,
            nodes=tuple(self._nodes),
            types=tuple(value.type for value in self._values),
            constants=self._constants,
        )

    def _try(self, op: Op) -> None:
        operands = self._operands(2 if op in (Op.ADD, Op.SUBTRACT, Op.MULTIPLY) else 1, op)
        attribute, constants = self._attribute(op, operands)
        values = [self._values[i] for i in operands]
        node = Node(op, operands, (), attribute, f"{op.value} {len(self._nodes)}")
        try:
            results = apply(node, values, self._evaluator, constants)
        except TacitError:
            return
        if max(float(np.max(np.abs(r.values))) for r in results) > _LARGEST:
            return
        first = len(self._values)
        written = tuple(range(first, first + len(results)))
        self._nodes.append(Node(op, operands, written, attribute, node.label))
        self._values.extend(results)
        self._constants.update(constants)

    def _operands(self, count: int, op: Op) -> tuple[int, ...]:
        first = int(self._rng.integers(len(self._values)))
        if op in (Op.LINEAR, Op.WEIGHTED_SUM):
            count = int(self._rng.integers(1, 4))
        alike = [i for i, v in enumerate(self._values) if v.type == self._values[first].type]
        return (first, *(int(self._rng.choice(alike)) for _ in range(count - 1)))

    def _attribute(self, op: Op, operands: tuple[int, ...]) -> tuple[Attribute, dict[str, Floats]]:
        rng, name = self._rng, f"constant {len(self._nodes)}"
        slots = self._params.slots
        match op:
            case Op.ADD_PLAIN | Op.MULTIPLY_PLAIN:
                shape = [(), (4,), (slots,)][int(rng.integers(3))]
                return Constant(name), {name: np.asarray(rng.uniform(-1, 1, shape))}
            case Op.ROTATE:
                return Steps(int(rng.choice(_STEPS))), {}
            case Op.DROP:
                return ToLevel(int(rng.integers(self._params.depth))), {}
            case Op.CHEBYSHEV:
                count = int(rng.integers(2, 8))
                return Chebyshev(name), {name: rng.uniform(-1, 1, count) / count}
            case Op.LINEAR:
                plan = self._linear_plan(name, len(operands))
                return plan, {name: rng.uniform(-0.5, 0.5, (4, slots // 2))}
            case Op.WEIGHTED_SUM:
                weights = rng.uniform(-0.5, 0.5, (2, len(operands)))
                bias = f"{name} bias"
                return WeightedSumPlan(2, name, bias), {name: weights, bias: rng.uniform(-1, 1, 2)}
        return None, {}

    def _linear_plan(self, name: str, inputs: int) -> LinearPlan:
        rng = self._rng
        steps = [0, 1, 2, 3, 8]
        terms = tuple(
            LinearTerm(
                row % 2,
                int(rng.integers(inputs)),
                int(rng.choice(steps)),
                int(rng.choice(steps)),
                row,
            )
            for row in range(4)
        )
        return LinearPlan(2, terms, name, "", (64,) if rng.integers(2) else ())


@pytest.mark.parametrize("seed", range(12))
def test_random_circuits_agree_with_the_clear_backend(backend: Backend, seed: int) -> None:
    grower = _Grower(backend.params, seed)
    circuit = grower.grow(20)
    clear = ClearEvaluator(backend.params)
    expected = execute(circuit, [clear.encrypt(x) for x in grower.inputs], clear)
    assert clear.overflows == 0
    types: dict[int, ValueType] = {}

    def program(ev: Any, c: list[Any]) -> list[Any]:
        def observe(index: int, node: Node, results: Any) -> None:
            types.update(zip(node.outputs, [ev.type_of(r) for r in results], strict=True))

        return execute(circuit, c, ev, observe)

    backend.check(program, grower.inputs, [e.values for e in expected])
    assert all(found == circuit.types[value] for value, found in types.items())
    assert len(types) == len(circuit.types) - 2
