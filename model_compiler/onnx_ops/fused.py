"""Operators of onnxruntime's own that its optimiser fuses from standard ones, taken apart again."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from tacit.model_compiler.onnx_ops.loading import OnnxNode
from tacit.model_compiler.onnx_ops.parts import constant_part, part

ONNXRUNTIME = "com.microsoft"
# What each activation calls the numbers that a fused operator lists.
_PARAMETERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "Relu": (),
        "Sigmoid": (),
        "Tanh": (),
        "Softplus": (),
        "LeakyRelu": ("alpha",),
        "HardSigmoid": ("alpha", "beta"),
        "Elu": ("alpha",),
        "Clip": ("min", "max"),
    }
)


def fused_rules() -> Mapping[tuple[str, str], Callable[[OnnxNode], list[OnnxNode]]]:
    """Return (domain, operator) -> function that writes it by standard operators."""
    rules: dict[str, Callable[[OnnxNode], list[OnnxNode]]] = {
        "FusedConv": _convolution,
        "FusedGemm": _gemm,
        "FusedMatMul": _product,
        "Gelu": lambda node: [part(node, "Gelu", node.inputs, node.outputs[0])],
        "BiasGelu": lambda node: _biased_gelu(node, "none"),
        "FastGelu": lambda node: _biased_gelu(node, "tanh"),
        "QuickGelu": _quick_gelu,
        "SkipLayerNormalization": _skip_normalization,
    }
    return MappingProxyType({(ONNXRUNTIME, name): rule for name, rule in rules.items()})


def _convolution(node: OnnxNode) -> list[OnnxNode]:
    """activation(convolution + a fourth operand)."""
    attributes = _without(node, ("activation", "activation_params"))
    listed = node.attributes.get("activation_params", ())
    made = _activated(node, listed if isinstance(listed, tuple) else ())
    if made is None:
        return [node]
    before, activation = made
    output, added = before, node.inputs[3:] if len(node.inputs) > 3 and node.inputs[3] else ()
    if added:
        output = f"{node.outputs[0]}/convolved"
    parts = [part(node, "Conv", node.inputs[:3], output, attributes)]
    if added:
        parts.append(part(node, "Add", (output, *added), before))
    return parts + activation


def _gemm(node: OnnxNode) -> list[OnnxNode]:
    keys = ("activation_alpha", "activation_beta", "activation_gamma")
    given = tuple(node.attributes[key] for key in keys if key in node.attributes)
    made = _activated(node, given)
    if made is None:
        return [node]
    before, activation = made
    attributes = _without(node, ("activation", *keys))
    return [part(node, "Gemm", node.inputs, before, attributes), *activation]


def _activated(node: OnnxNode, numbers: Sequence[object]) -> tuple[str, list[OnnxNode]] | None:
    """Return what the activation reads, and its node; None if it is not one of ours."""
    activation, output = str(node.attributes.get("activation", "")), node.outputs[0]
    if not activation:
        return output, []
    keys = _PARAMETERS.get(activation)
    if keys is None or len(numbers) > len(keys):
        return None
    before = f"{output}/before"
    attributes = dict(zip(keys, numbers, strict=False))
    made = part(node, activation, (before,), output, attributes)
    return before, [made]


def _product(node: OnnxNode) -> list[OnnxNode]:
    """alpha times the product; transposed operands are left to the message."""
    if any(node.attributes.get(key) for key in ("transA", "transB", "transBatchA", "transBatchB")):
        return [node]
    output = node.outputs[0]
    plain, factor = f"{output}/plain", f"{output}/factor"
    alpha = np.asarray(node.attributes.get("alpha", 1.0), dtype=np.float32)
    return [
        part(node, "MatMul", node.inputs, plain),
        constant_part(node, factor, alpha),
        part(node, "Mul", (plain, factor), output),
    ]


def _biased_gelu(node: OnnxNode, approximate: str) -> list[OnnxNode]:
    attributes = {"approximate": approximate}
    if len(node.inputs) < 2 or not node.inputs[1]:
        return [part(node, "Gelu", node.inputs[:1], node.outputs[0], attributes)]
    moved = f"{node.outputs[0]}/moved"
    return [
        part(node, "Add", node.inputs, moved),
        part(node, "Gelu", (moved,), node.outputs[0], attributes),
    ]


def _quick_gelu(node: OnnxNode) -> list[OnnxNode]:
    """x sigmoid(alpha x)."""
    attributes = {"alpha": node.attributes.get("alpha", 1.702)}
    return [part(node, "Swish", node.inputs, node.outputs[0], attributes)]


def _skip_normalization(node: OnnxNode) -> list[OnnxNode]:
    """Normalise the sum of two tensors, and of a bias; the fourth output is the sum."""
    x, skip, gamma, beta, bias = (*node.inputs, "", "")[:5]
    output, _, _, total = (*node.outputs, "", "", "")[:4]
    terms = [name for name in (x, skip, bias) if name]
    sums = [f"{output}/sum{place}" for place in range(len(terms) - 2)] + [total or f"{output}/sum"]
    left = itertools.chain(terms[:1], sums)
    added = zip(left, terms[1:], sums, strict=False)
    inputs = (sums[-1], gamma, beta) if beta else (sums[-1], gamma)
    attributes = {"axis": -1, "epsilon": node.attributes.get("epsilon", 1e-12)}
    return [
        *(part(node, "Add", (one, other), made) for one, other, made in added),
        part(node, "LayerNormalization", inputs, output, attributes),
    ]


def _without(node: OnnxNode, keys: Sequence[str]) -> dict[str, object]:
    return {key: value for key, value in node.attributes.items() if key not in keys}
