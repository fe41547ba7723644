"""Circuits: validation, the interpreter, and what it does with errors and memory."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

from tacit.bootstrap import Bootstrap
from tacit.circuit import (
    Chebyshev,
    Circuit,
    Constant,
    LinearPlan,
    LinearTerm,
    Node,
    Op,
    Plain,
    Steps,
    ToLevel,
    ValueType,
    WeightedSumPlan,
    apply,
    execute,
)
from tacit.errors import CircuitError, LevelError, UnsupportedModelError

SLOTS = 8
TYPE = ValueType(2, 1)


class _Recorded:
    """A value that remembers how it was made."""

    def __init__(self, text: str) -> None:
        self.text = text


class _Recorder:
    """Writes down every call; fails where it is told to."""

    def __init__(self, failing: str = "", error: Exception | None = None) -> None:
        self._failing = failing
        self._error = error

    def __getattr__(self, name: str) -> Any:
        def call(*operands: Any) -> Any:
            if name == self._failing and self._error is not None:
                raise self._error
            words = [getattr(o, "text", None) or _word(o) for o in operands]
            made = _Recorded(f"{name}({', '.join(words)})")
            return [made, _Recorded(made.text)] if name in ("linear", "weighted_sum") else made

        return call


def _word(operand: Any) -> str:
    if isinstance(operand, Plain):
        return f"{operand.key}={operand.values.tolist()}"
    if isinstance(operand, list):
        return "[" + " ".join(o.text for o in operand) + "]"
    return type(operand).__name__ if not isinstance(operand, int) else str(operand)


def _circuit(*nodes: Node, inputs: int = 2, outputs: tuple[int, ...] = ()) -> Circuit:
    written = [value for node in nodes for value in node.outputs]
    return Circuit(
        slots=SLOTS,
        inputs=tuple(range(inputs)),
        outputs=outputs or (written[-1],),
        nodes=nodes,
        types=(TYPE,) * (inputs + len(written)),
        constants={"half": np.asarray(0.5)},
    )


def _run(circuit: Circuit, evaluator: Any) -> list[Any]:
    return execute(circuit, [_Recorded(f"x{i}") for i in circuit.inputs], evaluator)


PLAN = LinearPlan(2, (LinearTerm(0, 0, 16, 3, 0), LinearTerm(1, 0, 0, -1, 0)), "rows", "", (2, 0))


@pytest.mark.parametrize(
    ("op", "operands", "attribute", "expected"),
    [
        (Op.ADD, 2, None, "add(x0, x1)"),
        (Op.SUBTRACT, 2, None, "subtract(x0, x1)"),
        (Op.NEGATE, 1, None, "negate(x0)"),
        (Op.ADD_PLAIN, 1, Constant("half"), "add_plain(x0, half=0.5)"),
        (Op.MULTIPLY_PLAIN, 1, Constant("half"), "multiply_plain(x0, half=0.5)"),
        (Op.MULTIPLY, 2, None, "multiply(x0, x1)"),
        (Op.ROTATE, 1, Steps(-3), "rotate(x0, -3)"),
        (Op.RESCALE, 1, None, "rescale(x0)"),
        (Op.DROP, 1, ToLevel(1), "drop(x0, 1)"),
        (Op.LINEAR, 2, PLAN, "linear([x0 x1], LinearPlan, dict)"),
        (
            Op.WEIGHTED_SUM,
            2,
            WeightedSumPlan(2, "w", ""),
            "weighted_sum([x0 x1], WeightedSumPlan, dict)",
        ),
        (Op.CHEBYSHEV, 1, Chebyshev("c"), "chebyshev(x0, Chebyshev, dict)"),
        (Op.BOOTSTRAP, 1, Bootstrap("s", 1, 2), "bootstrap(x0, Bootstrap, dict)"),
    ],
)
def test_every_operation_reaches_its_method(
    op: Op, operands: int, attribute: Any, expected: str
) -> None:
    count = 2 if op in (Op.LINEAR, Op.WEIGHTED_SUM) else 1
    node = Node(op, (0, 1)[:operands], tuple(range(2, 2 + count)), attribute)
    assert _run(_circuit(node), _Recorder())[0].text == expected


def test_the_table_above_knows_every_operation() -> None:
    marks = test_every_operation_reaches_its_method.pytestmark
    assert {case[0] for case in marks[0].args[1]} == set(Op)


@pytest.mark.parametrize(
    ("op", "attribute"),
    [(Op.ADD, Steps(1)), (Op.ROTATE, None), (Op.LINEAR, Constant("half")), (Op.DROP, Steps(1))],
)
def test_an_attribute_must_suit_its_operation(op: Op, attribute: Any) -> None:
    with pytest.raises(CircuitError, match=f"{op.value} cannot carry"):
        apply(Node(op, (0,), (1,), attribute), [_Recorded("x")], _Recorder(), {})


def test_values_flow_from_node_to_node() -> None:
    circuit = _circuit(
        Node(Op.ADD, (0, 1), (2,)),
        Node(Op.MULTIPLY, (2, 0), (3,)),
        Node(Op.RESCALE, (3,), (4,)),
        outputs=(4, 2, 0),
    )
    texts = [value.text for value in _run(circuit, _Recorder())]
    assert texts == ["rescale(multiply(add(x0, x1), x0))", "add(x0, x1)", "x0"]


def test_an_observer_sees_every_node_and_its_results() -> None:
    circuit = _circuit(Node(Op.NEGATE, (0,), (1,), label="first"), inputs=1)
    seen: list[Any] = []
    execute(
        circuit,
        [_Recorded("x")],
        _Recorder(),
        lambda index, node, results: seen.append((index, node.label, results[0].text)),
    )
    assert seen == [(0, "first", "negate(x)")]


def test_values_are_released_after_their_last_use() -> None:
    alive: list[weakref.ref[Any]] = []
    most = 0

    def observe(index: int, node: Node, results: Any) -> None:
        nonlocal most
        alive.extend(weakref.ref(result) for result in results)
        gc.collect()
        most = max(most, sum(ref() is not None for ref in alive))

    chain = [Node(Op.NEGATE, (i,), (i + 1,)) for i in range(20)]
    unused = [Node(Op.NEGATE, (20,), (i,)) for i in range(21, 30)]
    circuit = _circuit(*chain, *unused, inputs=1, outputs=(20,))
    execute(circuit, [_Recorded("x")], _Recorder(), observe)
    assert most <= 3


def test_running_out_of_levels_names_the_node() -> None:
    circuit = _circuit(Node(Op.ADD, (0, 1), (2,)), Node(Op.RESCALE, (2,), (3,), label="fc1/gemm"))
    with pytest.raises(LevelError, match=r"node 1 \(rescale, fc1/gemm\): no level left"):
        _run(circuit, _Recorder("rescale", LevelError("no level left")))


def test_an_error_with_fields_keeps_its_class_and_fields() -> None:
    circuit = _circuit(Node(Op.NEGATE, (0,), (1,)), inputs=1)
    with pytest.raises(UnsupportedModelError, match=r"node 0 \(negate, unnamed\)") as caught:
        _run(circuit, _Recorder("negate", UnsupportedModelError(["a", "b"])))
    assert caught.value.problems == ("a", "b")


def test_the_number_of_inputs_is_checked() -> None:
    circuit = _circuit(Node(Op.ADD, (0, 1), (2,)))
    with pytest.raises(CircuitError, match="2 inputs, got 1"):
        execute(circuit, [_Recorded("x")], _Recorder())


@pytest.mark.parametrize(
    ("nodes", "outputs", "types", "message"),
    [
        ((Node(Op.NEGATE, (5,), (1,), label="bad"),), (1,), 2, "'bad' .negate. reads an unknown"),
        ((Node(Op.NEGATE, (0,), (0,)),), (0,), 1, "writes a value twice"),
        ((Node(Op.NEGATE, (0,), (1,)),), (2,), 2, "output is never written"),
        ((Node(Op.NEGATE, (0,), (1,)),), (1,), 3, "exactly one type"),
        ((Node(Op.NEGATE, (1,), (2,)), Node(Op.NEGATE, (0,), (1,))), (2,), 3, "reads an unknown"),
    ],
)
def test_broken_circuits_are_refused(
    nodes: tuple[Node, ...], outputs: tuple[int, ...], types: int, message: str
) -> None:
    with pytest.raises(CircuitError, match=message):
        Circuit(SLOTS, (0,), outputs, nodes, (TYPE,) * types)


def test_rotations_are_collected_modulo_the_slots() -> None:
    circuit = _circuit(
        Node(Op.ROTATE, (0,), (2,), Steps(-1)),
        Node(Op.ROTATE, (0,), (3,), Steps(7)),
        Node(Op.ROTATE, (0,), (4,), Steps(SLOTS)),
        Node(Op.LINEAR, (0,), (5, 6), PLAN),
    )
    # 16 is a whole turn; the plan has baby steps 3 and -1 and a fold by 2.
    assert circuit.rotations == {7, 3, 2}


def test_only_products_of_ciphertexts_need_relinearization() -> None:
    rotation = Node(Op.ROTATE, (0,), (2,), Steps(1))
    assert not _circuit(rotation).needs_relinearization
    assert _circuit(rotation, Node(Op.MULTIPLY, (0, 2), (3,))).needs_relinearization
    assert _circuit(Node(Op.CHEBYSHEV, (0,), (2,), Chebyshev("c"))).needs_relinearization


def test_baby_steps_are_listed_per_input() -> None:
    plan = LinearPlan(
        1,
        (LinearTerm(0, 0, 0, 3, 0), LinearTerm(0, 0, 4, 0, 1), LinearTerm(0, 1, 4, 3, 2)),
        "r",
        "",
    )
    assert plan.baby_steps(0) == (0, 3)
    assert plan.baby_steps(1) == (3,)
    assert plan.baby_steps(2) == ()
    assert plan.rotations() == {3, 4}


def test_a_constant_fills_the_slots_by_repeating_each_element() -> None:
    plain = Plain("w", np.array([1.0, 2.0]))
    assert plain.expand(SLOTS).tolist() == [1.0] * 4 + [2.0] * 4
    assert not plain.is_scalar
    scalar = Plain("s", np.asarray(0.5))
    assert scalar.is_scalar
    assert scalar.expand(SLOTS).tolist() == [0.5] * SLOTS


@pytest.mark.parametrize("shape", [(3,), (2, 2), (2 * SLOTS,)])
def test_a_constant_that_does_not_fill_the_slots_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(CircuitError, match="'w' has shape"):
        Plain("w", np.zeros(shape)).expand(SLOTS)


def test_joint_folds_rotate_by_every_sum_of_their_steps() -> None:
    term = (LinearTerm(0, 0, 0, 0, 0),)
    plan = LinearPlan(1, term, "w", "", (8, 4, 2), (2, 1))
    assert plan.fold_sums() == [(8, 4, 12), (2,)]
    assert plan.rotations() == {2, 4, 8, 12}
    assert LinearPlan(1, term, "w", "", (8, 4, 2)).fold_sums() == [(8,), (4,), (2,)]


@pytest.mark.parametrize("joint", [(2,), (2, 2), (0, 3), (-1, 4)])
def test_groups_of_folds_must_make_up_the_folds(joint: tuple[int, ...]) -> None:
    with pytest.raises(CircuitError, match="do not make up 3 folds"):
        LinearPlan(1, (LinearTerm(0, 0, 0, 0, 0),), "w", "", (8, 4, 2), joint)
