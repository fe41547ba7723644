"""Which order each tensor gets: the cheapest diagonals over the whole network.

Elementwise operations need their tensors in one order; those tensors form a class. A beam search
walks through the classes in the order of the network and prices each linear map as soon as the
classes of its tensors are known. Maps are priced on a sample of their rows: the diagonals of a
convolution are the same everywhere, those of a bad order show up at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tacit.model_compiler.bsgs import RotationCosts, choose_split
from tacit.model_compiler.graph import Affine, Graph
from tacit.model_compiler.lowering.arrangement import Arrangement, power_of_two_above
from tacit.model_compiler.lowering.hybrid import centred_places, places_of
from tacit.model_compiler.lowering.matrices import Coordinates, coordinates, scalars_of
from tacit.model_compiler.lowering.order import Order, candidates, flat, frames, pixels

BEAM = 12
_SAMPLED_ENTRIES = 1 << 16
_ROUGHLY_SAMPLED = 1 << 14
_LEAST_ROWS = 64
_FOLD = 1.0
# Orders of an input that are priced for each order of the output, where a map stands alone.
_LIKELY_SOURCES = 3

# Rotations of a hoisted set cost about a third of others, at any level.
TYPICAL_COSTS = RotationCosts(hoist=0.5, baby=0.35, giant=1.0, product=0.05)

Prices = dict[tuple[object, ...], float]


@dataclass(frozen=True, slots=True, eq=False)
class SampledMap:
    """Some rows of a linear map, for pricing.

    Attributes:
        node: the map.
        entries: per input, the entries of the rows that were drawn.
        digest: equal for maps with entries in the same places.
    """

    node: Affine
    entries: tuple[Coordinates, ...]
    digest: bytes


def choose_orders(
    graph: Graph,
    cells: int,
    costs: RotationCosts = TYPICAL_COSTS,
    prices: Prices | None = None,
) -> dict[str, Order]:
    """Return an order for every tensor of a scaled graph.

    Args:
        graph: the graph.
        cells: cells of a ciphertext.
        costs: prices of rotations.
        prices: remembers what was priced before, between calls with equal costs.
    """
    classes = tensor_classes(graph)
    shapes = graph.image_shapes()
    planes = frames(shapes[name] for name in classes)
    names = list(dict.fromkeys(classes.values()))
    image = {name: _best_shape(shapes, classes, name) for name in names}
    options = {name: candidates(image[name], planes, cells) for name in names}
    if all(len(choice) == 1 for choice in options.values()):
        return {tensor: options[name][0] for tensor, name in classes.items()}
    search = _Search(graph, classes, cells, costs, {} if prices is None else prices)
    chosen = search.run(names, options)
    return {tensor: chosen[name] for tensor, name in classes.items()}


def tensor_classes(graph: Graph) -> dict[str, str]:
    """Map every tensor to the first one that must have the same order."""
    parent = {name: name for name in graph.inputs}

    def find(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for node in graph.nodes:
        parent[node.output] = node.output
        if isinstance(node, Affine) and scalars_of(node) is None:
            continue
        roots = [find(name) for name in (*node.inputs, node.output)]
        for root in roots[1:]:
            parent[root] = roots[0]
    return {name: find(name) for name in parent}


def sampled(node: Affine, most: int = _SAMPLED_ENTRIES) -> SampledMap:
    """Draw rows of a map, all of them if it has no more than about `most` entries."""
    entries, digest = [], hashlib.sha256()
    for matrix in node.matrices:
        rows, total = matrix.shape[0], max(matrix.nnz, 1)
        count = min(rows, max(_LEAST_ROWS, rows * most // total))
        picked = np.arange(rows)
        if count < rows:
            picked = np.sort(np.random.default_rng(0).choice(rows, count, replace=False))
        part = coordinates(matrix[picked])
        entries.append(Coordinates(picked[part.row], part.column, part.value))
        for array in (np.array(matrix.shape), entries[-1].row, entries[-1].column):
            digest.update(np.ascontiguousarray(array, dtype=np.int64).tobytes())
    return SampledMap(node, tuple(entries), digest.digest())


def map_cost(
    entries: Sequence[Coordinates],
    sources: Sequence[Arrangement],
    target: Arrangement,
    costs: RotationCosts,
) -> float:
    """Price a linear map between two arrangements."""
    parts, centred, first = [], [], 0
    for matrix, source in zip(entries, sources, strict=True):
        parts.append(places_of(matrix, source, target, first_input=first))
        centred.append(centred_places(parts[-1], source, target))
        first += source.ciphertexts
    widths = likely_widths(sources, target)
    named = [np.concatenate(places) for places in (parts, centred)]
    ways = named[: 1 if np.array_equal(named[0], named[1]) else 2]
    best = min(
        choose_split(places, target.cells, costs, widths=widths, few=True).cost for places in ways
    )
    span = max(max(source.span for source in sources), target.period)
    return best + _FOLD * (span // target.period - 1).bit_length() * costs.giant


class ImageCosts:
    """Prices linear maps by themselves, each in the orders that suit it best.

    Args:
        shapes: of all tensors.
        cells: of a ciphertext; by default enough for the largest tensor with room in its planes.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], cells: int = 0) -> None:
        largest = max(flat(shape).extent for shape in shapes.values())
        self._shapes = shapes
        self._cells = cells or 2 * power_of_two_above(largest)
        self._planes = frames(shapes.values())
        self._known: dict[tuple[object, ...], float] = {}

    def __call__(self, node: Affine) -> float:
        """Return the cost in rotations."""
        names = (*node.inputs, node.output)
        drawn = sampled(node, _ROUGHLY_SAMPLED)
        key = (drawn.digest, *(self._shapes[name] for name in names))
        if key not in self._known:
            self._known[key] = self._least(drawn)
        return self._known[key]

    def _least(self, drawn: SampledMap) -> float:
        totals = []
        for target in self._orders(drawn.node.output):
            parts = [
                min(
                    map_cost([entries], [source], target, TYPICAL_COSTS)
                    for source in self._likely_sources(name, entries, target)
                )
                for name, entries in zip(drawn.node.inputs, drawn.entries, strict=True)
            ]
            totals.append(sum(parts))
        return min(totals)

    def _likely_sources(
        self, name: str, entries: Coordinates, target: Arrangement
    ) -> list[Arrangement]:
        """Return the arrangements of an input that give the fewest diagonals."""
        fitting = [source for source in self._orders(name) if _of_one_frame(source, target)]
        if len(fitting) <= _LIKELY_SOURCES:
            return fitting
        return sorted(fitting, key=lambda source: len(places_of(entries, source, target)))[
            :_LIKELY_SOURCES
        ]

    def _orders(self, name: str) -> list[Arrangement]:
        orders = candidates(self._shapes[name], self._planes, self._cells)
        return [Arrangement(_size(order), self._cells, order=order) for order in orders]


