"""The cost model: a circuit run on milliseconds, before any key exists.

Times are those of one thread of a backend once its constants are encoded. Memory counts residues at
8 bytes: evaluation keys, encoded constants, and ciphertexts alive at once; `memory` has the whole
account of the native engine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tacit.bootstrap import Bootstrap
from tacit.bootstrap_steps import bootstrap_by_steps
from tacit.chebyshev import SumOfProducts
from tacit.circuit import (
    Chebyshev,
    Circuit,
    LinearPlan,
    Node,
    Plain,
    ValueType,
    WeightedSumPlan,
    execute,
)
from tacit.decompose import chebyshev_by_powers
from tacit.evaluation_keys import keys_at, keys_bytes
from tacit.key_levels import circuit_key_levels
from tacit.model_compiler.bsgs import RotationCosts
from tacit.model_compiler.ciphertext_peak import CiphertextPeak
from tacit.model_compiler.coarse_costs import (
    Parts,
    linear_parts,
    rotation_parts,
    weighted_sum_parts,
)
from tacit.model_compiler.levels import LevelChecker
from tacit.model_compiler.op_times import Backend, MachineTimes
from tacit.model_compiler.op_work import Ring
from tacit.packed_rows import memory_of_row
from tacit.params import CryptoParams
from tacit.type_rules import combination_type

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one evaluation of a circuit takes.

    Attributes:
        seconds: on one thread of the machine.
        seconds_by_layer: by node label, in circuit order.
        operations: how often each fine operation runs ("rotate", "baby", "multiply", ...).
        rotation_keys: Galois keys.
        key_bytes: evaluation keys, the relinearisation key included, each trimmed to the levels
            of its use.
        plaintext_bytes: encoded constants, kept between evaluations.
        ciphertext_bytes: ciphertexts alive at once, at most.
        prepare_seconds: encoding the constants, once; 0 where the table has no price for it.
        bytes_by_layer: ciphertexts alive while a layer runs, at most, by node label.
    """

    seconds: float
    seconds_by_layer: Mapping[str, float]
    operations: Mapping[str, int]
    rotation_keys: int
    key_bytes: int
    plaintext_bytes: int
    ciphertext_bytes: int
    prepare_seconds: float = 0.0
    bytes_by_layer: Mapping[str, int] = field(default_factory=dict)

    @property
    def peak_bytes(self) -> int:
        """All memory together."""
        return self.key_bytes + self.plaintext_bytes + self.ciphertext_bytes


# Operations are priced one after another; a request that comes alone takes longer. The figures are
# fitted, not derived. OpenFHE: in bench/results/logreg.jsonl (commit aa269c9, N = 2^13) the medians
# are 7.5 and 6.9 ms, the operations alone were priced at 4.9 ms. Cold caches are likely, unproven.
COLD_START = "cold caches"
# Native: lower quartiles of the known models of question `predicted`, whose operations one by one
# were priced at 0.87 to 0.95 of them.
COLD_START_SECONDS = {Backend.OPENFHE: 0.002, Backend.NATIVE: 0.00015}
IN_CIRCUIT = {Backend.OPENFHE: 1.0, Backend.NATIVE: 1.1}


def predict(circuit: Circuit, params: CryptoParams, times: MachineTimes) -> Prediction:
    """Predict time and memory of one evaluation.

    Args:
        circuit: a circuit for `params.slots` slots.
        params: the parameters.
        times: prices of a machine, such as `op_times.reference_times()`.
    """
    model = CostModel(params, times)
    by_layer = {COLD_START: COLD_START_SECONDS[times.backend]}
    model.milliseconds += 1e3 * by_layer[COLD_START]
    peak = CiphertextPeak(circuit, params)
    held: dict[str, int] = {}

    def observe(index: int, node: Node, _results: Sequence[ValueType]) -> None:
        spent = model.milliseconds / 1e3 - sum(by_layer.values())
        by_layer[node.label] = by_layer.get(node.label, 0.0) + spent
        alive = peak.after(index)
        held[node.label] = max(held.get(node.label, 0), alive)

    execute(circuit, [circuit.types[v] for v in circuit.inputs], model, observe)
    keys = keys_at(circuit_key_levels(circuit, params), params)
    return Prediction(
        seconds=model.milliseconds / 1e3,
        seconds_by_layer=by_layer,
        operations=dict(model.operations),
        rotation_keys=len(circuit.rotations),
        key_bytes=keys_bytes(keys, params),
        plaintext_bytes=model.plaintext_bytes,
        ciphertext_bytes=peak.most,
        prepare_seconds=model.prepare_seconds,
        bytes_by_layer=held,
    )


def execute_types(circuit: Circuit, model: CostModel) -> None:
    """Run a circuit on types alone, to fill a model."""
    execute(circuit, [circuit.types[v] for v in circuit.inputs], model)


