"""Orion on Lattigo: its dense network and its LeNet with the square activation, and our weights."""

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
# As many levels as its LeNet needs; in the conjugate-invariant ring, as in Orion's own
# configuration, N = 2^13 has 2^13 slots and the security of N = 2^14.
LENET_CKKS = {
    **CKKS,
    "LogQ": [29, 26, 26, 26, 26, 26, 26, 26],
    "RingType": "ConjugateInvariant",
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


class LeNet(on.Module):  # type: ignore[misc]
    """Two strided convolutions and two dense layers, with squares between them."""

    def __init__(self, side: int, kernels: tuple[int, int], hidden: int, outputs: int) -> None:
        super().__init__()
        self.side = side
        self.conv_1 = on.Conv2d(1, kernels[0], kernel_size=5, padding=2, stride=2)
        self.square_1 = on.Quad()
        self.conv_2 = on.Conv2d(*kernels, kernel_size=5, padding=2, stride=2)
        self.square_2 = on.Quad()
        self.flatten = on.Flatten()
        self.dense_1 = on.Linear(kernels[1] * (-(-side // 4)) ** 2, hidden)
        self.square_3 = on.Quad()
        self.dense_2 = on.Linear(hidden, outputs)

    def forward(self, x: Any) -> Any:
        """Run the network, in clear or encrypted."""
        x = self.square_2(self.conv_2(self.square_1(self.conv_1(x))))
        return self.dense_2(self.square_3(self.dense_1(self.flatten(x))))


class OrionWorker:
    """One process that holds the secret key and the network: Orion has no client and server."""

    def __init__(self) -> None:
        self._workload: Workload
        self._scheme: Any
        self._network: Any
        self._level = 0

    def setup(self, workload: Workload) -> Ready:
        """Build the network from the weights, fit the ranges, compile, make keys."""
        if workload.question not in ("mlp", "lenet"):
            raise UnsupportedError(f"no Orion worker for {workload.question}")
        self._workload = workload
        start = time.perf_counter()
        ckks = CKKS if workload.question == "mlp" else LENET_CKKS
        self._scheme = orion.init_scheme({"ckks_params": ckks, "orion": SETTINGS})
        self._network = _network(workload) if workload.question == "mlp" else _lenet(workload)
        self._network.eval()
        calibration = self._shaped(workload.arrays["calibration"])
        orion.fit(self._network, calibration[:1])
        self._level = orion.compile(self._network)
        self._network.he()
        seconds = time.perf_counter() - start
        parameters = {**ckks, "version": "1.0.2"}
        return Ready(parameters, threads_allowed(), seconds, self._key_bytes())

    def round(self, index: int) -> Round:
        """Predict one row."""
        row = self._shaped(rows_at(self._workload, index))
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

    def _shaped(self, rows: Any) -> Any:
        """Return rows as the network takes them."""
        flat = torch.tensor(rows, dtype=torch.float32)
        side = getattr(self._network, "side", 0)
        return flat.reshape(len(flat), 1, side, side) if side else flat

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


def _lenet(workload: Workload) -> LeNet:
    arrays = workload.arrays
    side = round(arrays["inputs"].shape[-1] ** 0.5)
    kernels = len(arrays["kernel_1"]), len(arrays["kernel_2"])
    network = LeNet(side, kernels, *arrays["weights_2"].shape)
    layers = {
        "conv_1": (arrays["kernel_1"], arrays["kernel_bias_1"]),
        "conv_2": (arrays["kernel_2"], arrays["kernel_bias_2"]),
        "dense_1": (arrays["weights_1"].T, arrays["bias_1"]),
        "dense_2": (arrays["weights_2"].T, arrays["bias_2"]),
    }
    with torch.no_grad():
        for name, (weights, bias) in layers.items():
            layer = getattr(network, name)
            layer.weight.copy_(torch.tensor(np.ascontiguousarray(weights)))
            layer.bias.copy_(torch.tensor(bias))
    return network


def make_worker() -> Worker:
    """Return the worker."""
    return OrionWorker()


if __name__ == "__main__":
    serve(make_worker)
