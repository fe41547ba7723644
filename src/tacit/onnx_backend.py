"""ONNX's backend interface (`onnx.backend.base`) on compiled, simulated circuits.

    import tacit.onnx_backend as backend
    rep = backend.prepare(model)
    outputs = rep.run([rows])

`run` compiles the model for the values it is given and runs the encrypted circuit's operations on
numbers in the clear. Axis 0 of the inputs counts rows, as everywhere in Tacit. Floating point
inputs are encrypted; where the model cannot be computed that way, all but the first become
constants, like the weights that ONNX's own tests pass as inputs. `encrypted` says which were not.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.backend.base import Backend, BackendRep

from tacit.errors import InputRangeError, ModelError, TacitError, UnsupportedModelError

Array = NDArray[Any]

ACCURACY = 2.0**-9
# How much more than the root mean square error any one row may be off.
WORST_ROW = 12.0


class SimulatedRep(BackendRep):
    """A model that is compiled for each set of inputs.

    Attributes:
        encrypted: names of the inputs that the last run treated as encrypted.
        approximated: whether the last run replaced a function by a polynomial.
    """

    def __init__(self, model: ModelProto, accuracy: float) -> None:
        self._model = model
        self._accuracy = accuracy
        self.encrypted: tuple[str, ...] = ()
        self.approximated = False

    def run(self, inputs: Any, **_kwargs: Any) -> tuple[Array, ...]:
        """Compile and run the circuit in the clear.

        Args:
            inputs: a list in the order of the model's inputs, a mapping, or one array.

        Raises:
            UnsupportedModelError: the model cannot be computed on encrypted values.
            TacitError: it cannot be compiled for another reason.
        """
        feeds = _named(self._model, inputs)
        problems: list[TacitError] = []
        for names in _choices(feeds):
            for bootstrap in ("never", "always"):
                try:
                    return self._run(feeds, names, bootstrap)
                except UnsupportedModelError as error:
                    problems.append(error)
                    break
                except TacitError as error:
                    problems.append(error)
        raise problems[0] if problems else UnsupportedModelError(["no input has rows of numbers"])

    def _run(
        self, feeds: Mapping[str, Array], names: tuple[str, ...], bootstrap: str
    ) -> tuple[Array, ...]:
        from tacit.model_compiler import CompileOptions, compile_model
        from tacit.runtime.simulate import simulate

        rows = {name: np.asarray(feeds[name], dtype=np.float64) for name in names}
        bound = _bound(self._model, {n: a for n, a in feeds.items() if n not in names}, names)
        options = CompileOptions(
            name="onnx",
            calibration=rows,
            accuracy=self._accuracy,
            keep_on_server=True,
            plans=("latency",),
            bootstrap=bootstrap,
        )
        with tempfile.TemporaryDirectory(prefix="tacit-onnx-") as folder:
            artifact = compile_model(bound, Path(folder), options=options)
        _refuse_inexact(artifact.report, self._accuracy)
        result = simulate(artifact, rows, clip=True)
        if result.overflows:
            raise InputRangeError("values outgrow the modulus: the inputs span too wide a range")
        found = result.outputs
        self.encrypted = names
        self.approximated = bool(artifact.report.get("activations"))
        return tuple(np.asarray(found[item.name]) for item in bound.graph.output)


class SimulatedBackend(Backend):
    """Runs ONNX models as Tacit would run them encrypted."""

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> SimulatedRep:
        """Check a model.

        Args:
            model: any model.
            device: CPU.
            kwargs: `accuracy`, the error that polynomials may cause, as a share of the range.
        """
        onnx.checker.check_model(model)
        return SimulatedRep(model, float(kwargs.get("accuracy", ACCURACY)))

    @classmethod
    def run_node(
        cls,
        node: NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[np.dtype[Any], tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Array, ...]:
        """Run one operator on a list of arrays."""
        arrays = [np.asarray(array) for array in inputs]
        version = int(kwargs.pop("opset_version", onnx.defs.onnx_opset_version()))
        return cls.prepare(_model_of(node, arrays, version), device, **kwargs).run(arrays)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Tell whether a device is the CPU."""
        return device == "CPU"


def _refuse_inexact(report: Mapping[str, Any], accuracy: float) -> None:
    """Refuse a model whose polynomials miss the accuracy asked for, rather than answer wrong."""
    facts = report["approximation"]
    error = facts["error_of_output_range"]
    if facts["warnings"] and (error is None or error > WORST_ROW * accuracy):
        raise ModelError(str(facts["warnings"][0]))


def _model_of(node: NodeProto, arrays: Sequence[Array], version: int) -> ModelProto:
    names = [name for name in node.input if name]
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in zip(names, arrays, strict=True)
    ]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in node.output if n]
    for item in outputs:
        item.type.tensor_type.shape.SetInParent()
    graph = helper.make_graph([node], "node", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(node.domain, version)])


def _named(model: ModelProto, inputs: Any) -> dict[str, Array]:
    if isinstance(inputs, Mapping):
        return {str(name): np.asarray(array) for name, array in inputs.items()}
    arrays = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
    stored = {tensor.name for tensor in model.graph.initializer}
    names = [item.name for item in model.graph.input if item.name not in stored]
    return {name: np.asarray(array) for name, array in zip(names, arrays, strict=False)}


def _choices(feeds: Mapping[str, Array]) -> list[tuple[str, ...]]:
    """Return which inputs to encrypt, in the order to try."""
    floats = [name for name, array in feeds.items() if array.dtype.kind == "f" and array.ndim]
    if not floats:  # numbers are numbers: the first input, whatever its type
        floats = [name for name, array in feeds.items() if array.dtype.kind in "iu"][:1]
    if not floats:
        return []
    alike = tuple(n for n in floats if len(feeds[n]) == len(feeds[floats[0]]))
    return list(dict.fromkeys([alike, *((name,) for name in floats)]))


def _bound(model: ModelProto, constants: Mapping[str, Array], names: Sequence[str]) -> ModelProto:
    """Copy a model with some inputs as initializers."""
    copy = ModelProto()
    copy.CopyFrom(model)
    kept = [item for item in copy.graph.input if item.name in names]
    for item in kept:
        item.type.tensor_type.elem_type = TensorProto.FLOAT
    del copy.graph.input[:]
    copy.graph.input.extend(kept)
    copy.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in constants.items()
    )
    return copy


is_compatible = SimulatedBackend.is_compatible
prepare = SimulatedBackend.prepare
run_model = SimulatedBackend.run_model
run_node = SimulatedBackend.run_node
supports_device = SimulatedBackend.supports_device
