"""onnxruntime in the clear: what the same model costs without encryption."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import onnxruntime as ort  # type: ignore[import-not-found,import-untyped,unused-ignore]

from bench.worker import Ready, Round, Worker, Workload, rows_at, serve


class ClearWorker:
    """Runs the ONNX model on plain rows, one thread."""

    def __init__(self) -> None:
        self._workload: Workload
        self._session: Any

    def setup(self, workload: Workload) -> Ready:
        """Load the model."""
        start = time.perf_counter()
        self._workload = workload
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(
            str(workload.onnx_path), options, providers=["CPUExecutionProvider"]
        )
        seconds = time.perf_counter() - start
        return Ready({"encrypted": False, "version": ort.__version__}, 1, seconds, 0)

    def round(self, index: int) -> Round:
        """Predict one group of rows."""
        name = "raw_inputs" if "raw_inputs" in self._workload.arrays else "inputs"
        rows = rows_at(self._workload, index, name).astype(np.float32)
        model_input = self._session.get_inputs()[0]
        start = time.perf_counter()
        answers = self._session.run(None, {model_input.name: rows})
        seconds = time.perf_counter() - start
        return Round(seconds, 0.0, _scores(answers))

    def close(self) -> None:
        """Nothing to stop."""


def _scores(answers: list[Any]) -> list[list[float]]:
    """Take the scores: the last output; of two class probabilities, the second."""
    scores = np.asarray(answers[-1], dtype=np.float64)
    kept = scores[:, 1:] if scores.shape[1] == 2 else scores
    rows: list[list[float]] = kept.tolist()
    return rows


def make_worker() -> Worker:
    """Return the worker."""
    return ClearWorker()


if __name__ == "__main__":
    serve(make_worker)
