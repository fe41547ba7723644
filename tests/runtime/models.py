"""Small artifacts for the tests of the endpoint."""

from pathlib import Path

import numpy as np

from tacit.artifact import Artifact, save
from tacit.circuit import Circuit, Constant, Node, Op, Steps, ValueType
from tacit.layout import Layout
from tacit.params import CryptoParams, Security
from tacit.signature import Plan, Signature, TensorSpec

TINY_INSECURE = CryptoParams.choose(10, 3, 40, 50, 2, security=Security.UNCHECKED_INSECURE)
# Big enough that a frame of 16 MB passes the size check; no context is ever made of these.
LARGE = CryptoParams.choose(16, 20, 40, 50, 3)


def spec(params: CryptoParams, name: str, level: int, ciphertexts: int = 1) -> TensorSpec:
    """A tensor of one element per ciphertext, slot-per-sample."""
    cells = np.arange(ciphertexts, dtype=np.int64).reshape(1, ciphertexts)
    layout = Layout(params.slots, params.slots, ciphertexts, cells)
    one, zero = np.asarray(1.0), np.asarray(0.0)
    return TensorSpec(name, (ciphertexts,), layout, one, zero, -one, one, level)


def echo_artifact(params: CryptoParams, ciphertexts: int = 1) -> Artifact:
    """A model whose outputs have the shape of its inputs; for echo executors."""
    values = tuple(range(ciphertexts))
    top = params.depth
    circuit = Circuit(params.slots, values, values, (), tuple(ValueType(top) for _ in values))
    plan = Plan(
        "latency",
        params.slots,
        (spec(params, "x", top, ciphertexts),),
        (spec(params, "y", top, ciphertexts),),
        (),
        False,
        1.0,
        20.0,
    )
    signature = Signature("echo", "1", params, (plan,), {"x": (ciphertexts,)}, ("y",))
    return Artifact(signature, {"latency": circuit}, {})


def arithmetic_artifact(params: CryptoParams = TINY_INSECURE, shift: int = 3) -> Artifact:
    """y = rotate(x * x, shift) + 0.25 in plan "latency"; y = x + 0.5 in plan "batch"."""
    top = params.depth
    square = Circuit(
        params.slots,
        (0,),
        (4,),
        (
            Node(Op.MULTIPLY, (0, 0), (1,), None, "square"),
            Node(Op.RESCALE, (1,), (2,), None, "square"),
            Node(Op.ROTATE, (2,), (3,), Steps(shift), "shift"),
            Node(Op.ADD_PLAIN, (3,), (4,), Constant("c"), "shift"),
        ),
        (ValueType(top), ValueType(top, 2), *(ValueType(top - 1),) * 3),
        {"c": np.asarray(0.25)},
    )
    add = Circuit(
        params.slots,
        (0,),
        (1,),
        (Node(Op.ADD_PLAIN, (0,), (1,), Constant("c"), "add"),),
        (ValueType(top), ValueType(top)),
        {"c": np.asarray(0.5)},
    )
    inputs, slots = (spec(params, "x", top),), params.slots
    latency = Plan(
        "latency", slots, inputs, (spec(params, "y", top - 1),), (shift,), True, 0.1, 20.0
    )
    batch = Plan("batch", slots, inputs, (spec(params, "y", top),), (), False, 0.01, 20.0)
    signature = Signature("arithmetic", "1", params, (latency, batch), {"x": (1,)}, ("y",))
    return Artifact(signature, {"latency": square, "batch": add}, {})


def write_repository(root: Path, **models: Artifact) -> Path:
    """Save each model as version 1."""
    for name, model in models.items():
        save(model, root / name / "1")
    return root
