"""The native engine's operations for question `operations`, on random residues: no key is made."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any

import numpy as np

from tacit import wire
from tacit.circuit import LinearPlan, LinearTerm, Plain, ValueType, WeightedSumPlan
from tacit.kernels.automorphism import rotation_element
from tacit.params import CryptoParams
from tacit.runtime.backends.native import NativeEvaluator
from tacit.runtime.backends.native_engine import NativeEngine
from tacit.runtime.backends.native_keys import load_keys

HOISTED = (1, 2, 3, 4)
BABIES, GIANTS = 8, 8
PLAINTEXTS = 16
CACHE_BYTES = 4 << 30
_HALF = np.asarray(0.5)
_KEY_ID = bytes(32)


class NativeOperations:
    """Keys and operands of one setting, in the measuring process."""

    def __init__(self, params: CryptoParams) -> None:
        self._params = params
        self._generator = np.random.default_rng(0)
        self._engine = NativeEngine(params, cache_bytes=CACHE_BYTES)
        self._keys = load_keys(self._engine, _KEY_ID, self._evaluation_keys())
        self._evaluator = NativeEvaluator(self._keys)

    def operations(self, level: int) -> dict[str, Callable[[], object]]:
        """Return every operation of the cost table that there is at a level."""
        evaluator, a, half = self._evaluator, self._ciphertext(level), Plain("half", _HALF)
        plains, steps = cycle(self._plains(level)), cycle(HOISTED)
        calls: dict[str, Callable[[], object]] = {
            "add": lambda: evaluator.add(a, a),
            "add_plain": lambda: evaluator.add_plain(a, next(plains)),
            "rotate": lambda: evaluator.rotate(a, next(steps)),
            "rotate_many_4": lambda: evaluator.rotate_many(a, HOISTED),
            "encode": self._encode(level),
        }
        if level:
            product = evaluator.multiply_plain(a, half)
            calls |= {
                "multiply_plain": lambda: evaluator.multiply_plain(a, next(plains)),
                "multiply_scalar": lambda: evaluator.multiply_plain(a, half),
                "rescale": lambda: evaluator.rescale(product),
                "multiply": lambda: evaluator.multiply(a, a),
                "linear_8x1": self._linear(a, f"8x1 {level}", BABIES, 1),
                "linear_1x4": self._linear(a, f"1x4 {level}", 1, 4),
                "linear_8x8": self._linear(a, f"8x8 {level}", BABIES, GIANTS),
                "weighted_16x4": self._weighted_sum(level, 16, 4),
                "weighted_48x32": self._weighted_sum(level, 48, 32),
            }
        return calls

    def _random(self, *shape: int, moduli: tuple[int, ...]) -> Any:
        rows = [self._generator.integers(0, q, (*shape, self._params.n)) for q in moduli]
        return np.stack(rows, axis=-2).astype(np.uint64)

    def _ciphertext(self, level: int) -> Any:
        params = self._params
        received = wire.Ciphertext(
            self._random(2, moduli=params.moduli[: level + 1]),
            level,
            1,
            params.scale(level),
            params.slots,
            params.digest,
            _KEY_ID,
        )
        return self._keys.ciphertext(received)

    def _evaluation_keys(self) -> list[wire.EvaluationKey]:
        params, rotation = self._params, wire.KeyKind.ROTATION
        moduli = params.moduli + params.special_moduli
        first = self._random(2, params.dnum, moduli=moduli)
        steps = (*range(1, BABIES), *(BABIES * giant for giant in range(1, GIANTS)))
        elements = [rotation_element(params.log_n, step) for step in steps]
        rotations = [wire.EvaluationKey(first.copy(), rotation, e, params.digest) for e in elements]
        kind = wire.KeyKind.RELINEARIZATION
        return [wire.EvaluationKey(first, kind, 0, params.digest), *rotations]

    def _plains(self, level: int) -> list[Plain]:
        """Return constants that are encoded already."""
        values = self._generator.uniform(-1, 1, (PLAINTEXTS, self._params.slots))
        plains = [Plain(f"plain {level} {i}", row) for i, row in enumerate(values)]
        for plain in plains:
            self._engine.plaintext(plain, ValueType(level))
        return plains

    def _encode(self, level: int) -> Callable[[], object]:
        """Encode another constant at each call."""
        engine = NativeEngine(self._params, cache_bytes=0)
        plain = Plain("new", self._generator.uniform(-1, 1, self._params.slots))
        return lambda: engine.plaintext(plain, ValueType(level))

    def _linear(self, a: Any, name: str, babies: int, giants: int) -> Callable[[], object]:
        terms = tuple(
            LinearTerm(0, 0, BABIES * giant, baby, giant * babies + baby)
            for giant in range(giants)
            for baby in range(babies)
        )
        plan = LinearPlan(1, terms, name, "")
        rows = self._generator.uniform(-1, 1, (len(terms), self._params.slots))
        return lambda: self._evaluator.linear([a], plan, {name: rows})

    def _weighted_sum(self, level: int, inputs: int, outputs: int) -> Callable[[], object]:
        name = f"weights {level} {inputs}"
        terms = [self._ciphertext(level) for _ in range(inputs)]
        weights = {name: self._generator.uniform(-1, 1, (outputs, inputs))}
        plan = WeightedSumPlan(outputs, name, "")
        return lambda: self._evaluator.weighted_sum(terms, plan, weights)