def _of_one_frame(source: Arrangement, target: Arrangement) -> bool:
    """Tell whether two images have rows and planes of equal length, or one lies in C order."""
    if source.order is None or target.order is None:
        return True
    frames_of = [(o.row, o.plane) for o in (source.order, target.order) if not o.is_flat]
    return len(set(frames_of)) <= 1


def likely_widths(sources: Sequence[Arrangement], target: Arrangement) -> tuple[int, ...]:
    """Return steps between rows and planes of the tensors of a map."""
    orders = [a.order for a in (*sources, target) if a.order is not None]
    return tuple(sorted({step for order in orders for step in order.strides if step > 1}))


def _size(order: Order) -> int:
    return order.channels * order.height * order.width


def _best_shape(
    shapes: Mapping[str, tuple[int, ...]], classes: Mapping[str, str], name: str
) -> tuple[int, ...]:
    """Return the shape of a class that is most of an image."""
    return max((shapes[t] for t, root in classes.items() if root == name), key=pixels)


@dataclass(slots=True)
class _Search:
    graph: Graph
    classes: Mapping[str, str]
    cells: int
    costs: RotationCosts
    prices: Prices

    def run(self, names: Sequence[str], options: Mapping[str, Sequence[Order]]) -> dict[str, Order]:
        maps = [n for n in self.graph.nodes if isinstance(n, Affine) and scalars_of(n) is None]
        ready: dict[str, list[SampledMap]] = {name: [] for name in names}
        rank = {name: i for i, name in enumerate(names)}
        for node in maps:
            touched = {self.classes[tensor] for tensor in (*node.inputs, node.output)}
            ready[max(touched, key=lambda name: rank[name])].append(sampled(node))
        beam: list[tuple[float, dict[str, Order]]] = [(0.0, {})]
        for name in names:
            grown = []
            for cost, chosen in beam:
                for order in options[name]:
                    state = {**chosen, name: order}
                    more = sum(self._price(drawn, state) for drawn in ready[name])
                    grown.append((cost + more, state))
            beam = sorted(grown, key=lambda state: state[0])[:BEAM]
        return beam[0][1]

    def _price(self, drawn: SampledMap, chosen: Mapping[str, Order]) -> float:
        orders = [chosen[self.classes[t]] for t in (*drawn.node.inputs, drawn.node.output)]
        key = (drawn.digest, self.cells, *orders)
        if key not in self.prices:
            self.prices[key] = self._priced(drawn, orders)
        return self.prices[key]

    def _priced(self, drawn: SampledMap, orders: Sequence[Order]) -> float:
        def arranged(order: Order) -> Arrangement:
            return Arrangement(_size(order), self.cells, order=order)

        *sources, target = (arranged(order) for order in orders)
        return map_cost(drawn.entries, sources, target, self.costs)
