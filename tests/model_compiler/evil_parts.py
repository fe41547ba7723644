"""What evil files are made of: a small good model, changed, and the error it must end with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto

from tacit.clear_operations import Array
from tests.model_compiler.onnx_models import build

Source = onnx.ModelProto | bytes | Path
Make = Callable[[Path], Source]

W: Final = np.random.default_rng(0).normal(size=(4, 4))
ROW: Final[Mapping[str, tuple[int, ...]]] = {"X": (4,)}
IMAGE: Final[Mapping[str, tuple[int, ...]]] = {"X": (2, 6, 6)}
KERNEL: Final = np.random.default_rng(1).normal(size=(4, 2, 3, 3))


@dataclass(frozen=True)
class Evil:
    """A file and the error it must end with.

    Attributes:
        make: writes into a directory of its own, or returns the model or its bytes.
        says: what the message must hold, as a regular expression; a node or tensor by name where
            one is at fault.
    """

    make: Make
    says: str


def ints(*numbers: int) -> Array:
    """Return a constant of shape (n,), int64."""
    return np.array(numbers, dtype=np.int64)


def case(
    text: str,
    says: str,
    inputs: Mapping[str, tuple[int, ...]] | None = None,
    opset: int = 17,
    **constants: Array,
) -> Evil:
    return Evil(lambda _: build(text, inputs or ROW, constants, opset=opset), says)


def changed(change: Callable[[onnx.ModelProto], None], says: str, text: str = "") -> Evil:
    """Change a small good model."""

    def make(_: Path) -> onnx.ModelProto:
        model = build(text or "H = MatMul(X, W)\nY = Relu(H)", ROW, {"W": W})
        change(model)
        return model

    return Evil(make, says)


def weight_of(model: onnx.ModelProto) -> TensorProto:
    found: TensorProto = model.graph.initializer[0]
    return found


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])
