"""Leveled or bootstrapped: what is feasible, and then what is predicted to be faster.

A leveled circuit can be ruled out before it is made when its activations alone take more levels
than any ring has; a bootstrapped one when its bootstraps alone take longer than the whole leveled
circuit. So mostly only one of them is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from tacit.errors import ParameterError
from tacit.model_compiler.bootstrapped_passes import BOOTSTRAPPED_PASSES
from tacit.model_compiler.compile_state import Pass, State, known
from tacit.model_compiler.graph import Graph, Node
from tacit.model_compiler.leveled_bound import polynomial_seconds
from tacit.model_compiler.leveled_passes import ACCURATE_FIRST_PASS, LEVELED_PASSES
from tacit.model_compiler.lowering.depths import is_refreshing, latency_cost
from tacit.model_compiler.lowering.latency import LinearMaps
from tacit.params import MAX_LOG_QP_128

Run = Callable[[State, Sequence[tuple[str, Pass]]], State]

# Levels of the shortest polynomial that can stand for an activation: degree 5.
_LEAST_LEVELS = 3
# Of the largest ring considered for leveled circuits, and the smallest scale.
_LARGEST_RING, _SMALLEST_SCALE = 16, 24
# No bootstrap is faster, on one thread of the reference machine: N = 2^15, 28-bit primes.
_LEAST_BOOTSTRAP_SECONDS = 1.0


def choose_way(state: State, run: Run) -> State:
    """Run the passes of one way or the other, or both, and keep what is better.

    Args:
        state: after the first passes.
        run: runs passes on a state.

    Raises:
        ParameterError: no way has secure parameters.
    """
    graph, asked = known(state.graph), state.options.bootstrap
    if asked == "never":
        return _said(run(state, LEVELED_PASSES), "as asked for")
    if asked == "always":
        return _said(_bootstrapped(state, run), "as asked for")
    least, most = least_depth(graph), MAX_LOG_QP_128[_LARGEST_RING] // _SMALLEST_SCALE
    if least > most:
        reason = f"without bootstraps the model takes {least} levels, at most {most} are secure"
        return _said(_bootstrapped(state, run), reason)
    return _faster(state, run, sequential_activations(graph) * _LEAST_BOOTSTRAP_SECONDS)


def _bootstrapped(state: State, run: Run) -> State:
    """Run that way's passes; what the other way found out about its maps is of another graph."""
    return run(replace(state, maps=LinearMaps()), BOOTSTRAPPED_PASSES)


def least_depth(graph: Graph) -> int:
    """Bound from below the levels of a graph whose activations are polynomials."""

    def cost(node: Node) -> int:
        return _LEAST_LEVELS if is_refreshing(node) else latency_cost(node)

    return _longest_path(graph, cost)


def sequential_activations(graph: Graph) -> int:
    """Count the activations on the longest path, those that a bootstrap can apply."""
    return _longest_path(graph, lambda node: int(is_refreshing(node)))


def _longest_path(graph: Graph, cost: Callable[[Node], int]) -> int:
    reached = dict.fromkeys(graph.inputs, 0)
    for node in graph.nodes:
        reached[node.output] = cost(node) + max(reached[name] for name in node.inputs)
    return max(reached[name] for name in graph.outputs)


def _faster(state: State, run: Run, least_seconds: float) -> State:
    """Make the circuit that is likely to be faster, and the other one if it can be better."""
    try:
        begun = run(state, ACCURATE_FIRST_PASS)
    except ParameterError as error:
        return _inaccurate(state, run, str(error))
    bound = polynomial_seconds(known(begun.graph), state.times)
    if least_seconds == 0.0 or bound <= least_seconds:
        return _leveled_first(state, begun, run, least_seconds)
    try:
        bootstrapped = _bootstrapped(state, run)
    except ParameterError as error:
        return _only_leveled(begun, run, LEVELED_PASSES[1:], error)
    seconds = _seconds(bootstrapped)
    if seconds <= bound and known(bootstrapped.approximated).within_budget:
        times = "too deep" if bound == float("inf") else f"at least {bound:.3g} s"
        return _said(bootstrapped, f"{seconds:.3g} s; without bootstraps {times}")
    return _also_leveled(begun, bootstrapped, run, LEVELED_PASSES[1:])


def _inaccurate(state: State, run: Run, reason: str) -> State:
    """Make the bootstrapped circuit; the leveled one only if that misses the accuracy as well."""
    try:
        bootstrapped = _bootstrapped(state, run)
    except ParameterError as error:
        return _only_leveled(state, run, LEVELED_PASSES, error)
    if known(bootstrapped.approximated).within_budget:
        return _said(bootstrapped, f"without bootstraps: {reason}")
    return _also_leveled(state, bootstrapped, run, LEVELED_PASSES)


def _only_leveled(
    begun: State, run: Run, passes: Sequence[tuple[str, Pass]], refused: ParameterError
) -> State:
    try:
        leveled = run(begun, passes)
    except ParameterError as error:
        raise ParameterError(f"without bootstraps: {error}. With bootstraps: {refused}") from error
    return _said(leveled, f"bootstraps are not feasible: {refused}")


def _also_leveled(
    begun: State, bootstrapped: State, run: Run, passes: Sequence[tuple[str, Pass]]
) -> State:
    """Make the leveled circuit by its remaining passes, and keep the better one."""
    try:
        leveled = run(begun, passes)
    except ParameterError as error:
        return _said(bootstrapped, f"without bootstraps: {error}")
    return _better(leveled, bootstrapped)


def _leveled_first(state: State, begun: State, run: Run, least_seconds: float) -> State:
    """Make the leveled circuit, and the bootstrapped one if it can be better."""
    leveled: State | None = None
    refused = ""
    try:
        leveled = run(begun, LEVELED_PASSES[1:])
    except ParameterError as error:
        refused = str(error)
    if leveled is not None and least_seconds == 0.0:
        return _said(leveled, "no activation needs a bootstrap")
    if leveled is not None and known(leveled.approximated).within_budget:
        seconds = _seconds(leveled)
        if seconds <= least_seconds:
            return _said(leveled, f"{seconds:.3g} s without bootstraps, and none is as fast")
    try:
        bootstrapped = _bootstrapped(state, run)
    except ParameterError as error:
        if leveled is None:
            raise ParameterError(
                f"without bootstraps: {refused}. With bootstraps: {error}"
            ) from error
        return _said(leveled, f"bootstraps are not feasible: {error}")
    if leveled is None:
        return _said(bootstrapped, f"without bootstraps: {refused}")
    return _better(leveled, bootstrapped)


def _better(leveled: State, bootstrapped: State) -> State:
    """Keep the faster circuit of two that are accurate enough, else the more accurate one."""
    times = (
        f"{_seconds(leveled):.3g} s without bootstraps, {_seconds(bootstrapped):.3g} s with them"
    )
    excess = [_excess(leveled), _excess(bootstrapped)]
    if max(excess) > 1.0:
        chosen = leveled if excess[0] < excess[1] else bootstrapped
        return _said(chosen, f"this way is closer to the accuracy asked for ({times})")
    return _said(min(leveled, bootstrapped, key=_seconds), times)


def _excess(state: State) -> float:
    """Return the error found as a multiple of what the accuracy asked for allows."""
    found = known(state.approximated)
    return found.budget.excess(found.score)


def _seconds(state: State) -> float:
    return min(plan.prediction.seconds for plan in state.plans.values())


def _said(state: State, reason: str) -> State:
    return replace(state, way=reason)
