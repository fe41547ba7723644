"""Which arrays the native engine holds while it runs a circuit: its own steps, on sizes alone.

Every step takes and gives back what the engine's does, in the same order, so that the account ends
where the engine's pool does: memory is kept and lent again, and the most that was ever held is what
a process needs. `tests/model_compiler/test_memory.py` compares the two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tacit.bootstrap import Bootstrap
from tacit.bootstrap_steps import bootstrap_by_steps
from tacit.circuit import Chebyshev, Circuit, LinearPlan, Plain, ValueType, WeightedSumPlan, execute
from tacit.decompose import chebyshev_by_powers
from tacit.model_compiler.op_work import Ring
from tacit.params import CryptoParams
from tacit.type_rules import (
    combination_type,
    dropped_type,
    product_type,
    rescaled_type,
    sum_type,
)

Floats = NDArray[np.float64]

# What the engine keeps of memory that nobody uses, by default.
POOL_LIMIT_BYTES = 1 << 29


@dataclass(slots=True)
class Pool:
    """Lends rows of N residues as the engine's pool does; counts instead of allocating.

    Attributes:
        limit_rows: how many unused rows to keep.
        peak_rows: the most that were held at once, lent or kept.
    """

    limit_rows: float = float("inf")
    peak_rows: int = 0
    _held: int = 0
    _kept: int = 0
    _free: Counter[int] = field(default_factory=Counter)

    def lend(self, *shape: int) -> Lease:
        """Take an array."""
        rows = int(np.prod(shape))
        fitting = [size for size, count in self._free.items() if count and rows <= size <= 2 * rows]
        if fitting:
            rows = min(fitting)
            self._free[rows] -= 1
            self._kept -= rows
        else:
            self._held += rows
            self.peak_rows = max(self.peak_rows, self._held)
        return Lease(self, rows)

    def take_back(self, rows: int) -> None:
        """Keep an array for the next of half its size or more, within the limit."""
        if self._kept + rows <= self.limit_rows:
            self._free[rows] += 1
            self._kept += rows
        else:
            self._held -= rows


class Lease:
    """An array in use; its rows go back when nobody holds it, as an array's memory does."""

    __slots__ = ("_pool", "_rows")

    def __init__(self, pool: Pool, rows: int) -> None:
        self._pool = pool
        self._rows = rows

    def __del__(self) -> None:
        self._pool.take_back(self._rows)


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A ciphertext: its type and its array, None if that is not the pool's."""

    type: ValueType
    array: Lease | None


def pool_bytes(circuit: Circuit, params: CryptoParams, threads: int = 1) -> int:
    """Return the most bytes that the engine's pool holds for one evaluation at a time.

    Args:
        circuit: what is evaluated.
        params: of the circuit.
        threads: that share its operations.
    """
    shadow = _Shadow(params, Pool(POOL_LIMIT_BYTES / (8 * params.n)), threads)
    inputs = [Held(circuit.types[value], None) for value in circuit.inputs]
    for _ in range(2):  # the second may find memory of other sizes than the first did
        outputs = execute(circuit, inputs, shadow)
        del outputs
    return 8 * params.n * shadow.pool.peak_rows


class _Kernels:
    """The arrays that `tacit.kernels.cpu_kernels` takes, for one ciphertext at a time."""

    def __init__(self, params: CryptoParams, pool: Pool, threads: int) -> None:
        self.lend = pool.lend
        self._threads = threads
        self.rings = [Ring.at_level(params, level) for level in range(params.depth + 1)]

    def rescale(self, limbs: int) -> Lease:
        out, scratch = self.lend(2, limbs - 1), self.lend(2)
        del scratch
        return out

    def mod_up(self, ring: Ring) -> Lease:
        digits = self.lend(ring.digits, ring.rows)
        self.lend(ring.limbs)
        return digits

    def switched(
        self, ring: Ring, *, digits: bool = False, turned: bool = False, into: Lease | None = None
    ) -> Lease:
        """Take what a product with keys takes; `digits`: they are there already."""
        out = self.lend(2, ring.rows) if into is None else into
        if not digits:
            self.lend(ring.limbs + self._threads * (ring.digits + 2))
        elif turned:
            self.lend(2 * self._threads)
        return out

    def mod_down(self, ring: Ring, components: int = 2) -> Lease:
        return self.lend(components, ring.limbs)


