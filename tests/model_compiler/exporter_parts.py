"""What exporters' patterns are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tacit.clear_operations import Array

C, S = 4, 6  # channels and side of most images


def w(*shape: int, seed: int = 1) -> Array:
    """Draw weights of about unit gain."""
    fan = max(int(np.prod(shape[1:])), 1)
    return np.asarray(np.random.default_rng(seed).normal(size=shape) / np.sqrt(fan))


def i(*numbers: int) -> Array:
    """Make a list of integers."""
    return np.array(numbers, dtype=np.int64)


def f(*numbers: float) -> Array:
    """Make a list of numbers."""
    return np.array(numbers)


STATISTICS = {
    "gamma": 1.0 + 0.3 * w(C, seed=5),
    "beta": w(C, seed=6),
    "mean": w(C, seed=7),
    "var": np.abs(w(C, seed=8)) + 0.5,
}
CONSTANTS: dict[str, Array] = {
    **STATISTICS,
    "k3": w(C, C, 3, 3, seed=2),
    "k1": w(C, C, 1, 1, seed=3),
    "k8": w(2 * C, C, 3, 3, seed=4),
    "kd": w(C, 1, 3, 3, seed=9),
    "bias": w(C, seed=10),
    "fc": w(C, 3, seed=11),
    "fct": w(3, C, seed=12),
    "fcb": w(3, seed=13),
    "flat": w(C * 9, 3, seed=14),
    "zero": f(0.0).reshape(()),
    "six": f(6.0).reshape(()),
}


@dataclass(frozen=True)
class Pattern:
    """Nodes from X, rows of images, to Y.

    Attributes:
        fixed: exported with one row.
        activations: functions that must be left, in order; None for any.
        products: products of two encrypted tensors that must be left.
    """

    text: str
    constants: Mapping[str, Array] = field(default_factory=dict)
    shape: tuple[int, ...] = (C, S, S)
    fixed: bool = False
    opset: int = 17
    activations: tuple[str, ...] | None = None
    products: int = 0


CONV = "A = Conv<kernel_shape=[3, 3], pads=[1, 1, 1, 1]>(X, k3, bias)\n"
HEAD = "\nY = Gemm<transB=1>(Q, fct, fcb)"
POOLED = "G = GlobalAveragePool(R)\nQ = Flatten(G)" + HEAD
