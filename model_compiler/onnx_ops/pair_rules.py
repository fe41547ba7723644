"""What the client makes of a machine's decisions between pairs of classes.

The pairs are (i, j) with i < j in lexicographic order; a positive decision is one for class i.
"""

from __future__ import annotations

import itertools

import numpy as np

from tacit.clear_steps import ClearStep
from tacit.model_compiler.onnx_ops.call import Call

SMALLEST = 1e-7  # of a pair's probability, as libsvm has it


def pair_votes(call: Call) -> list[ClearStep]:
    """Index of the class that wins most pairs, the first of equals."""
    classes = call.integer("classes", 2)
    pairs = list(itertools.combinations(range(classes), 2))
    table = [
        [place + (pair[0] != own) * len(pairs) for place, pair in enumerate(pairs) if own in pair]
        for own in range(classes)
    ]  # among (won, lost), a class's own results
    output, lost = call.output, f"{call.output}/lost"
    index: dict[str, object] = {"axis": 1, "keepdims": False, "last": False}
    return [
        ClearStep("greater", (call.value(0).tensor,), (output,), {"right": np.array(0.0)}),
        ClearStep("not", (output,), (lost,)),
        ClearStep("concat", (output, lost), (output,), {"axis": 1}),
        ClearStep("select", (output,), (output,), {"axis": 1, "indices": np.array(table)}),
        ClearStep("sum", (output,), (output,), {"axes": (2,), "keepdims": False}),
        ClearStep("argmax", (output,), (output,), index),
    ]


def couple_pairs(call: Call) -> list[ClearStep]:
    """Probabilities of the classes from Platt's of the pairs, 1 / (1 + exp(scale d + shift))."""
    scale, shift = np.array(call.numbers("scale")), np.array(call.numbers("shift"))
    name = (call.output,)
    return [
        ClearStep("multiply", (call.value(0).tensor,), name, {"right": -scale}),
        ClearStep("subtract", name, name, {"right": shift}),
        ClearStep("sigmoid", name, name),
        ClearStep("clip", name, name, {"low": SMALLEST, "high": 1.0 - SMALLEST}),
        ClearStep("couple_pairs", name, name),
    ]