class _Shadow:
    """An Evaluator that takes the arrays that `NativeEvaluator` takes."""

    def __init__(self, params: CryptoParams, pool: Pool, threads: int) -> None:
        self.pool = pool
        self._params = params
        self._slots = params.slots
        self._kernels = _Kernels(params, pool, threads)

    def add(self, a: Held, b: Held) -> Held:
        return Held(sum_type(a.type, b.type), self._like(a))

    def subtract(self, a: Held, b: Held) -> Held:
        return self.add(a, b)

    def negate(self, a: Held) -> Held:
        return Held(a.type, self._like(a))

    def add_plain(self, a: Held, plain: Plain) -> Held:
        return Held(a.type, self._like(a) if plain.is_scalar else self._plus_plain(a))

    def multiply_plain(self, a: Held, plain: Plain) -> Held:
        return Held(product_type(a.type), self._like(a))

    def multiply(self, a: Held, b: Held) -> Held:
        to = product_type(a.type, b.type)
        ring = self._kernels.rings[to.level]
        product = self.pool.lend(3, ring.limbs)
        switched = self._kernels.switched(ring)
        made = self._kernels.mod_down(ring)
        del product, switched
        return Held(to, made)

    def sum_of_products(
        self,
        level: int,
        pairs: Sequence[tuple[Held, Held, int]],
        scaled: Sequence[tuple[Held, float | complex]],
        addend: Held | None,
    ) -> Held:
        ring, lend = self._kernels.rings[level], self.pool.lend
        total = None if addend is None else addend.array
        if scaled:
            made = lend(2, ring.limbs)
            total = made if addend is None else lend(2, ring.limbs)
        if not pairs:
            return Held(ValueType(level, 2), total)
        held = [lend(3, ring.limbs), self._kernels.switched(ring)]
        if scaled or addend is not None:
            held += [lend(ring.limbs), lend(ring.limbs)]
        down = self._kernels.mod_down(ring)
        held.clear()
        return Held(ValueType(level, 2), down)

    def rotate(self, a: Held, steps: int) -> Held:
        return self.rotate_many(a, (steps,))[0]

    def rotate_many(self, a: Held, steps: Sequence[int]) -> list[Held]:
        ring, kernels = self._kernels.rings[a.type.level], self._kernels
        moving = dict.fromkeys(step % self._slots for step in steps if step % self._slots)
        digits = kernels.mod_up(ring) if len(moving) > 1 else None
        scaled = self.pool.lend(ring.limbs) if moving else None
        products: list[Lease] = []
        rotated = {0: a}
        for step in moving:
            product = kernels.switched(ring, digits=digits is not None, turned=True)
            products = [product]  # the one before is given back only now
            rotated[step] = Held(a.type, kernels.mod_down(ring))
        del digits, products, scaled
        return [rotated[step % self._slots] for step in steps]

    def rescale(self, a: Held) -> Held:
        return Held(rescaled_type(a.type), self._kernels.rescale(a.type.level + 1))

    def drop(self, a: Held, level: int) -> Held:
        cut = self.pool.lend(2, level + 2)
        made = self._kernels.rescale(level + 2)
        del cut
        return Held(dropped_type(a.type, level), made)

    def linear(
        self, inputs: Sequence[Held], plan: LinearPlan, constants: Mapping[str, Floats]
    ) -> list[Held]:
        to = combination_type([a.type for a in inputs])
        ring = self._kernels.rings[inputs[0].type.level]
        sums = self._diagonals(ring, plan)  # kept to the end, as the engine does
        outputs = [Held(to, self._kernels.rescale(ring.limbs)) for _ in sums]
        for steps in plan.fold_sums():
            outputs = [self._folded(output, steps) for output in outputs]
        if not plan.bias:
            return outputs
        return [Held(to, self._plus_plain(output)) for output in outputs]

    def weighted_sum(
        self, inputs: Sequence[Held], plan: WeightedSumPlan, constants: Mapping[str, Floats]
    ) -> list[Held]:
        to, limbs = combination_type([a.type for a in inputs]), inputs[0].type.level + 1
        sums = [self.pool.lend(2, limbs) for _ in range(plan.outputs)]
        outputs = [Held(to, self._kernels.rescale(limbs)) for _ in sums]
        if not plan.bias:
            return outputs
        return [Held(to, self._like(output)) for output in outputs]

    def chebyshev(self, a: Held, polynomial: Chebyshev, constants: Mapping[str, Floats]) -> Held:
        name = polynomial.coefficients
        return chebyshev_by_powers(self, a, constants[name], key=name, fused=self.sum_of_products)

    def bootstrap(self, a: Held, plan: Bootstrap, constants: Mapping[str, Floats]) -> Held:
        return bootstrap_by_steps(
            self,
            a,
            plan,
            constants[plan.series],
            self._params,
            lambda _, level: Held(ValueType(level), None),
            self.sum_of_products,
        )

    def type_of(self, a: Held) -> ValueType:
        return a.type

    def _like(self, a: Held) -> Lease:
        return self.pool.lend(2, a.type.level + 1)

    def _plus_plain(self, a: Held) -> Lease:
        made, whole = self._like(a), self.pool.lend(a.type.level + 1)
        del whole  # the plaintext of which half is kept, completed
        return made

    def _folded(self, a: Held, steps: Sequence[int]) -> Held:
        if len(steps) == 1:
            return self.add(a, self.rotate(a, steps[0]))
        ring, lend = self._kernels.rings[a.type.level], self.pool.lend
        held = [lend(2, ring.rows), lend(ring.limbs), self._kernels.mod_up(ring)]
        self._kernels.switched(ring, digits=True, turned=True, into=held[0])
        made = self._kernels.mod_down(ring)
        held.clear()
        return Held(a.type, made)

    def _diagonals(self, ring: Ring, plan: LinearPlan) -> list[Lease]:
        extended = plan.over_qp(self._params.n, ring.limbs, ring.specials)
        rotated = self._rotated(ring, plan, extended)
        made = [self._output(ring, plan, output, extended) for output in range(plan.outputs)]
        rotated.clear()
        return made

    def _rotated(self, ring: Ring, plan: LinearPlan, extended: bool) -> list[Lease]:
        lend, kept, kernels = self.pool.lend, [], self._kernels
        for index in range(1 + max(term.input for term in plan.terms)):
            steps = {step % self._slots for step in plan.baby_steps(index)}
            unmoved, digits, product = lend(2, ring.rows) if extended else None, None, None
            kept += [unmoved] if 0 in steps and unmoved is not None else []
            if len(steps - {0}) > 1:
                digits = kernels.mod_up(ring)
            scaled = None if extended or not steps - {0} else lend(ring.limbs)
            for _ in steps - {0}:
                product = kernels.switched(ring, digits=digits is not None, turned=True)
                kept.append(product if extended else kernels.mod_down(ring))
            del unmoved, digits, product, scaled
        return kept

    def _output(self, ring: Ring, plan: LinearPlan, output: int, extended: bool) -> Lease:
        lend = self.pool.lend
        giants = sorted({t.giant % self._slots for t in plan.terms if t.output == output})
        sums = [lend(2, ring.rows if extended else ring.limbs) for _ in giants]
        if not extended and giants == [0]:
            return sums[0]
        total: Lease | None = None
        if plan.in_sequence:
            total = self._in_sequence(ring, plan, output, extended, sums)
        for giant in () if plan.in_sequence else giants:
            if giant:
                total = self._giant(ring, extended, total)
            else:
                total = sums[0] if extended else lend(2, ring.rows)
        made = self._kernels.mod_down(ring)
        sums.clear()
        del total
        return made

    def _in_sequence(
        self, ring: Ring, plan: LinearPlan, output: int, extended: bool, sums: list[Lease]
    ) -> Lease:
        _, *moves = plan.giant_moves(output)
        part: Lease | None = None if not extended else sums[-1]
        for _ in moves:
            into = sums[0] if extended else self.pool.lend(2, ring.rows)
            part = self._giant(ring, extended or part is not None, into)
        if plan.giant_moves(output)[-1][0] % self._slots:
            return self._giant(ring, extended or part is not None, None)
        return part or self.pool.lend(2, ring.rows)

    def _giant(self, ring: Ring, extended: bool, total: Lease | None) -> Lease:
        second = self._kernels.mod_down(ring, 1) if extended else self.pool.lend(ring.limbs)
        made = self._kernels.switched(ring, turned=True, into=total)
        del second
        return made
