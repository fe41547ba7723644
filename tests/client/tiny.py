"""A tiny model's public half, for tests of the client: one dense plan and one batch plan."""

from __future__ import annotations

import numpy as np

from tacit.layout import Layout
from tacit.params import CryptoParams, Security
from tacit.signature import Plan, Signature, TensorSpec

TINY_INSECURE = CryptoParams.choose(10, 3, 40, 50, 2, security=Security.UNCHECKED_INSECURE)
SLOTS = TINY_INSECURE.slots
FEATURES = 4


def spec(name: str, layout: Layout, level: int, scale: float = 2.0) -> TensorSpec:
    """A tensor with values in [-scale, scale]."""
    bound = np.asarray(scale)
    zero = np.asarray(0.0)
    return TensorSpec(name, (layout.size,), layout, bound, zero, -bound, bound, level)


def dense(size: int) -> Layout:
    """One row in the first slots of one ciphertext."""
    return Layout(SLOTS, 1, 1, np.arange(size)[None, :])


def batched(size: int) -> Layout:
    """One ciphertext per element, one slot per row."""
    return Layout(SLOTS, SLOTS, size, np.arange(size)[None, :])


def tiny_signature(rotations: tuple[int, ...] = (1, -2), relinearization: bool = True) -> Signature:
    """x, shape (rows, 4), to y, shape (rows, 2)."""
    latency = Plan(
        "latency",
        1,
        (spec("x", dense(FEATURES), 3),),
        (spec("y", dense(2), 1, 5.0),),
        rotations,
        relinearization,
        seconds=0.01,
        precision_bits=20.0,
    )
    batch = Plan(
        "batch",
        SLOTS,
        (spec("x", batched(FEATURES), 2),),
        (spec("y", batched(2), 0, 5.0),),
        (),
        relinearization,
        seconds=0.1,
        precision_bits=20.0,
    )
    inputs = {"x": (FEATURES,)}
    return Signature("tiny", "1", TINY_INSECURE, (latency, batch), inputs, ("y",))