def rotation_costs(
    params: CryptoParams, times: MachineTimes, level: int, key: float = 0.0
) -> RotationCosts:
    """Return the prices, in milliseconds, for splitting a linear map at `level`.

    Args:
        params: the parameters.
        times: prices of a machine.
        level: level of the map's inputs.
        key: price of one rotation key, in milliseconds of evaluation time.
    """
    ring = Ring.at_level(params, level)

    def price(operation: str) -> float:
        return times.milliseconds(ring, operation)

    if times.backend is Backend.NATIVE:
        # Giant steps and joint folds are added up over QP; a sum is divided by P once.
        return RotationCosts(
            hoist=price("hoist") + price("times_p"),
            baby=price("baby"),
            giant=price("giant") + price("down"),
            key=key,
            extended=price("baby"),
            down=price("down"),
            product=price("diagonal"),
            sequence_shares=True,
        )
    hoist, extended, down, add = (price(n) for n in ("hoist", "extended", "down", "add"))
    return RotationCosts(
        hoist=hoist,
        baby=price("hoisted"),
        giant=hoist + extended + down + add,
        key=key,
        extended=extended + add,
        down=down,
        product=price("multiply_plain") + add,
    )


class Encoded(NamedTuple):
    """How a constant is encoded: also modulo the special primes; for real slots, or complex."""

    extended: bool
    real: bool


_Bootstrapped = tuple[ValueType, float, Counter[str]]
"""Result, milliseconds and operations of a bootstrap that was priced before."""


