"""ONNX's own shape inference, in a child process.

It is native code that aborts or takes gigabytes on some malformed models, and it is needed only to
go on behind an unsupported node, so that one error can list all problems.
"""

from __future__ import annotations

import json
import subprocess
import sys

import onnx

from tacit.model_compiler.onnx_ops.loading import LoadedModel

TIMEOUT_SECONDS = 30
MEMORY_BYTES = 8 << 30
LARGEST_SHAPE_TENSOR = 64

CHILD = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]), int(sys.argv[1])))
import onnx
model = onnx.load_model_from_string(sys.stdin.buffer.read())
graph = onnx.shape_inference.infer_shapes(model, strict_mode=False, data_prop=True).graph
shapes = {
    item.name: [axis.dim_value for axis in item.type.tensor_type.shape.dim]
    for item in (*graph.value_info, *graph.output)
}
json.dump(shapes, sys.stdout)
"""


def infer_row_shapes(model: LoadedModel) -> dict[str, tuple[int, ...]]:
    """Find the per-row shapes ONNX can infer; empty if its inference fails.

    Returns:
        Tensor name -> shape without the row axis, for tensors whose other axes are all known.
    """
    try:
        child = subprocess.run(
            [sys.executable, "-c", CHILD, str(MEMORY_BYTES)],
            input=_without_weights(model.proto),
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            check=True,
            env={"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": ":".join(filter(None, sys.path))},
        )
        found = json.loads(child.stdout)
    except (subprocess.SubprocessError, OSError, ValueError):
        return {}
    return {
        name: tuple(lengths[1:])
        for name, lengths in found.items()
        if lengths and all(length > 0 for length in lengths[1:])
    }


def _without_weights(model: onnx.ModelProto) -> bytes:
    """Serialise the model with the numbers of large tensors left out; their shapes stay."""
    light = onnx.ModelProto()
    light.CopyFrom(model)
    for tensor in light.graph.initializer:
        integers = tensor.data_type in (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
        if not integers or len(tensor.raw_data) > 8 * LARGEST_SHAPE_TENSOR:
            for field in ("raw_data", "float_data", "double_data", "int32_data", "string_data"):
                tensor.ClearField(field)
    return bytes(light.SerializeToString())
