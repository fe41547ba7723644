"""Choose the degree of every activation's polynomial: the cheapest that keep a budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tacit.model_compiler.graph import Graph, Node, apply_node
from tacit.model_compiler.passes.score import Budget, Score, answers, score_answers

Floats = NDArray[np.float64]
Fit = Callable[[int, int], Node]
Price = Callable[[tuple[Node, ...]], float]

# Out of the budget's reach, errors up to this factor above the least one reached are considered.
_BARGAIN = 8.0


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """A choice of degrees (node index -> rung of its ladder) and the values it gives."""

    rungs: Mapping[int, int]
    nodes: tuple[Node, ...]
    values: Mapping[str, Floats]
    score: Score
    excess: float
    price: float

    @property
    def merit(self) -> float:
        """Seconds times error: the less the better, where the budget cannot be kept."""
        return self.excess * self.price

    @property
    def is_allowed(self) -> bool:
        return self.excess <= 1.0


@dataclass(frozen=True, slots=True, eq=False)
class _Search:
    graph: Graph
    ladders: Mapping[int, tuple[int, ...]]
    fit: Fit
    inputs: Mapping[str, Floats]
    exact: Mapping[str, Floats]
    budget: Budget
    price: Price

    def uniform(self, rung: int) -> _State:
        """Put every activation on the same rung, or on the last one it has."""
        rungs = {i: min(rung, len(ladder) - 1) for i, ladder in self.ladders.items()}
        nodes = list(self.graph.nodes)
        for index, own in rungs.items():
            nodes[index] = self.fit(index, self.ladders[index][own])
        values = dict(self.inputs)
        with np.errstate(all="ignore"):
            for node in nodes:
                values[node.output] = apply_node(node, values)
        return self._state(rungs, nodes, values)

    def lower(self, state: _State, index: int) -> _State | None:
        """Take one activation a rung down; only what follows it is computed again."""
        rung = state.rungs[index] - 1
        if rung < 0:
            return None
        nodes = list(state.nodes)
        nodes[index] = self.fit(index, self.ladders[index][rung])
        values, stale = dict(state.values), {nodes[index].output}
        with np.errstate(all="ignore"):
            for node in nodes[index:]:
                if node.output in stale or stale.intersection(node.inputs):
                    values[node.output] = apply_node(node, values)
                    stale.add(node.output)
        return self._state({**state.rungs, index: rung}, nodes, values)

    def _state(
        self, rungs: Mapping[int, int], nodes: list[Node], values: Mapping[str, Floats]
    ) -> _State:
        score = score_answers(self.exact, answers(self.graph, values))
        price = self.price(tuple(nodes))
        return _State(rungs, tuple(nodes), values, score, self.budget.excess(score), price)


def search_degrees(
    graph: Graph,
    ladders: Mapping[int, tuple[int, ...]],
    fit: Fit,
    inputs: Mapping[str, Floats],
    exact: Mapping[str, Floats],
    budget: Budget,
    price: Price,
) -> dict[int, int]:
    """Choose the least degrees within the budget; out of its reach, the best bargain.

    All activations climb together until the budget holds; then they go down one by one, the one
    with the least growth of error first, while it still holds. If the budget cannot be kept at a
    finite price, then among those with at most eight times the least error that can be reached,
    the degrees with the least product of price and error are taken: half the error is not worth
    more than twice the price.

    Args:
        graph: the graph to change; nodes outside `ladders` stay.
        ladders: for each node index, the degrees to choose from, ascending.
        fit: (node index, degree) -> the node's replacement.
        inputs: rows for the graph's inputs, each (rows, size).
        exact: the answers wanted on those rows.
        budget: what to keep.
        price: of a graph with these nodes; inf where it cannot be run.

    Returns:
        The degree for each node index.
    """
    search = _Search(graph, ladders, fit, inputs, exact, budget, price)
    climbed = _climbed(search)
    if not climbed:
        return {}
    state = climbed[-1]
    if state.is_allowed:
        state = _lowered(search, state)
    if not (state.is_allowed and np.isfinite(state.price)):
        state = _bargained(search, climbed)
    return {index: ladders[index][rung] for index, rung in state.rungs.items()}


def _climbed(search: _Search) -> list[_State]:
    """Return the states of rung 0, 1, ... up to the first within the budget."""
    states: list[_State] = []
    for rung in range(max(map(len, search.ladders.values()), default=0)):
        states.append(search.uniform(rung))
        if states[-1].is_allowed:
            break
    return states


def _bargain(state: _State) -> tuple[float, float]:
    """Order states by merit; among those that cannot be run, the shallowest first."""
    return (state.merit, float(sum(state.rungs.values())))


def _lowered(search: _Search, state: _State) -> _State:
    open_indices = set(search.ladders)
    while open_indices:
        moves = {index: search.lower(state, index) for index in sorted(open_indices)}
        allowed = {index: move for index, move in moves.items() if move and move.is_allowed}
        open_indices = set(allowed)
        if allowed:
            state = min(allowed.values(), key=lambda move: move.excess)
    return state


def _bargained(search: _Search, climbed: list[_State]) -> _State:
    finite = [state for state in climbed if np.isfinite(state.price)] or climbed[:1]
    most = _BARGAIN * min(state.excess for state in finite)
    state = min((state for state in finite if state.excess <= most), key=_bargain)
    while True:
        moves = [move for index in search.ladders if (move := search.lower(state, index))]
        close = [move for move in moves if move.excess <= most]
        best = min(close, key=_bargain, default=state)
        if _bargain(best) >= _bargain(state):
            return state
        state = best
