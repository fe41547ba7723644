"""The nodes that stand for one node of the file after it is split or rewritten."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from tacit.model_compiler.onnx_ops.call import Constant
from tacit.model_compiler.onnx_ops.loading import OnnxNode


def part(
    node: OnnxNode,
    op: str,
    inputs: tuple[str, ...],
    output: str,
    attributes: Mapping[str, object] | None = None,
    domain: str = "",
) -> OnnxNode:
    """Return a node with the same name that computes one tensor."""
    return dataclasses.replace(
        node,
        op=op,
        domain=domain,
        inputs=inputs,
        outputs=(output,),
        attributes=attributes or {},
        version=13,
        proto=None,
    )


def constant_part(node: OnnxNode, output: str, value: Constant) -> OnnxNode:
    """Return a node that holds a constant."""
    return part(node, "Constant", (), output, {"value": value})
