"""The latency plan: a whole tensor in as few ciphertexts as possible, linear maps by diagonals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tacit.bootstrap import Bootstrap
from tacit.circuit import LinearPlan, LinearTerm
from tacit.errors import CircuitError
from tacit.model_compiler.bsgs import (
    Diagonals,
    Entries,
    RotationCosts,
    Split,
    choose_joint_folds,
    choose_split,
    plan_terms,
    rotations_in_cells,
    to_diagonals,
)
from tacit.model_compiler.builder import CircuitBuilder, without_negligible
from tacit.model_compiler.graph import Affine, Fourier, Graph, Polynomial, Product
from tacit.model_compiler.lowering.arrangement import Arrangement, power_of_two_above
from tacit.model_compiler.lowering.choose_orders import (
    Prices,
    choose_orders,
    likely_widths,
)
from tacit.model_compiler.lowering.depths import (
    latency_cost,
    output_level,
    refuse_activations,
    required_levels,
)
from tacit.model_compiler.lowering.elementwise import (
    Values,
    lower_fourier,
    lower_polynomial,
    lower_product,
    lower_scalars,
)
from tacit.model_compiler.lowering.hybrid import centred_places, entries_of, places_of
from tacit.model_compiler.lowering.lowered import Lowered
from tacit.model_compiler.lowering.matrices import coordinates, scalars_of
from tacit.model_compiler.lowering.order import Order
from tacit.model_compiler.noise_course import samples_of

Floats = NDArray[np.float64]
PricesAt = Callable[[int], RotationCosts]


@dataclass(frozen=True, slots=True)
class Stages:
    """In how many stages bootstraps of a circuit turn slots to coefficients and back.

    Attributes:
        to_coefficients: first stages, one level each.
        to_slots: stages after the modulus is raised, one level each.
        spare: levels that the input of a bootstrap must have beyond its first stages.
    """

    to_coefficients: int = 2
    to_slots: int = 2
    spare: int = 0

    @property
    def entry(self) -> int:
        """Level that the input of a bootstrap needs."""
        return self.to_coefficients + self.spare


@dataclass(slots=True, eq=False)
class LinearMaps:
    """What lowerings of one graph share: orders chosen, maps priced, diagonals written down.

    It holds for one graph; a lowering for other parameters finds most of its work done.
    """

    orders: dict[int, Mapping[str, Order]] = field(default_factory=dict)
    prices: Prices = field(default_factory=dict)
    places: dict[tuple[object, ...], list[NDArray[np.int64]]] = field(default_factory=dict)
    diagonals: dict[tuple[object, ...], Diagonals] = field(default_factory=dict)


def smallest_cells(graph: Graph) -> int:
    """Return the cells the largest tensor needs."""
    return max(power_of_two_above(graph.size(name)) for name in _tensors(graph))


def lower_latency(
    graph: Graph,
    slots: int,
    cells: int,
    prices: PricesAt = lambda _level: RotationCosts(),
    maps: LinearMaps | None = None,
    stages: Stages = Stages(),
) -> Lowered:
    """Lower a scaled graph to a circuit that works on `slots / cells` rows at once.

    Args:
        graph: Affine, Polynomial (center 0, half width 1), Product and Fourier (half width 1/2)
            nodes.
        slots: slots of a ciphertext.
        cells: cells of a ciphertext, a power of two; larger tensors take several ciphertexts.
        prices: for the split into baby and giant steps, by level.
        maps: of this graph, to share work with other lowerings of it.
        stages: of bootstraps; all of a circuit are alike, to share keys.

    Raises:
        CircuitError: the graph holds another kind of node.
    """
    return _Latency(graph, slots, cells, prices, maps or LinearMaps(), stages).run()


def _tensors(graph: Graph) -> tuple[str, ...]:
    return (*graph.inputs, *(node.output for node in graph.nodes))


class _Latency:
    def __init__(
        self,
        graph: Graph,
        slots: int,
        cells: int,
        prices: PricesAt,
        maps: LinearMaps,
        stages: Stages,
    ) -> None:
        refuse_activations(graph)
        self._graph = graph
        self._batch = slots // cells
        self._cells = cells
        self._prices = prices
        self._maps = maps
        self._stages = stages
        self._levels = required_levels(graph, latency_cost, stages.entry)
        self._log_slots = slots.bit_length() - 1
        self._builder = CircuitBuilder(slots)
        if cells not in maps.orders:
            maps.orders[cells] = choose_orders(graph, cells, prices=maps.prices)
        self._orders = maps.orders[cells]
        self._arrangements = {n: self._arrangement(n) for n in _tensors(graph)}
        self._values: dict[str, Values] = {}
        self._known: frozenset[int] = frozenset()

    def run(self) -> Lowered:
        graph = self._graph
        for name in graph.inputs:
            count = self._arrangements[name].ciphertexts
            self._values[name] = tuple(
                self._builder.input(self._levels[name]) for _ in range(count)
            )
        for node in graph.nodes:
            self._values[node.output] = self._lower(node)
        outputs = [
            self._builder.drop(value, output_level(graph), "output")
            for name in graph.outputs
            for value in self._values[name]
        ]
        return Lowered(
            self._builder.build(outputs),
            self._batch,
            {n: self._arrangements[n].layout(self._batch) for n in graph.inputs},
            {n: self._arrangements[n].layout(self._batch, copies=1) for n in graph.outputs},
            {n: self._levels[n] for n in graph.inputs},
            samples_of(graph.nodes),
            output_level(graph),
        )

    def _arrangement(self, name: str) -> Arrangement:
        plain = self._plain(name)
        if name not in self._graph.inputs or name in self._graph.outputs:
            return plain
        readers = [node for node in self._graph.nodes if name in node.inputs]
        maps = [n for n in readers if isinstance(n, Affine) and scalars_of(n) is None]
        room = self._cells // plain.period
        period = max((self._period(n.output) for n in maps), default=plain.period)
        if len(maps) != len(readers) or room == 1 or period > plain.period:
            return plain
        copies = min(room, period)
        return replace(plain, copies=copies, turn=period // copies)

    def _plain(self, name: str) -> Arrangement:
        return Arrangement(self._graph.size(name), self._cells, order=self._orders[name])

    def _period(self, name: str) -> int:
        return self._plain(name).period

    def _lower(self, node: object) -> Values:
        match node:
            case Affine():
                factors = scalars_of(node)
                operands = [self._operands(name, node) for name in node.inputs]
                if factors is None:
                    return self._linear(node, operands)
                bias = self._spread(node.bias, self._arrangements[node.output])
                return lower_scalars(self._builder, operands, factors, bias, node.origin)
            case Polynomial():
                return lower_polynomial(self._builder, self._operands(node.input, node), node)
            case Product():
                left, right = self._operands(node.left, node), self._operands(node.right, node)
                return lower_product(self._builder, left, right, node.origin)
            case Fourier():
                return lower_fourier(
                    self._builder, self._values[node.input], node, self._bootstrap(node)
                )
        raise CircuitError(f"cannot lower a {type(node).__name__}: approximate and scale it first")

    def _bootstrap(self, node: Fourier) -> Bootstrap:
        """Raise a tensor no higher than its readers need."""
        level, stages = self._levels[node.output], self._stages
        first, last = stages.to_coefficients, stages.to_slots
        return Bootstrap("series", level, self._log_slots, first, last, node.period)

    def _operands(self, name: str, node: Affine | Polynomial | Product) -> Values:
        """Return a tensor's ciphertexts at the level the node should start from."""
        level = self._levels[node.output] + latency_cost(node)
        return tuple(self._builder.drop(v, level, node.origin) for v in self._values[name])

    def _spread(self, values: Floats, target: Arrangement) -> Floats:
        """Place a vector in every copy of a tensor; shape (ciphertexts, cells)."""
        contents = target.contents()
        return np.where(contents >= 0, values[np.maximum(contents, 0)], 0.0)

    def _linear(self, node: Affine, operands: list[Values]) -> Values:
        target = self._arrangements[node.output]
        sources = [self._arrangements[name] for name in node.inputs]
        costs, hints = self._prices(self._levels[node.output] + 1), likely_widths(sources, target)
        splits = [
            choose_split(places, self._cells, costs, self._known, hints)
            for places in self._places(node, sources, target)
        ]
        centred, priced = min(enumerate(splits), key=lambda pair: pair[1].cost)
        diagonals = self._diagonals(node, sources, target, bool(centred))
        width = _width(sources, target)
        plan = self._plan(diagonals, priced.split, _halvings(width, target.period), node)
        flat = [value for values in operands for value in values]
        return self._builder.linear(flat, plan, node.origin)

    def _places(
        self, node: Affine, sources: list[Arrangement], target: Arrangement
    ) -> list[NDArray[np.int64]]:
        """Return the diagonals a map needs, named from zero and named around zero."""
        key = (id(node), target, *sources)
        if key not in self._maps.places:
            parts, centred, first = [], [], 0
            for matrix, source in zip(node.matrices, sources, strict=True):
                part = places_of(coordinates(matrix), source, target, first_input=first)
                parts.append(part)
                centred.append(centred_places(part, source, target))
                first += source.ciphertexts
            missing = _missing(np.concatenate(parts), target.ciphertexts)
            found = [np.concatenate([*places, missing]) for places in (parts, centred)]
            self._maps.places[key] = found
        return self._maps.places[key]

    def _diagonals(
        self, node: Affine, sources: list[Arrangement], target: Arrangement, centred: bool
    ) -> Diagonals:
        key = (id(node), centred, target, *sources)
        if key not in self._maps.diagonals:
            parts, first = [], 0
            for matrix, source in zip(node.matrices, sources, strict=True):
                part = coordinates(matrix)
                parts.append(entries_of(part, source, target, first_input=first, centred=centred))
                first += source.ciphertexts
            entries, width = Entries.joined(parts), _width(sources, target)
            made = to_diagonals(entries, target.ciphertexts, width, self._cells)
            self._maps.diagonals[key] = made
        return self._maps.diagonals[key]

    def _plan(
        self, diagonals: Diagonals, split: Split, folds: list[int], node: Affine
    ) -> LinearPlan:
        terms, rows = plan_terms(diagonals, split, self._batch)
        target = self._arrangements[node.output]
        bias = ""
        spread = without_negligible(self._spread(node.bias, target))
        if np.any(spread):
            bias = self._builder.constant(spread, f"{node.origin}/bias")
        steps = {step for term in terms for step in _cells(term, self._batch)}
        known = self._known | (frozenset() if split.in_sequence else steps)
        prices = self._prices(self._levels[node.output])
        plan = LinearPlan(
            outputs=target.ciphertexts,
            terms=tuple(terms),
            diagonals=self._builder.constant(rows, f"{node.origin}/diagonals"),
            bias=bias,
            folds=tuple(step * self._batch for step in folds),
            joint_folds=choose_joint_folds(folds, prices, known),
            in_sequence=split.in_sequence,
        )
        self._known |= {step % self._cells for step in rotations_in_cells(plan, self._batch)}
        return plan


def _cells(term: LinearTerm, batch: int) -> tuple[int, int]:
    """Return a term's steps counted in cells."""
    return term.baby // batch, term.giant // batch


def _width(sources: list[Arrangement], target: Arrangement) -> int:
    """Return the cells after which the diagonals of a map repeat."""
    return max(max(source.span for source in sources), target.period)


def _missing(places: NDArray[np.int64], outputs: int) -> NDArray[np.int64]:
    """Return one diagonal for each output that no entry reaches."""
    empty = np.setdiff1d(np.arange(outputs, dtype=np.int64), places[:, 0])
    return np.stack([empty, np.zeros_like(empty), np.zeros_like(empty)], axis=1)


def _halvings(width: int, period: int) -> list[int]:
    """Return width / 2, width / 4, ... period."""
    steps = []
    while width > period:
        width //= 2
        steps.append(width)
    return steps
