"""Orion on Lattigo: its dense network with the square activation, and our weights."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import orion  # type: ignore[import-not-found]
import orion.nn as on  # type: ignore[import-not-found]
import torch

from bench.worker import (
    Ready,
    Round,
    UnsupportedError,
    Worker,
    Workload,
    rows_at,
    serve,
    threads_allowed,
)

# Orion's own parameters for a dense network at N = 2^13, with as many levels as this one needs.
CKKS = {
    "LogN": 13,
    "LogQ": [29, 26, 26, 26],
    "LogP": [29, 29],
    "LogScale": 26,
    "H": 8192,
    "RingType": "Standard",
}
SETTINGS = {
    "margin": 2,
    "embedding_method": "hybrid",
    "backend": "lattigo",
    "fuse_modules": True,
    "debug": False,
    "io_mode": "none",
}


class SquareNetwork(on.Module):  # type: ignore[misc]
    """A dense layer, a square, a dense layer."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.flatten = on.Flatten()
        self.dense_1 = on.Linear(inputs, hidden)
        self.square = on.Quad()
        self.dense_2 = on.Linear(hidden, outputs)

    def forward(self, x: Any) -> Any:
        """Run the network, in clear or encrypted."""
        return self.dense_2(self.square(self.dense_1(self.flatten(x))))


class OrionWorker:
    """One process that holds the secret key and the network: Orion has no client and server."""

    def __init__(self) -> None:
        self._workload: Workload
        self._scheme: Any
        self._network: Any
        self._level = 0

    def setup(self, workload: Workload) -> Ready:
        """Build the network from the weights, fit the ranges, compile, make keys."""
        if workload.question != "mlp":
            raise UnsupportedError(f"no Orion worker for {workload.question}")
        self._workload = workload
        start = time.perf_counter()
        self._scheme = orion.init_scheme({"ckks_params": CKKS, "orion": SETTINGS})
        self._network = _network(workload)
        self._network.eval()
        calibration = torch.tensor(workload.arrays["calibration"], dtype=torch.float32)
        orion.fit(self._network, calibration[:1])
        self._level = orion.compile(self._network)
        self._network.he()
        seconds = time.perf_counter() - start
        parameters = {**CKKS, "version": "1.0.2"}
        return Ready(parameters, threads_allowed(), seconds, self._key_bytes())

    def round(self, index: int) -> Round:
        """Predict one row."""
        row = torch.tensor(rows_at(self._workload, index), dtype=torch.float32)
        start = time.perf_counter()
        encrypted = orion.encrypt(orion.encode(row, self._level))
        encrypted_at = time.perf_counter()
        answer = self._network(encrypted)
        evaluated_at = time.perf_counter()
        outputs = answer.decrypt().decode().flatten()[:10].tolist()
        end = time.perf_counter()
        client_seconds = end - evaluated_at + encrypted_at - start
        return Round(evaluated_at - encrypted_at, client_seconds, [outputs])

    def close(self) -> None:
        """Leave the scheme to the end of the process."""

    def _key_bytes(self) -> int:
        """Serialise one rotation key; all of them and the relinearisation key are that size."""
        rotations = self._scheme.lt_evaluator.saved_rotation_keys
        backend = self._scheme.backend
        serialized, pointer = backend.GenerateAndSerializeRotationKey(next(iter(rotations)))
        key_bytes = len(serialized)
        backend.FreeCArray(pointer)
        return key_bytes * (len(rotations) + 1)


def _network(workload: Workload) -> SquareNetwork:
    weights_1, weights_2 = workload.arrays["weights_1"], workload.arrays["weights_2"]
    network = SquareNetwork(weights_1.shape[0], weights_1.shape[1], weights_2.shape[1])
    with torch.no_grad():
        network.dense_1.weight.copy_(torch.tensor(np.ascontiguousarray(weights_1.T)))
        network.dense_1.bias.copy_(torch.tensor(workload.arrays["bias_1"]))
        network.dense_2.weight.copy_(torch.tensor(np.ascontiguousarray(weights_2.T)))
        network.dense_2.bias.copy_(torch.tensor(workload.arrays["bias_2"]))
    return network


def make_worker() -> Worker:
    """Return the worker."""
    return OrionWorker()


if __name__ == "__main__":
    serve(make_worker)