@dataclass(slots=True)
class CostModel:
    """An Evaluator on value types that adds up time and the constants to encode.

    Attributes:
        milliseconds: spent so far.
        operations: fine operations so far, by name.
        encoded: constants encoded so far.
    """

    params: CryptoParams
    times: MachineTimes
    milliseconds: float = 0.0
    operations: Counter[str] = field(default_factory=Counter)
    encoded: dict[tuple[str, ValueType], Encoded] = field(default_factory=dict)
    _checker: LevelChecker = field(default_factory=LevelChecker)
    _rings: dict[int, Ring] = field(default_factory=dict)
    _bootstraps: dict[tuple[ValueType, Bootstrap, int], _Bootstrapped] = field(default_factory=dict)

    def add(self, a: ValueType, b: ValueType) -> ValueType:
        """Price an addition."""
        self._spend("add", a.level)
        return self._checker.add(a, b)

    def subtract(self, a: ValueType, b: ValueType) -> ValueType:
        """Price it as an addition."""
        self._spend("add", a.level)
        return self._checker.subtract(a, b)

    def negate(self, a: ValueType) -> ValueType:
        """Price it as an addition."""
        self._spend("add", a.level)
        return a

    def add_plain(self, a: ValueType, plain: Plain) -> ValueType:
        """Price an addition to one component."""
        self._spend("add_scalar" if plain.is_scalar else "add_plain", a.level)
        self._encode(plain, a)
        return a

    def multiply_plain(self, a: ValueType, plain: Plain) -> ValueType:
        """Price a product with an encoded plaintext or with a number."""
        self._spend("multiply_scalar" if plain.is_scalar else "multiply_plain", a.level)
        self._encode(plain, a)
        return self._checker.multiply_plain(a, plain)

    def multiply(self, a: ValueType, b: ValueType) -> ValueType:
        """Price a product with relinearisation."""
        self._spend("multiply", a.level)
        return self._checker.multiply(a, b)

    def rotate(self, a: ValueType, steps: int) -> ValueType:
        """Price a rotation; none for 0 steps."""
        return self.rotate_many(a, (steps,))[0]

    def rotate_many(self, a: ValueType, steps: Sequence[int]) -> list[ValueType]:
        """Price hoisted rotations from two on."""
        self._spend_all(rotation_parts(steps, self.params.slots, a.level))
        return [a for _ in steps]

    def rescale(self, a: ValueType) -> ValueType:
        """Price a rescaling."""
        self._spend("rescale", a.level)
        return self._checker.rescale(a)

    def drop(self, a: ValueType, level: int) -> ValueType:
        """Price a product with a number and a rescaling, one level above the target."""
        result = self._checker.drop(a, level)
        self._spend("multiply_scalar", level + 1)
        self._spend("rescale", level + 1)
        return result

    def linear(
        self, inputs: Sequence[ValueType], plan: LinearPlan, constants: Mapping[str, Floats]
    ) -> list[ValueType]:
        """Price the backend's own way of doing it."""
        to, slots, level = combination_type(inputs), self.params.slots, inputs[0].level
        backend = self.times.backend
        specials = len(self.params.special_moduli)
        self._spend_all(linear_parts(backend, plan, slots, level, specials))
        over_qp = plan.over_qp(self.params.n, level + 1, specials)
        extended = backend is Backend.NATIVE and over_qp
        # Values cost nothing, and unpacking them would.
        row = np.zeros(1, dtype=memory_of_row(constants[plan.diagonals], 0).dtype)
        for term in plan.terms:
            self._encode(Plain(f"{plan.diagonals}/{term.row}", row), ValueType(level), extended)
        for output in range(plan.outputs if plan.bias else 0):
            bias = constants[plan.bias][output]
            self.add_plain(to, Plain(f"{plan.bias}/{output}", bias))
        return [to] * plan.outputs

    def weighted_sum(
        self, inputs: Sequence[ValueType], plan: WeightedSumPlan, constants: Mapping[str, Floats]
    ) -> list[ValueType]:
        """Price one product and sum per weight that is not zero."""
        results = self._checker.weighted_sum(inputs, plan, constants)
        level, weights = inputs[0].level, constants[plan.weights]
        self._spend_all(weighted_sum_parts(self.times.backend, weights, level))
        if plan.bias:
            self._spend("add_scalar", level - 1, plan.outputs)
        return results

    def chebyshev(
        self, a: ValueType, polynomial: Chebyshev, constants: Mapping[str, Floats]
    ) -> ValueType:
        """Price the default decomposition."""
        name = polynomial.coefficients
        return chebyshev_by_powers(self, a, constants[name], key=name, fused=self._fused)

    def sum_of_products(
        self,
        level: int,
        pairs: Sequence[tuple[ValueType, ValueType, int]],
        scaled: Sequence[tuple[ValueType, float | complex]],
        addend: ValueType | None,
    ) -> ValueType:
        """Price what the native engine adds up with one relinearisation."""
        products = sum(times for _, _, times in pairs)
        self._spend_all(
            Counter(
                {
                    ("multiply", level): int(products > 0),
                    ("add", level): 2 * max(0, products - 1) + (addend is not None),
                    ("multiply_scalar", level): len(scaled),
                }
            )
        )
        return ValueType(level, 2)

    def bootstrap(
        self, a: ValueType, plan: Bootstrap, constants: Mapping[str, Floats]
    ) -> ValueType:
        """Price its steps."""
        series = constants[plan.series]
        key = (a, replace(plan, series=""), len(series[0]))
        if key in self._bootstraps:
            result, spent, operations = self._bootstraps[key]
            self.milliseconds += spent
            self.operations += operations
            return result
        spent, operations = self.milliseconds, self.operations.copy()
        result = bootstrap_by_steps(
            self, a, plan, series, self.params, lambda _, level: ValueType(level), self._fused
        )
        self._bootstraps[key] = (
            result,
            self.milliseconds - spent,
            self.operations - operations,
        )
        return result

    def type_of(self, a: ValueType) -> ValueType:
        """Return the value itself."""
        return a

    @property
    def plaintext_bytes(self) -> int:
        """Bytes of the encoded constants."""
        if self.times.backend is Backend.OPENFHE:  # it keeps the values, too
            slots = 16 * self.params.slots
            return sum(8 * self.params.n * (at.level + 1) + slots for _, at in self.encoded)
        specials = len(self.params.special_moduli)
        return sum(
            (4 if made.real else 8) * self.params.n * (at.level + 1 + specials * made.extended)
            for (_, at), made in self.encoded.items()
        )

    @property
    def prepare_seconds(self) -> float:
        """Seconds that encoding the constants takes."""
        if self.times.backend is Backend.OPENFHE:
            return 0.0
        spent = 0.0
        for (_, at), made in self.encoded.items():
            operation = "encode_extended" if made.extended else "encode"
            spent += self.times.milliseconds(self._ring(at.level), operation)
        return spent / 1e3

    @property
    def _fused(self) -> SumOfProducts[ValueType] | None:
        return self.sum_of_products if self.times.backend is Backend.NATIVE else None

    def _spend_all(self, parts: Parts) -> None:
        for (operation, level), count in parts.items():
            self._spend(operation, level, count)

    def _spend(self, operation: str, level: int, count: int = 1) -> None:
        each = self.times.milliseconds(self._ring(level), operation)
        self.milliseconds += count * each * IN_CIRCUIT[self.times.backend]
        self.operations[operation] += count

    def _ring(self, level: int) -> Ring:
        if level not in self._rings:
            self._rings[level] = Ring.at_level(self.params, level)
        return self._rings[level]

    def _encode(self, plain: Plain, at: ValueType, extended: bool = False) -> None:
        if not plain.is_scalar:
            self.encoded[plain.key, at] = Encoded(extended, not np.iscomplexobj(plain.values))
