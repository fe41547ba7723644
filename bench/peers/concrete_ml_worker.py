"""Concrete ML: logistic regression with 8-bit quantisation, through its deployment API.

Training is its SGD on encrypted rows in this process, with the widths of integers and the error
probability that it is built with. One mini-batch of eight rows is timed: a pass over hundreds of
rows would take hours, and every mini-batch runs the same circuit.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from concrete.ml.deployment import (  # type: ignore[import-not-found]
    FHEModelClient,
    FHEModelDev,
    FHEModelServer,
)
from concrete.ml.sklearn import (  # type: ignore[import-not-found]
    LogisticRegression,
    SGDClassifier,
)
from sklearn.linear_model import LogisticRegression as ClearModel

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

BITS = 8


class ConcreteWorker:
    """TFHE with quantised integers; the sigmoid is computed by the client after decryption.

    The circuit is compiled for one row (the library has no other), so a batch is a loop.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._workload: Workload
        self._client: Any
        self._server: Any
        self._keys: bytes
        self._rows: Any
        self._labels: Any
        self._training: Any

    def setup(self, workload: Workload) -> Ready:
        """Quantise, compile, save, and make keys."""
        if workload.question == "training":
            return self._set_up_training(workload)
        if workload.question != "logreg":
            raise UnsupportedError(f"no Concrete ML worker for {workload.question}")
        self._workload = workload
        start = time.perf_counter()
        calibration = workload.arrays["calibration"]
        model = LogisticRegression.from_sklearn_model(
            _clear_model(workload), calibration, n_bits=BITS
        )
        model.compile(calibration)
        folder = Path(self._folder.name)
        FHEModelDev(path_dir=str(folder / "model"), model=model).save()
        self._client = FHEModelClient(path_dir=str(folder / "model"), key_dir=str(folder / "keys"))
        self._client.generate_private_and_evaluation_keys()
        self._keys = self._client.get_serialized_evaluation_keys()
        self._server = FHEModelServer(path_dir=str(folder / "model"))
        self._server.load()
        seconds = time.perf_counter() - start
        parameters = {"scheme": "TFHE", "bits": BITS, "version": "1.9.0"}
        return Ready(parameters, threads_allowed(), seconds, len(self._keys))

    def round(self, index: int) -> Round:
        """Predict one group of rows, one at a time, or train on a mini-batch."""
        if self._workload.question == "training":
            return self._mini_batch()
        server_seconds = client_seconds = 0.0
        outputs = []
        for row in rows_at(self._workload, index):
            start = time.perf_counter()
            encrypted = self._client.quantize_encrypt_serialize(row[None, :])
            encrypted_at = time.perf_counter()
            answer = self._server.run(encrypted, self._keys)
            evaluated_at = time.perf_counter()
            probabilities = self._client.deserialize_decrypt_dequantize(answer)
            outputs.append([float(probabilities[0, 1])])
            end = time.perf_counter()
            server_seconds += evaluated_at - encrypted_at
            client_seconds += end - evaluated_at + encrypted_at - start
        return Round(server_seconds, client_seconds, outputs)

    def _set_up_training(self, workload: Workload) -> Ready:
        """Compile the circuit of a mini-batch, by a first one in the clear, and make keys."""
        self._workload = workload
        self._rows = np.clip(workload.arrays["rows"] / 4.0, -1.0, 1.0)
        self._labels = workload.arrays["labels"].astype(np.int64)
        model = SGDClassifier(random_state=0, fit_encrypted=True, parameters_range=(-1.0, 1.0))
        start = time.perf_counter()
        model.partial_fit(self._rows, self._labels, fhe="disable", classes=np.array([0, 1]))
        compiled = time.perf_counter()
        keys = model.training_quantized_module.fhe_circuit.keys
        keys.generate()
        made = time.perf_counter()
        self._training = model
        parameters = {
            "scheme": "TFHE",
            "bits": model.n_bits_training,
            "rounding_bits": model.rounding_training,
            "p_error": model.training_p_error,
            "batch_rows": model.batch_size,
            "version": "1.9.0",
        }
        extra = [
            Measured("compile_seconds", compiled - start, "s"),
            Measured("make_keys_seconds", made - compiled, "s"),
        ]
        sent = len(keys.evaluation.serialize())
        return Ready(parameters, threads_allowed(), made - start, sent, extra)

    def _mini_batch(self) -> Round:
        """Train on one encrypted mini-batch; encryption of its eight rows is part of the time."""
        model = self._training
        start = time.perf_counter()
        model.partial_fit(self._rows, self._labels, fhe="execute")
        seconds = time.perf_counter() - start
        outputs = [[*model.coef_[0].tolist(), float(np.ravel(model.intercept_)[0])]]
        extra = [
            Measured("row_seconds", seconds / model.batch_size, "s"),
            Measured("mini_batch_seconds", seconds, "s"),
            Measured("rows", model.batch_size, "1"),
        ]
        return Round(seconds, 0.0, outputs, extra)

    def close(self) -> None:
        """Remove the compiled model and the keys."""
        self._folder.cleanup()


def _clear_model(workload: Workload) -> Any:
    """Rebuild the fitted scikit-learn model from its weights."""
    model = ClearModel()
    model.coef_ = workload.arrays["weights"][None, :]
    model.intercept_ = workload.arrays["bias"]
    model.classes_ = np.array([0, 1])
    model.n_features_in_ = model.coef_.shape[1]
    return model


def make_worker() -> Worker:
    """Return the worker."""
    return ConcreteWorker()


if __name__ == "__main__":
    serve(make_worker)
