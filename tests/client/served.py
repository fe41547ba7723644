"""A small compiled model behind a real server, for tests of the client."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tacit.artifact import Artifact
from tacit.model_compiler import CompileOptions, compile_model
from tacit.params import CryptoParams, Security

Kind = Literal["http", "grpc"]
KINDS: tuple[Kind, ...] = ("http", "grpc")

TINY_INSECURE = CryptoParams.choose(11, 3, 40, 50, 2, security=Security.UNCHECKED_INSECURE)
FEATURES, OUTPUTS = 6, 3
_RANDOM = np.random.default_rng(5)
WEIGHTS = _RANDOM.uniform(-1, 1, (FEATURES, OUTPUTS)).astype(np.float32)
BIAS = _RANDOM.uniform(-1, 1, OUTPUTS).astype(np.float32)
ROWS = _RANDOM.uniform(-2, 2, (700, FEATURES))
# Scale 2^40 at N = 2^11: fresh noise is below 2^-26; the model's outputs are below 2^7.
BOUND = 2.0**-16


def clear_answer(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the model computes: (x W + b)^2."""
    return np.asarray((rows @ WEIGHTS.astype(np.float64) + BIAS.astype(np.float64)) ** 2)


def squared_model() -> onnx.ModelProto:
    """An ONNX model: Gemm, then Mul of the result with itself."""
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["z"]),
        helper.make_node("Mul", ["z", "z"], ["y"]),
    ]
    constants = [numpy_helper.from_array(WEIGHTS, "w"), numpy_helper.from_array(BIAS, "b")]
    graph = helper.make_graph(
        nodes,
        "squared",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", OUTPUTS])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def compile_squared(directory: Path, calibration: NDArray[np.float64] = ROWS) -> Artifact:
    """Compile it with tiny insecure parameters."""
    options = CompileOptions(name="squared", calibration=calibration, params=TINY_INSECURE)
    return compile_model(squared_model(), directory, options=options)


@dataclass
class RecordingProxy:
    """Forwards TCP connections to a port, and keeps every byte that goes there."""

    target: int
    heard: list[bytes] = field(default_factory=list)

    def __enter__(self) -> RecordingProxy:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._listener.close()

    @property
    def sent(self) -> bytes:
        """Everything the client sent."""
        return b"".join(self.heard)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self.target))
            for source, to, keep in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._pump, args=(source, to, keep), daemon=True).start()

    def _pump(self, source: socket.socket, to: socket.socket, keep: bool) -> None:
        try:
            while piece := source.recv(1 << 16):
                if keep:
                    self.heard.append(piece)
                to.sendall(piece)
            to.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        finally:
            if not keep:
                source.close()
                to.close()
