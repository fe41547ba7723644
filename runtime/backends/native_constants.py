"""Which constants a circuit encodes, how often it takes each, and all of them made ahead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tacit.bootstrap import Bootstrap
from tacit.circuit import (
    Circuit,
    Constant,
    LinearPlan,
    Node,
    Plain,
    ValueType,
    WeightedSumPlan,
)
from tacit.packed_rows import memory_of_row
from tacit.runtime.backends.bootstrapping import every_stage
from tacit.runtime.backends.native_engine import NativeEngine

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Need:
    """One encoded constant.

    Attributes:
        key: tells it apart.
        worth: what a byte of it saves, see `NativeEngine.worth`.
        size_bytes: what it takes.
        make: encodes it into the engine's cache.
    """

    key: tuple[object, ...]
    worth: float
    size_bytes: int
    make: Callable[[], object]


def prepare(engine: NativeEngine, circuit: Circuit) -> None:
    """Encode a circuit's constants, those that save most first, within the cache's limit.

    Raises:
        LevelError: the parameters have too few levels for a bootstrap.
    """
    for node in circuit.nodes:
        if isinstance(node.attribute, WeightedSumPlan):
            name, at = node.attribute.weights, circuit.types[node.inputs[0]]
            engine.weight_blocks(name, circuit.constants[name], at.level)
    maps = [found for node in circuit.nodes for found in _maps(engine, circuit, node)]
    uses = Counter(id(found.rows) for found in maps)
    for found in maps:
        engine.register(found.rows, uses[id(found.rows)])
    needs = {need.key: need for found in maps for need in found.needs(engine)}
    needs.update({need.key: need for need in _plains(engine, circuit)})
    left, chosen = engine.plaintexts.limit_bytes, []
    for need in sorted(needs.values(), key=lambda need: -need.worth):
        if need.size_bytes <= left:
            left -= need.size_bytes
            chosen.append(need)
    engine.each(lambda need: need.make(), chosen, len(chosen))


@dataclass(frozen=True, slots=True, eq=False)
class _Map:
    """A linear transform of inputs at a level, of the circuit's own or of a bootstrap's."""

    plan: LinearPlan
    rows: Floats
    level: int

    def needs(self, engine: NativeEngine) -> Iterator[Need]:
        """Yield its diagonals."""
        extended = engine.over_qp(self.plan, self.level)
        first = memory_of_row(self.rows, 0)
        size = engine.encoded_bytes(first, self.level, extended)
        worth = engine.worth(first, self.level, extended)
        constants = {self.plan.diagonals: self.rows}
        for row in sorted({term.row for term in self.plan.terms}):
            make = partial(
                engine.diagonal, self.plan, constants, row, self.level, extended=extended
            )
            yield Need((id(self.rows), row, self.level, extended), worth, size, make)


def _maps(engine: NativeEngine, circuit: Circuit, node: Node) -> Iterator[_Map]:
    match node.attribute:
        case LinearPlan() as plan:
            level = circuit.types[node.inputs[0]].level
            yield _Map(plan, circuit.constants[plan.diagonals], level)
        case Bootstrap() as plan:
            stages = every_stage(engine.params, plan, circuit.constants[plan.series])
            yield from (_Map(*stage) for stage in stages)


def _plains(engine: NativeEngine, circuit: Circuit) -> Iterator[Need]:
    """Yield constants that are added or multiplied, but for single numbers."""
    for node in circuit.nodes:
        at, to = circuit.types[node.inputs[0]], circuit.types[node.outputs[0]]
        match node.attribute:
            case Constant(name):
                yield from _plain(engine, Plain(name, circuit.constants[name]), at)
            case LinearPlan(bias=name) if name:
                for r, bias in enumerate(circuit.constants[name]):
                    yield from _plain(engine, Plain(f"{name}/{r}", bias), to)


def _plain(engine: NativeEngine, plain: Plain, at: ValueType) -> Iterator[Need]:
    if not plain.is_scalar:
        worth, size = (
            engine.worth(plain.values, at.level, False),
            engine.encoded_bytes(plain.values, at.level, False),
        )
        yield Need((plain.key, at), worth, size, partial(engine.plaintext, plain, at))
