"""The OpenFHE backend's operations for question `operations`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any

import numpy as np

from tacit.circuit import Plain, WeightedSumPlan
from tacit.params import CryptoParams
from tacit.runtime.backends.openfhe import OpenFHEEvaluator
from tacit.runtime.backends.openfhe_parameters import make_context

STEPS = (1, 2, 3, 4)
PLAINTEXTS = 16
TERM_BYTES = 256 << 20
_HALF = np.asarray(0.5)


class OpenFHEOperations:
    """Contexts, keys and operands of one setting, in the measuring process."""

    def __init__(self, params: CryptoParams) -> None:
        self._params = params
        self._context = make_context(self._params)
        self._keys = self._context.KeyGen()
        self._context.EvalMultKeyGen(self._keys.secretKey)
        self._context.EvalRotateKeyGen(self._keys.secretKey, list(STEPS))
        self._evaluator = OpenFHEEvaluator(self._params, self._context)
        self._generator = np.random.default_rng(0)

    def operations(self, level: int) -> dict[str, Callable[[], object]]:
        """Return every operation of the cost table that there is at a level."""
        context, evaluator = self._context, self._evaluator
        a = self._encrypt(level)
        digits = context.EvalFastRotationPrecompute(a)
        extended = context.EvalFastRotationExt(a, STEPS[0], digits, True)
        plains, steps, half = cycle(self._plains(level)), cycle(STEPS), Plain("half", _HALF)
        calls: dict[str, Callable[[], object]] = {
            "add": lambda: evaluator.add(a, a),
            "add_plain": lambda: evaluator.add_plain(a, next(plains)),
            "add_scalar": lambda: evaluator.add_plain(a, half),
            "hoist": lambda: context.EvalFastRotationPrecompute(a),
            "hoisted": lambda: context.EvalFastRotation(a, next(steps), digits),
            "extended": lambda: context.EvalFastRotationExt(a, next(steps), digits, True),
            "down": lambda: context.KeySwitchDown(extended),
            "rotate": lambda: evaluator.rotate(a, next(steps)),
        }
        if level:
            product = evaluator.multiply_plain(a, half)
            calls |= {
                "multiply_plain": lambda: evaluator.multiply_plain(a, next(plains)),
                "multiply_scalar": lambda: evaluator.multiply_plain(a, half),
                "rescale": lambda: evaluator.rescale(product),
                "multiply": lambda: evaluator.multiply(a, a),
                "weighted_term": self._weighted_sum(a, level),
            }
        return calls

    def terms(self, level: int) -> int:
        """Return how many ciphertexts the weighted sums have."""
        return int(np.clip(TERM_BYTES // self._params.ciphertext_bytes(level), 8, 48))

    def _encrypt(self, level: int) -> Any:
        values = self._generator.uniform(-1, 1, self._params.slots)
        depth = self._params.depth
        plaintext = self._context.MakeCKKSPackedPlaintext(values, 1, depth - level)
        return self._context.Encrypt(self._keys.publicKey, plaintext)

    def _plains(self, level: int) -> list[Plain]:
        """Return constants that are encoded already."""
        values = self._generator.uniform(-1, 1, (PLAINTEXTS, self._params.slots))
        plains = [Plain(f"plain {i}", row) for i, row in enumerate(values)]
        a = self._encrypt(level)
        for plain in plains:
            self._evaluator.add_plain(a, plain)
        return plains

    def _weighted_sum(self, a: Any, level: int) -> Callable[[], object]:
        terms = [a.Clone() for _ in range(self.terms(level))]
        weights = {"w": self._generator.uniform(-1, 1, (1, len(terms)))}
        plan = WeightedSumPlan(1, "w", "")
        return lambda: self._evaluator.weighted_sum(terms, plan, weights)
