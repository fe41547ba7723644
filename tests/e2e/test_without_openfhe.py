"""The compiler, the clear backend and the simulation need no openfhe."""

import subprocess
import sys
from pathlib import Path

from tacit.model_compiler import CompileOptions

PROGRAM = """
import sys
sys.modules["openfhe"] = None  # any import of it now fails
from pathlib import Path
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from tacit.artifact import load
from tacit.model_compiler import CompileOptions, compile_model
from tacit.runtime.simulate import simulate

folder = Path(sys.argv[1])
rng = np.random.default_rng(3)
weights = [rng.normal(0, 0.4, size=s).astype(np.float32) for s in ((6, 5), (5,), (5, 2), (2,))]
names = ("w1", "b1", "w2", "b2")
tensors = [numpy_helper.from_array(w, n) for w, n in zip(weights, names)]
nodes = [
    helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
    helper.make_node("Tanh", ["h"], ["t"]),
    helper.make_node("Gemm", ["t", "w2", "b2"], ["y"]),
]
rows = rng.normal(size=(200, 6)).astype(np.float32)
x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 6])
y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])
graph = helper.make_graph(nodes, "net", [x], [y], tensors)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.save(model, folder / "net.onnx")
compile_model(folder / "net.onnx", folder / "out", options=CompileOptions(calibration=rows))
answers = simulate(load(folder / "out"), {"x": rows}).outputs["y"]
expected = np.concatenate(
    [ReferenceEvaluator(model).run(None, {"x": rows[i : i + 1]})[0] for i in range(len(rows))]
)
spread = expected.max() - expected.min()
worst = np.abs(answers - expected).max(axis=1) / spread
print(float(np.sqrt(np.mean(worst**2))))
"""


def test_compiling_and_simulating_work_where_openfhe_cannot_be_imported(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < CompileOptions().accuracy
