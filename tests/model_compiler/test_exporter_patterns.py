"""Convolutional patterns as exporters write them, imported and compared with ONNX's reference.

The graphs are written by hand after what PyTorch (script and dynamo), tf2onnx, Keras, CNTK, Paddle,
MXNet and onnxmltools export.
"""

from __future__ import annotations

import numpy as np
import pytest

from tacit.model_compiler.graph import Activation, Graph, Product
from tacit.model_compiler.onnx_import import import_onnx
from tests.model_compiler.exporter_blocks import BLOCKS
from tests.model_compiler.exporter_layers import LAYERS
from tests.model_compiler.exporter_parts import CONSTANTS, Pattern
from tests.model_compiler.onnx_models import build, random_rows, reference, run_imported

ROWS = 4
PATTERNS = {**LAYERS, **BLOCKS}


def _agree(pattern: Pattern) -> Graph:
    constants = {
        k: v for k, v in (CONSTANTS | dict(pattern.constants)).items() if k in pattern.text
    }
    rows: int | str = 1 if pattern.fixed else "N"
    model = build(pattern.text, {"X": pattern.shape}, constants, opset=pattern.opset, rows=rows)
    graph = import_onnx(model, name="pattern")
    feeds = random_rows({"X": pattern.shape}, ROWS)
    expected = reference(model, feeds, row_by_row=pattern.fixed)
    for got, wanted in zip(run_imported(graph, feeds), expected, strict=True):
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-6)
    return graph


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_means_what_the_reference_says(name: str) -> None:
    pattern = PATTERNS[name]
    graph = _agree(pattern)
    functions = tuple(node.function for node in graph.nodes if isinstance(node, Activation))
    if pattern.activations is not None:
        assert functions == pattern.activations
    assert sum(isinstance(node, Product) for node in graph.nodes) == pattern.products
