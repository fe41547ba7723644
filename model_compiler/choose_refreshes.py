"""How far bootstraps should reach: more levels between them are fewer bootstraps, each dearer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tacit.bootstrap_levels import bootstrap_depth
from tacit.errors import ParameterError, SecurityError
from tacit.model_compiler.bootstrap import DEGREES, choose_bootstrap, default_plan
from tacit.model_compiler.graph import Graph
from tacit.model_compiler.lowering.depths import (
    BOOTSTRAPPED_OUTPUT_LEVEL,
    is_refreshing,
    latency_cost,
    required_levels,
)
from tacit.model_compiler.op_times import MachineTimes
from tacit.model_compiler.passes.place_refreshes import Levels, place_refreshes, with_refreshes
from tacit.params import CryptoParams

# Distances that need no thought: a map, and little more, between two activations.
_SHORT_WAY = 3
_LONGEST_WAY = 12
_STAGES = 2
# Levels that bootstraps take at least, beyond those they reach: fresh inputs can have them too.
_LEAST_DEPTH = 14
_DEGREE, _LOG_SCALE = 63, 36
_RINGS = (15, 16, 17)


def with_best_refreshes(graph: Graph, times: MachineTimes, params: CryptoParams | None) -> Graph:
    """Put refreshes where the way between bootstraps is too long, or shorter ones are cheaper.

    Args:
        graph: activations count as bootstraps, but for polynomials.
        times: prices of the machine.
        params: given ones, or None.

    Returns:
        The graph with `identity` activations; the same object where none are needed.

    Raises:
        ParameterError: some node takes more levels than any bootstrap reaches.
    """
    price = _given_price(params) if params else partial(_price, times=times)
    if params is None and _is_short(graph):
        return graph
    best: tuple[float, tuple[str, ...]] | None = None
    reason = "bootstraps reach no level at all"
    for reach in range(1, _LONGEST_WAY + 1):
        each = price(reach)
        if each is None:
            break
        try:
            bounds = _levels(reach, params)
            placed = place_refreshes(graph, bounds, latency_cost, lambda _name: 1.0)
        except ParameterError as error:
            reason = str(error)
            continue
        total = each * (len(placed) + sum(is_refreshing(node) for node in graph.nodes))
        if best is None or total < best[0]:
            best = total, placed
    if best is None:
        raise ParameterError(f"no secure parameters bootstrap this model: {reason}")
    return with_refreshes(graph, best[1]) if best[1] else graph


def _levels(reach: int, params: CryptoParams | None) -> Levels:
    top = _STAGES + reach
    deepest = top + _LEAST_DEPTH if params is None else params.depth
    return Levels(deepest, top, _STAGES, BOOTSTRAPPED_OUTPUT_LEVEL)


def _is_short(graph: Graph) -> bool:
    levels = required_levels(graph, latency_cost)
    between = [levels[node.output] for node in graph.nodes if is_refreshing(node)]
    first = max((levels[name] for name in graph.inputs), default=0)
    return bool(between) and max(between) <= _SHORT_WAY and first <= _SHORT_WAY


def _price(reach: int, times: MachineTimes) -> float | None:
    """Return the time of a bootstrap in the smallest ring where it is secure."""
    for log_n in _RINGS:
        try:
            return choose_bootstrap(reach, _DEGREE, _LOG_SCALE, times, log_ns=(log_n,)).seconds
        except SecurityError:
            continue
    return None


def _given_price(params: CryptoParams) -> Callable[[int], float | None]:
    """Price all reaches that given parameters allow alike."""

    def price(reach: int) -> float | None:
        plan = default_plan(params, _STAGES + reach)
        deepest = plan.level + bootstrap_depth(params, plan, min(DEGREES))
        return 1.0 if deepest <= params.depth else None

    return price
