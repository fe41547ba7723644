"""Choose what replaces every activation: the cheapest polynomials that keep a budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from tacit.errors import ParameterError
from tacit.model_compiler.graph import Graph, Node, apply_node
from tacit.model_compiler.passes.score import Budget, Score, answers, score_answers

Floats = NDArray[np.float64]
T = TypeVar("T")
Chain = tuple[Node, ...]
Price = Callable[[tuple[Node, ...]], float]

# Out of the budget's reach, errors up to this factor above the least one reached are considered.
_BARGAIN = 8.0


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """A rung of every ladder, by node index, and the values that gives.

    Attributes:
        chains: for each node of the graph, the nodes in its place.
    """

    rungs: Mapping[int, int]
    chains: tuple[Chain, ...]
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
class _Search(Generic[T]):
    graph: Graph
    ladders: Mapping[int, tuple[T, ...]]
    fit: Callable[[int, T], Chain]
    inputs: Mapping[str, Floats]
    exact: Mapping[str, Floats]
    budget: Budget
    price: Price

    def uniform(self, rung: int) -> _State:
        """Put every activation on the same rung, or on the last one it has."""
        rungs = self._rungs(rung)
        chains = self._chains(rungs)
        values = dict(self.inputs)
        for chain in chains:
            _apply(chain, values)
        return self._state(rungs, chains, values)

    def price_of(self, rung: int) -> float:
        """Price every activation on the same rung, without computing anything."""
        chains = self._chains(self._rungs(rung))
        return self.price(tuple(node for chain in chains for node in chain))

    def _rungs(self, rung: int) -> dict[int, int]:
        return {i: min(rung, len(ladder) - 1) for i, ladder in self.ladders.items()}

    def _chains(self, rungs: Mapping[int, int]) -> list[Chain]:
        chains: list[Chain] = [(node,) for node in self.graph.nodes]
        for index, own in rungs.items():
            chains[index] = self.fit(index, self.ladders[index][own])
        return chains

    def lower(self, state: _State, index: int) -> _State | None:
        """Take one activation a rung down; only what follows it is computed again."""
        rung = state.rungs[index] - 1
        if rung < 0:
            return None
        chains = list(state.chains)
        chains[index] = self.fit(index, self.ladders[index][rung])
        output = self.graph.nodes[index].output
        values, stale = dict(state.values), {output}
        for chain, node in zip(chains[index:], self.graph.nodes[index:], strict=True):
            if node.output in stale or stale.intersection(node.inputs):
                _apply(chain, values)
                stale.add(node.output)
        return self._state({**state.rungs, index: rung}, chains, values)

    def _state(
        self, rungs: Mapping[int, int], chains: list[Chain], values: Mapping[str, Floats]
    ) -> _State:
        score = score_answers(self.exact, answers(self.graph, values))
        price = self.price(tuple(node for chain in chains for node in chain))
        return _State(rungs, tuple(chains), values, score, self.budget.excess(score), price)


def _apply(chain: Chain, values: dict[str, Floats]) -> None:
    """Compute a chain and keep what its last node writes."""
    own = dict(values)
    with np.errstate(all="ignore"):
        for node in chain:
            own[node.output] = apply_node(node, own)
    values[chain[-1].output] = own[chain[-1].output]


def search_degrees(
    graph: Graph,
    ladders: Mapping[int, tuple[T, ...]],
    fit: Callable[[int, T], Chain],
    inputs: Mapping[str, Floats],
    exact: Mapping[str, Floats],
    budget: Budget,
    price: Price,
    *,
    bargain: bool = True,
) -> dict[int, T]:
    """Choose the cheapest replacements within the budget; out of its reach, the best bargain.

    All activations climb together until the budget holds; then they go down one by one, the one
    with the least growth of error first, while it still holds. If the budget cannot be kept at a
    finite price, then among those with at most eight times the least error that can be reached,
    those with the least product of price and error are taken: half the error is not worth
    more than twice the price.

    Args:
        graph: the graph to change; nodes outside `ladders` stay.
        ladders: for each node index, what to choose from, ever dearer and better.
        fit: (node index, choice) -> the nodes in its place, the last writing its output.
        inputs: rows for the graph's inputs, each (rows, size).
        exact: the answers wanted on those rows.
        budget: what to keep.
        price: of a graph with these nodes; inf where it cannot be run.
        bargain: whether to look for a bargain where the budget cannot be kept.

    Returns:
        The choice for each node index.

    Raises:
        ParameterError: nothing that can be run keeps the budget, and no bargain is wanted.
    """
    search = _Search(graph, ladders, fit, inputs, exact, budget, price)
    climbed = _climbed(search)
    if not climbed:
        return {}
    state = climbed[-1]
    if state.is_allowed:
        state = _lowered(search, state)
    if not (state.is_allowed and np.isfinite(state.price)):
        if not bargain:
            raise ParameterError("no circuit that is not too deep keeps the accuracy asked for")
        state = _bargained(search, climbed)
    return {index: ladders[index][rung] for index, rung in state.rungs.items()}


def _climbed(search: _Search[T]) -> list[_State]:
    """Return states with all activations on the same rung, up to the first within the budget.

    Where the highest rung is within the budget, the first is found by bisection, and only what that
    has looked at is returned; else all rungs that can be run, and the highest.
    """
    count = max(map(len, search.ladders.values()), default=0)
    if count == 0:
        return []
    seen = {count - 1: search.uniform(count - 1)}
    if not seen[count - 1].is_allowed:
        affordable = [rung for rung in range(count - 1) if np.isfinite(search.price_of(rung))]
        seen.update({rung: search.uniform(rung) for rung in affordable or [0]})
        return [seen[rung] for rung in sorted(seen)]
    low, first = 0, count - 1
    while low < first:
        middle = (low + first) // 2
        seen[middle] = search.uniform(middle)
        low, first = (low, middle) if seen[middle].is_allowed else (middle + 1, first)
    return [seen[rung] for rung in sorted(seen) if rung <= first]


def _bargain(state: _State) -> tuple[float, float]:
    """Order states by merit; among those that cannot be run, the shallowest first."""
    return (state.merit, float(sum(state.rungs.values())))


def _lowered(search: _Search[T], state: _State) -> _State:
    """Go down while the budget holds, the step with the least growth of error first.

    Errors grow from step to step, so what a step cost earlier is less than what it costs now: only
    the cheapest by that measure is tried again.
    """
    known = dict.fromkeys(search.ladders, state.excess)  # at least so much
    fresh: dict[int, _State] = {}
    while known:
        index = min(known, key=lambda i: (known[i], i))
        if index in fresh:
            state, fresh = fresh[index], {}
            continue
        move = search.lower(state, index)
        if move is None or not move.is_allowed:
            del known[index]
            continue
        known[index], fresh[index] = move.excess, move
    return state


def _bargained(search: _Search[T], climbed: list[_State]) -> _State:
    reached = [*climbed, _affordable(search, climbed[-1])]
    finite = [state for state in reached if np.isfinite(state.price)] or climbed[:1]
    most = _BARGAIN * min(state.excess for state in finite)
    state = min((state for state in finite if state.excess <= most), key=_bargain)
    while True:
        moves = [move for index in search.ladders if (move := search.lower(state, index))]
        close = [move for move in moves if move.excess <= most]
        best = min(close, key=_bargain, default=state)
        if _bargain(best) >= _bargain(state):
            return state
        state = best


def _affordable(search: _Search[T], state: _State) -> _State:
    """Go down from a state that cannot be run, where it hurts least, until it can."""
    while not np.isfinite(state.price):
        moves = [move for index in search.ladders if (move := search.lower(state, index))]
        if not moves:
            break
        state = min(moves, key=lambda move: move.excess)
    return state
