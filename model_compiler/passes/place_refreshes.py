"""Where to bootstrap what no activation refreshes: the fewest ciphertexts, exactly.

Tensors are written in the order of the graph, each with the levels it has left. After each one
there is a choice: leave it as it is, or refresh it, to the level that bootstraps reach; refreshing
it later, or for some readers only, is never better. A state is the levels of the tensors still to
be read at this cut of the graph. The cheapest way to each state is kept, unless another one is no
dearer and has no tensor lower (shortest path over levels: Orion, ASPLOS 2025; cuts of general
graphs: DaCapo, USENIX Security 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tacit.errors import ParameterError
from tacit.model_compiler.graph import Activation, Affine, Graph, Node, Product
from tacit.model_compiler.lowering.depths import LevelCost, is_refreshing
from tacit.model_compiler.passes.compose import consumers_of

# States kept at a cut; beyond, the dearest are dropped and the result may not be the cheapest.
MOST_STATES = 2048


@dataclass(frozen=True, slots=True)
class Levels:
    """What bounds the levels of tensors.

    Attributes:
        inputs: level that the graph's inputs can have.
        top: level to which bootstraps go.
        entry: level that the input of a bootstrap needs.
        outputs: level that the graph's outputs need.
    """

    inputs: int
    top: int
    entry: int
    outputs: int


@dataclass(frozen=True, slots=True)
class _Way:
    """A way to a cut: its price, levels of the tensors alive there, and what was refreshed."""

    price: float
    levels: tuple[int, ...]
    refreshed: tuple[str, ...]


def place_refreshes(
    graph: Graph, levels: Levels, cost: LevelCost, price: Callable[[str], float]
) -> tuple[str, ...]:
    """Choose the tensors to refresh.

    Args:
        graph: any graph; activations that are not polynomials refresh by themselves.
        levels: see there.
        cost: levels that a node takes.
        price: of refreshing a tensor, by its name.

    Returns:
        Names of tensors, in the order they are written.

    Raises:
        ParameterError: no choice keeps all levels; one node takes too many.
    """
    last = _last_reads(graph)
    alive = tuple(graph.inputs)
    ways = [_Way(0.0, (levels.inputs,) * len(alive), ())]
    for index, node in enumerate(graph.nodes):
        staying = tuple(name for name in alive if last[name] > index)
        grown = [
            found
            for way in ways
            for found in _through(node, way, alive, staying, levels, cost, price)
            if _can_be_read(node.output, found.levels[-1], graph, levels)
        ]
        alive = (*staying, node.output)
        ways = _undominated(grown)
        if not ways:
            raise ParameterError(
                f"no bootstraps leave enough levels for {node.origin!r}, which takes {cost(node)} "
                f"of the {levels.top} that bootstraps reach: use smaller polynomials"
            )
    return min(ways, key=lambda way: way.price).refreshed


def with_refreshes(graph: Graph, refreshed: tuple[str, ...]) -> Graph:
    """Put an identity activation behind each tensor, which all its readers read instead."""
    names = {name: f"{name}/refreshed" for name in refreshed}
    nodes: list[Node] = []
    shapes = dict(graph.shapes)
    for node in graph.nodes:
        nodes.append(_reading(node, names))
        if node.output in names:
            new = names[node.output]
            shapes[new] = shapes[node.output]
            nodes.append(Activation(new, node.output, "identity", (), node.origin))
    return replace(graph, nodes=tuple(nodes), shapes=shapes)


def _through(
    node: Node,
    way: _Way,
    alive: tuple[str, ...],
    staying: tuple[str, ...],
    levels: Levels,
    cost: LevelCost,
    price: Callable[[str], float],
) -> list[_Way]:
    """Return the ways beyond a node: its output as it is, and refreshed."""
    held = dict(zip(alive, way.levels, strict=True))
    kept = tuple(held[name] for name in staying)
    lowest = min(held[name] for name in node.inputs)
    if is_refreshing(node):
        fits = lowest >= levels.entry
        return [replace(way, levels=(*kept, levels.top))] if fits else []
    level = lowest - cost(node)
    if level < 0:
        return []
    found = [replace(way, levels=(*kept, level))]
    if levels.entry <= level < levels.top:
        more = way.price + price(node.output)
        found.append(_Way(more, (*kept, levels.top), (*way.refreshed, node.output)))
    return found


def _can_be_read(name: str, level: int, graph: Graph, levels: Levels) -> bool:
    return level >= (levels.outputs if name in graph.outputs else 0)


def _undominated(ways: list[_Way]) -> list[_Way]:
    """Keep the ways than which no other is as cheap and nowhere lower, cheapest first."""
    ordered = sorted(ways, key=lambda way: (way.price, -sum(way.levels)))
    kept: list[_Way] = []
    for way in ordered:
        if len(kept) >= MOST_STATES:
            break
        if not any(_covers(other, way) for other in kept):
            kept.append(way)
    return kept


def _covers(one: _Way, other: _Way) -> bool:
    return all(a >= b for a, b in zip(one.levels, other.levels, strict=True))


def _last_reads(graph: Graph) -> Mapping[str, int]:
    """Return, by tensor, the index of the last node that reads it; outputs are never done."""
    readers = consumers_of(graph)
    names = (*graph.inputs, *(node.output for node in graph.nodes))
    last = {name: max(readers.get(name, []), default=-1) for name in names}
    return {**last, **dict.fromkeys(graph.outputs, len(graph.nodes))}


def _reading(node: Node, names: Mapping[str, str]) -> Node:
    """Let a node read other tensors."""

    def new(name: str) -> str:
        return names.get(name, name)

    match node:
        case Affine():
            return replace(node, inputs=tuple(new(name) for name in node.inputs))
        case Product():
            return replace(node, left=new(node.left), right=new(node.right))
        case _:
            return replace(node, input=new(node.input))
