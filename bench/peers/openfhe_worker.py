"""OpenFHE by hand: what an experienced user writes with the library alone, one thread.

For `logreg` the main variant computes the sigmoid on the server; `logits` leaves it to the client.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import openfhe

from bench.worker import Array, Ready, Round, UnsupportedError, Worker, Workload, rows_at, serve

FEATURE_BLOCK = 32  # 30 features, padded to a power of two
SIGMOID_DEGREE = 59
SIGMOID = {"depth": 8, "scale": 50, "first": 60, "digits": 3}
LOGITS = {"depth": 1, "scale": 40, "first": 50, "digits": 2}
SQUARE = {"depth": 3, "scale": 36, "first": 46, "digits": 4}
HIDDEN, OUTPUT_BLOCK, PIXELS = 128, 16, 1024


class OpenfheWorker:
    """Holds the context, the keys and the circuit of one workload."""

    def __init__(self) -> None:
        self._workload: Workload
        self._context: Any
        self._keys: Any
        self._circuit: Callable[[Any], Any]

    def setup(self, workload: Workload) -> Ready:
        """Make the context and the keys, encode the weights."""
        start = time.perf_counter()
        self._workload = workload
        if workload.question == "logreg":
            chosen = LOGITS if workload.variant == "logits" else SIGMOID
            slots = FEATURE_BLOCK * len(rows_at(workload, 0))
        elif workload.question == "mlp":
            chosen = SQUARE
            slots = PIXELS
        else:
            raise UnsupportedError(f"no OpenFHE circuit by hand for {workload.question}")
        self._context = _make_context(chosen, slots)
        self._keys = self._context.KeyGen()
        self._context.EvalMultKeyGen(self._keys.secretKey)
        rotations = self._prepare()
        self._context.EvalRotateKeyGen(self._keys.secretKey, rotations)
        seconds = time.perf_counter() - start
        parameters = {"n": self._context.GetRingDimension(), **chosen, "version": "1.6.1"}
        return Ready(parameters, 1, seconds, self._key_bytes())

    def round(self, index: int) -> Round:
        """Predict one group of rows."""
        rows = rows_at(self._workload, index)
        start = time.perf_counter()
        packed = self._context.MakeCKKSPackedPlaintext(self._pack(rows))
        encrypted = self._context.Encrypt(self._keys.publicKey, packed)
        encrypted_at = time.perf_counter()
        answer = self._circuit(encrypted)
        evaluated_at = time.perf_counter()
        decrypted = self._context.Decrypt(self._keys.secretKey, answer)
        outputs = self._unpack(np.array(decrypted.GetRealPackedValue()), len(rows))
        end = time.perf_counter()
        client_seconds = end - evaluated_at + encrypted_at - start
        return Round(evaluated_at - encrypted_at, client_seconds, outputs)

    def close(self) -> None:
        """Leave the keys to the end of the process."""

    def _prepare(self) -> list[int]:
        if self._workload.question == "logreg":
            self._circuit = _logistic_regression(self._context, self._workload)
            return [1, 2, 4, 8, 16]
        layer_1 = Diagonals(self._context, self._workload, 1, HIDDEN, PIXELS, babies=16, level=0)
        layer_2 = Diagonals(
            self._context, self._workload, 2, OUTPUT_BLOCK, HIDDEN, babies=4, level=2
        )
        self._circuit = lambda x: layer_2(self._context.EvalSquare(layer_1(x)))
        return sorted({*layer_1.rotations, *layer_2.rotations})

    def _pack(self, rows: Array) -> Array:
        block = FEATURE_BLOCK if self._workload.question == "logreg" else PIXELS
        padded = np.zeros((len(rows), block))
        padded[:, : rows.shape[1]] = rows
        return padded.ravel()

    def _unpack(self, slots: Array, rows: int) -> list[list[float]]:
        if self._workload.question == "logreg":
            values = slots[: FEATURE_BLOCK * rows : FEATURE_BLOCK]
            if self._workload.variant == "logits":  # the client's part
                values = 1 / (1 + np.exp(-values))
            return [[float(value)] for value in values]
        outputs = self._workload.arrays["bias_2"].size
        return [[float(value) for value in slots[:outputs]]]

    def _key_bytes(self) -> int:
        tag = self._keys.secretKey.GetKeyTag()
        relinearize = openfhe.SerializeEvalMultKeyString(openfhe.BINARY, tag)
        rotate = openfhe.SerializeEvalAutomorphismKeyString(openfhe.BINARY, tag)
        return len(relinearize) + len(rotate)


class Diagonals:
    """A matrix times a vector by (folded) diagonals, baby steps hoisted.

    The matrix has `rows` rows (padded) and `columns` columns; the vector repeats every `columns`
    slots, the product repeats every `rows` slots.
    """

    def __init__(
        self,
        context: Any,
        workload: Workload,
        number: int,
        rows: int,
        columns: int,
        *,
        babies: int,
        level: int,
    ) -> None:
        self._context = context
        self._babies = babies
        self._folds = _doublings(rows, columns)
        weights = workload.arrays[f"weights_{number}"].T
        matrix = np.zeros((rows, columns))
        matrix[: weights.shape[0], : weights.shape[1]] = weights
        bias = np.zeros(rows)
        bias[: weights.shape[0]] = workload.arrays[f"bias_{number}"]
        self._bias = np.tile(bias, PIXELS // rows)
        self._giants = [
            [self._encode(matrix, giant, baby, level) for baby in range(babies)]
            for giant in range(0, rows, babies)
        ]
        giants = [babies * step for step in range(1, len(self._giants))]
        self.rotations = [*range(1, babies), *giants, *self._folds]

    def __call__(self, x: Any) -> Any:
        """Multiply an encrypted vector by the matrix and add the bias."""
        context = self._context
        order = 2 * context.GetRingDimension()
        digits = context.EvalFastRotationPrecompute(x)
        turned = [x]
        for step in range(1, self._babies):
            turned.append(context.EvalFastRotation(x, step, order, digits))
        total = self._inner(turned, self._giants[0])
        for giant, plaintexts in enumerate(self._giants[1:], start=1):
            part = self._inner(turned, plaintexts)
            total = context.EvalAdd(total, context.EvalRotate(part, giant * self._babies))
        for step in self._folds:
            total = context.EvalAdd(total, context.EvalRotate(total, step))
        bias = context.MakeCKKSPackedPlaintext(self._bias, 1, total.GetLevel())
        return context.EvalAdd(total, bias)

    def _encode(self, matrix: Array, giant: int, baby: int, level: int) -> Any:
        rows, columns = matrix.shape
        slots = np.arange(PIXELS)
        diagonal = matrix[slots % rows, (slots + giant + baby) % columns]
        # The giant step turns the product by `giant`, so the diagonal is turned back beforehand.
        turned = np.roll(diagonal, giant)
        return self._context.MakeCKKSPackedPlaintext(turned, 1, level)

    def _inner(self, turned: Sequence[Any], plaintexts: Sequence[Any]) -> Any:
        products = [self._context.EvalMult(a, b) for a, b in zip(turned, plaintexts, strict=True)]
        total = products[0]
        for product in products[1:]:
            self._context.EvalAddInPlace(total, product)
        return total


def _logistic_regression(context: Any, workload: Workload) -> Callable[[Any], Any]:
    """One product, log2(block) rotations, one Chebyshev series: the same for one row or many."""
    rows = len(rows_at(workload, 0))
    weights = np.zeros(FEATURE_BLOCK)
    weights[: workload.arrays["weights"].size] = workload.arrays["weights"]
    encoded = context.MakeCKKSPackedPlaintext(np.tile(weights, rows))
    bias = float(workload.arrays["bias"][0])
    logits = workload.arrays["calibration"] @ workload.arrays["weights"] + bias
    reach = float(np.ceil(1.1 * np.abs(logits).max()))

    def circuit(x: Any) -> Any:
        total = context.EvalMult(x, encoded)
        for step in (1, 2, 4, 8, 16):
            total = context.EvalAdd(total, context.EvalRotate(total, step))
        logits = context.EvalAdd(total, bias)
        if workload.variant == "logits":
            return logits
        return context.EvalLogistic(logits, -reach, reach, SIGMOID_DEGREE)

    return circuit


def _make_context(chosen: dict[str, int], slots: int) -> Any:
    parameters = openfhe.CCParamsCKKSRNS()
    parameters.SetMultiplicativeDepth(chosen["depth"])
    parameters.SetScalingModSize(chosen["scale"])
    parameters.SetFirstModSize(chosen["first"])
    parameters.SetNumLargeDigits(chosen["digits"])
    parameters.SetSecurityLevel(openfhe.HEStd_128_classic)
    parameters.SetScalingTechnique(openfhe.FLEXIBLEAUTO)
    parameters.SetBatchSize(slots)
    context = openfhe.GenCryptoContext(parameters)
    for feature in ("PKE", "KEYSWITCH", "LEVELEDSHE", "ADVANCEDSHE"):
        context.Enable(getattr(openfhe, feature))
    return context


def _doublings(start: int, end: int) -> list[int]:
    steps = []
    while start < end:
        steps.append(start)
        start *= 2
    return steps


def make_worker() -> Worker:
    """Return the worker."""
    return OpenfheWorker()


if __name__ == "__main__":
    serve(make_worker)
