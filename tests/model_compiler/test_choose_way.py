"""Leveled or bootstrapped: what is chosen, and why the report says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from tacit.circuit import Op
from tacit.errors import ParameterError
from tacit.model_compiler import CompileOptions, compile_model
from tacit.model_compiler.bootstrapped_passes import BOOTSTRAPPED_PASSES
from tacit.model_compiler.choose_way import choose_way, least_depth, sequential_activations
from tacit.model_compiler.compile_state import Pass, State, known
from tacit.model_compiler.graph import Activation, Graph, Node, Polynomial
from tacit.model_compiler.leveled_bound import polynomial_seconds
from tacit.model_compiler.leveled_passes import ACCURATE_FIRST_PASS, LEVELED_PASSES
from tacit.model_compiler.op_times import reference_times
from tacit.model_compiler.passes.approximate import Approximated
from tacit.model_compiler.passes.score import Budget, Score
from tacit.params import MAX_LOG_QP_128, SecretDistribution
from tests.model_compiler.onnx_models import build

SIZE = 4


def _chain(activations: int, function: str = "Tanh") -> onnx.ModelProto:
    generator = np.random.default_rng(activations)
    lines, constants, tensor = [], {}, "X"
    for index in range(activations):
        name = f"W{index}"
        constants[name] = generator.normal(size=(SIZE, SIZE)) / np.sqrt(SIZE)
        written = "Y" if index == activations - 1 else f"a{index}"
        lines += [f"m{index} = MatMul({tensor}, {name})", f"{written} = {function}(m{index})"]
        tensor = written
    return build("\n".join(lines), {"X": (SIZE,)}, constants)


def _options(bootstrap: str = "auto") -> CompileOptions:
    rows = np.random.default_rng(0).uniform(-1.0, 1.0, (64, SIZE))
    # The client's part would take the last activation.
    return CompileOptions(
        calibration=rows, bootstrap=bootstrap, plans=("latency",), keep_on_server=True
    )


def test_a_shallow_network_stays_leveled(tmp_path: Path) -> None:
    made = compile_model(_chain(1), tmp_path, options=_options())
    assert not made.circuits["latency"].bootstraps
    facts = made.report["bootstraps"]
    assert isinstance(facts, dict)
    assert "none is as fast" in facts["reason"]


@pytest.mark.slow
def test_a_network_too_deep_for_levels_bootstraps_at_128_bits(tmp_path: Path) -> None:
    made = compile_model(_chain(25), tmp_path, options=_options())
    params = made.signature.params
    nodes = made.circuits["latency"].nodes
    assert sum(node.op is Op.BOOTSTRAP for node in nodes) == 25
    assert params.secret is SecretDistribution.SPARSE_ENCAPSULATED
    assert params.log_qp <= MAX_LOG_QP_128[params.log_n] - 2.0
    facts = made.report["bootstraps"]
    assert isinstance(facts, dict)
    assert "levels" in facts["reason"]


def test_what_one_way_found_out_about_its_maps_is_not_for_the_other() -> None:
    node = Activation("y", "x", "tanh", (), "t")
    graph = Graph("g", ("x",), ("y",), dict.fromkeys("xy", (SIZE,)), (node,))
    state = State(b"", CompileOptions(), reference_times(), graph=graph)
    seen = []

    def run(given: State, passes: Sequence[tuple[str, Pass]]) -> State:
        seen.append(given.maps)
        if passes is not BOOTSTRAPPED_PASSES and len(passes) > 1:
            raise ParameterError("too deep")
        return given

    assert "too deep" in choose_way(state, run).way
    assert seen[0] is seen[1] is state.maps
    assert seen[2] is not state.maps


@pytest.mark.parametrize(
    ("leveled", "bootstrapped", "expected"),
    [((0.002, 1.0), (0.001, 3.0), 0.002), ((0.2, 1.0), (0.007, 9.0), 0.007)],
    ids=["both are accurate: the faster", "neither is: the closer one"],
)
def test_accuracy_comes_before_time(
    leveled: tuple[float, float], bootstrapped: tuple[float, float], expected: float
) -> None:
    node = Activation("y", "x", "tanh", (), "t")
    graph = Graph("g", ("x",), ("y",), dict.fromkeys("xy", (SIZE,)), (node,))

    def run(given: State, passes: Sequence[tuple[str, Pass]]) -> State:
        error, seconds = bootstrapped if passes is BOOTSTRAPPED_PASSES else leveled
        score = Score(error, error, 1.0, 0.0)
        plan: Any = SimpleNamespace(prediction=SimpleNamespace(seconds=seconds))
        found = Approximated(graph, (), score, Budget(0.006))
        return replace(given, approximated=found, plans={"latency": plan})

    state = State(b"", CompileOptions(), reference_times(), graph=graph)
    assert known(choose_way(state, run).approximated).score.rms == expected


@pytest.mark.parametrize(("rms", "runs"), [(0.001, 2), (0.05, 3)], ids=["accurate", "not either"])
def test_no_bargain_is_sought_where_bootstraps_keep_the_accuracy(rms: float, runs: int) -> None:
    node = Activation("y", "x", "tanh", (), "t")
    graph = Graph("g", ("x",), ("y",), dict.fromkeys("xy", (SIZE,)), (node,))
    seen: list[Sequence[tuple[str, Pass]]] = []

    def run(given: State, passes: Sequence[tuple[str, Pass]]) -> State:
        seen.append(passes)
        if passes is ACCURATE_FIRST_PASS:
            raise ParameterError("too deep to be accurate")
        error = rms if passes is BOOTSTRAPPED_PASSES else 0.2
        plan: Any = SimpleNamespace(prediction=SimpleNamespace(seconds=1.0))
        found = Approximated(graph, (), Score(error, error, 1.0, 0.0), Budget(0.006))
        return replace(given, approximated=found, plans={"latency": plan})

    way = choose_way(State(b"", CompileOptions(), reference_times(), graph=graph), run)
    assert known(way.approximated).score.rms == rms
    assert seen == [ACCURATE_FIRST_PASS, BOOTSTRAPPED_PASSES, LEVELED_PASSES][:runs]


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(ParameterError, match="'auto', 'never', 'always'"):
        CompileOptions(bootstrap="perhaps")


def test_depth_and_activations_are_counted_along_the_longest_path() -> None:
    nodes: list[Node] = [Activation(f"t{i + 1}", f"t{i}", "tanh", (), "t") for i in range(4)]
    nodes.append(Activation("y", "t1", "polynomial", (0.0, 0.0, 1.0), "square"))
    names = ["t0", *(node.output for node in nodes)]
    graph = Graph("g", ("t0",), ("t4", "y"), dict.fromkeys(names, (SIZE,)), tuple(nodes))
    assert sequential_activations(graph) == 4
    assert least_depth(graph) == 12


def test_no_ring_is_deep_enough_for_a_long_chain_of_polynomials() -> None:
    coefficients = np.ones(16)
    nodes = [Polynomial(f"t{i + 1}", f"t{i}", coefficients, 0.0, 1.0, "p") for i in range(30)]
    names = ["t0", *(node.output for node in nodes)]
    times = reference_times()
    graph = Graph("g", ("t0",), ("t30",), dict.fromkeys(names, (SIZE,)), tuple(nodes))
    assert polynomial_seconds(graph, times) == np.inf
    some = Graph("g", ("t0",), ("t2",), dict.fromkeys(names[:3], (SIZE,)), tuple(nodes[:2]))
    one = Graph("g", ("t0",), ("t1",), dict.fromkeys(names[:2], (SIZE,)), tuple(nodes[:1]))
    assert 0.0 < polynomial_seconds(one, times) < polynomial_seconds(some, times) < np.inf
