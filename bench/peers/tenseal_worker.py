"""TenSEAL: logistic regression much as in its tutorial, and a square-activation MLP.

The main variant computes a cubic sigmoid on the server, as the tutorial on encrypted training does.
The tutorial's cubic fits on [-5, 5] and turns round outside, where most of this model's logits lie;
here it is fitted to the calibrated range, which costs the same and errs less, and the chain of
moduli has no more levels than the cubic needs. Other variants:

    tutorial_chain  the same with the tutorial's longer chain: slower and, at its scale, less exact
    logits          no sigmoid on the server (the client applies it exactly), precise parameters
    small_logits    the same with the small parameters of the tutorial on encrypted evaluation

Training is one epoch of the tutorial on encrypted training, with its parameters: a ciphertext for
each row, the gradient of each row added up, weights refreshed by the client after the epoch.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import tenseal as ts  # type: ignore[import-not-found]

from bench.worker import (
    Measured,
    Ready,
    Round,
    UnsupportedError,
    Worker,
    Workload,
    rows_at,
    serve,
    threads_allowed,
)

SIGMOID_DEGREE = 3


@dataclass(frozen=True)
class Choice:
    """Parameters of a variant, and whether the server computes the sigmoid."""

    n: int
    log_q: tuple[int, ...]
    log_scale: int
    sigmoid: bool = False


LOGREG = {
    "": Choice(8192, (40, 26, 26, 26, 40), 26, sigmoid=True),
    "tutorial_chain": Choice(8192, (40, 21, 21, 21, 21, 21, 21, 40), 21, sigmoid=True),
    "logits": Choice(8192, (60, 40, 60), 40),
    "small_logits": Choice(4096, (40, 20, 40), 20),
}
MLP = Choice(8192, (40, 26, 26, 26, 40), 26)
TRAINING = Choice(8192, (40, 21, 21, 21, 21, 21, 21, 40), 21, sigmoid=True)
TRAINING_SIGMOID = [0.5, 0.197, 0.0, -0.004]
PENALTY = 0.05


class TensealWorker:
    """CKKS with N = 2^13; weights in the clear; the sigmoid polynomial runs on the server."""

    def __init__(self) -> None:
        self._workload: Workload
        self._context: Any
        self._sigmoid: list[float] = []

    def setup(self, workload: Workload) -> Ready:
        """Make the context and its keys."""
        if workload.question not in ("logreg", "mlp", "training"):
            raise UnsupportedError(f"no TenSEAL worker for {workload.question}")
        self._workload = workload
        start = time.perf_counter()
        choice = {"mlp": MLP, "training": TRAINING}.get(workload.question) or LOGREG[
            workload.variant
        ]
        if choice.sigmoid and workload.question != "training":
            self._sigmoid = _fit_sigmoid(workload)
        self._context = ts.context(
            ts.SCHEME_TYPE.CKKS, choice.n, coeff_mod_bit_sizes=list(choice.log_q)
        )
        self._context.global_scale = 2**choice.log_scale
        if workload.workload != "batch 128":
            self._context.generate_galois_keys()
        seconds = time.perf_counter() - start
        parameters = {"scheme": "CKKS", **asdict(choice), "version": ts.__version__}
        return Ready(parameters, threads_allowed(), seconds, self._key_bytes())

    def round(self, index: int) -> Round:
        """Predict one group of rows, or train for one epoch."""
        if self._workload.question == "training":
            return self._epoch()
        rows = rows_at(self._workload, index)
        if self._workload.question == "mlp":
            return self._mlp(rows[0])
        return self._logreg_row(rows[0]) if len(rows) == 1 else self._logreg_columns(rows)

    def close(self) -> None:
        """Nothing to stop."""

    def _key_bytes(self) -> int:
        public = self._context.serialize(
            save_public_key=True, save_secret_key=False, save_galois_keys=True, save_relin_keys=True
        )
        return len(public)

    def _logreg_row(self, row: Any) -> Round:
        weights = self._workload.arrays["weights"].tolist()
        bias = self._workload.arrays["bias"].tolist()
        start = time.perf_counter()
        encrypted = ts.ckks_vector(self._context, row.tolist())
        encrypted_at = time.perf_counter()
        answer = self._activate(encrypted.dot(weights) + bias)
        evaluated_at = time.perf_counter()
        outputs = [[value] for value in self._probabilities(answer)[:1]]
        end = time.perf_counter()
        return Round(
            evaluated_at - encrypted_at, end - evaluated_at + encrypted_at - start, outputs
        )

    def _logreg_columns(self, rows: Any) -> Round:
        """One ciphertext per feature, one slot per row: faster than row by row, no rotations."""
        weights = self._workload.arrays["weights"].tolist()
        bias = float(self._workload.arrays["bias"][0])
        start = time.perf_counter()
        columns = [ts.ckks_vector(self._context, column.tolist()) for column in rows.T]
        encrypted_at = time.perf_counter()
        total = columns[0] * weights[0]
        for column, weight in zip(columns[1:], weights[1:], strict=True):
            total += column * weight
        answer = self._activate(total + bias)
        evaluated_at = time.perf_counter()
        outputs = [[value] for value in self._probabilities(answer)]
        end = time.perf_counter()
        return Round(
            evaluated_at - encrypted_at, end - evaluated_at + encrypted_at - start, outputs
        )

    def _epoch(self) -> Round:
        """Train for one epoch: forward and backward for each row, then one update."""
        rows, labels = self._workload.arrays["rows"], self._workload.arrays["labels"]
        start = time.perf_counter()
        encrypted = [ts.ckks_vector(self._context, row.tolist()) for row in rows]
        targets = [ts.ckks_vector(self._context, [label]) for label in labels]
        weights = ts.ckks_vector(self._context, [0.0] * rows.shape[1])
        bias = ts.ckks_vector(self._context, [0.0])
        encrypted_at = time.perf_counter()
        steps, bias_steps = 0, 0
        for row, target in zip(encrypted, targets, strict=True):
            wrong = (row.dot(weights) + bias).polyval(TRAINING_SIGMOID) - target
            steps = row * wrong + steps
            bias_steps = wrong + bias_steps
        weights -= steps * (1.0 / len(rows)) + weights * PENALTY
        bias -= bias_steps * (1.0 / len(rows))
        trained_at = time.perf_counter()
        outputs = [weights.decrypt() + bias.decrypt()]
        end = time.perf_counter()
        seconds = trained_at - encrypted_at
        extra = [
            Measured("row_seconds", seconds / len(rows), "s"),
            Measured("rows", len(rows), "1"),
        ]
        return Round(seconds, end - trained_at + encrypted_at - start, outputs, extra)

    def _activate(self, logits: Any) -> Any:
        return logits.polyval(self._sigmoid) if self._sigmoid else logits

    def _probabilities(self, answer: Any) -> list[float]:
        """Decrypt; without a sigmoid on the server, apply it here."""
        values = np.array(answer.decrypt())
        probabilities = values if self._sigmoid else 1 / (1 + np.exp(-values))
        listed: list[float] = probabilities.tolist()
        return listed

    def _mlp(self, row: Any) -> Round:
        arrays = {name: np.asarray(a) for name, a in self._workload.arrays.items()}
        start = time.perf_counter()
        encrypted = ts.ckks_vector(self._context, row.tolist())
        encrypted_at = time.perf_counter()
        hidden = encrypted.mm(arrays["weights_1"].tolist()) + arrays["bias_1"].tolist()
        hidden.square_()
        answer = hidden.mm(arrays["weights_2"].tolist()) + arrays["bias_2"].tolist()
        evaluated_at = time.perf_counter()
        outputs = [answer.decrypt()]
        end = time.perf_counter()
        return Round(
            evaluated_at - encrypted_at, end - evaluated_at + encrypted_at - start, outputs
        )


def _fit_sigmoid(workload: Workload) -> list[float]:
    """Fit the sigmoid by least squares over the calibrated range, constant first."""
    logits = workload.arrays["calibration"] @ workload.arrays["weights"] + workload.arrays["bias"]
    reach = float(np.abs(logits).max())
    points = np.linspace(-reach, reach, 2001)
    fitted = np.polynomial.Polynomial.fit(points, 1 / (1 + np.exp(-points)), SIGMOID_DEGREE)
    coefficients: list[float] = fitted.convert().coef.tolist()
    return coefficients


def make_worker() -> Worker:
    """Return the worker."""
    return TensealWorker()


if __name__ == "__main__":
    serve(make_worker)
