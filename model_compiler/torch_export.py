"""From a PyTorch module to an artifact: export to ONNX, then `compile_model`. Extra: torch."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tacit.artifact import Artifact
from tacit.errors import InputShapeError, ModelError, ParameterError, UnusableEnvironmentError
from tacit.model_compiler.options import CompileOptions
from tacit.model_compiler.pipeline import Progress, compile_model

Module = Any  # torch.nn.Module, where torch is installed
Exporter = Literal["auto", "dynamo", "torchscript"]


def compile(
    module: Module,
    sample: Any,
    out_dir: str | Path,
    *,
    options: CompileOptions | None = None,
    exporter: Exporter = "auto",
    progress: Progress | None = None,
) -> Artifact:
    """Compile a PyTorch module to encrypted circuits and save both halves.

    The module is not changed; it is exported as it computes in eval mode.

    Args:
        module: takes tensors whose first axis counts rows.
        sample: the module's input, or a tuple of its inputs; tensors or arrays. Without
            `options.calibration` its rows calibrate the ranges, if there are at least two.
        out_dir: where the artifact goes.
        options: see `CompileOptions`; the name defaults to the class's.
        exporter: PyTorch's; "auto" takes dynamo where the package onnxscript is installed.
        progress: see `compile_model`.

    Raises:
        UnusableEnvironmentError: torch is not installed.
        ModelError: PyTorch cannot export the module, or what it writes is malformed.
        UnsupportedModelError, InputShapeError, ParameterError, ArtifactError: see `compile_model`.
    """
    torch = required_torch()
    tensors = _tensors(torch, sample)
    chosen = options or CompileOptions()
    if not chosen.name:
        chosen = replace(chosen, name=type(module).__name__.lower())
    rows = {f"input{i}": np.asarray(t.detach().cpu().numpy()) for i, t in enumerate(tensors)}
    if chosen.calibration is None and len(tensors[0]) > 1:
        chosen = replace(chosen, calibration=rows)
    model = _exported(torch, ready_to_export(module), tensors, exporter)
    return compile_model(model, out_dir, options=chosen, progress=progress)


def required_torch() -> Any:
    """Return the torch package.

    Raises:
        UnusableEnvironmentError: it is not installed.
    """
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise UnusableEnvironmentError(
            "PyTorch is not installed: pip install 'tacit[torch]', or export the module to ONNX "
            "elsewhere and use tacit compile"
        ) from error


def ready_to_export(module: Module) -> Module:
    """Return a copy in eval mode whose trained polynomials have constant coefficients."""
    from tacit.model_compiler.torch_polynomials import with_frozen_polynomials

    return with_frozen_polynomials(copy.deepcopy(module).eval().cpu())


def _tensors(torch: Any, sample: Any) -> tuple[Any, ...]:
    given: Sequence[Any] = sample if isinstance(sample, tuple | list) else (sample,)
    try:
        tensors = tuple(torch.as_tensor(_array_or_tensor(item)).detach().cpu() for item in given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputShapeError("the sample must be a tensor or a tuple of tensors") from error
    if not tensors or any(t.ndim < 1 or len(t) < 1 for t in tensors):
        raise InputShapeError("every sample tensor needs rows on its first axis, at least one")
    if len({len(t) for t in tensors}) != 1:
        raise InputShapeError(f"samples have different rows: {[len(t) for t in tensors]}")
    return tensors


def _array_or_tensor(item: Any) -> Any:
    if isinstance(item, np.ndarray) and item.dtype == np.float64:
        return item.astype(np.float32)
    return item


def _exported(torch: Any, module: Module, tensors: tuple[Any, ...], exporter: Exporter) -> bytes:
    names = [f"input{i}" for i in range(len(tensors))]
    two = tuple(torch.cat([t[:1], t[:1]]) for t in tensors)  # an axis of length 1 is made fixed
    dynamo = exporter == "dynamo"
    if exporter == "auto":
        dynamo = importlib.util.find_spec("onnxscript") is not None
    elif exporter not in ("dynamo", "torchscript"):
        raise ParameterError(f"exporter must be auto, dynamo or torchscript, got {exporter!r}")
    quiet, before = logging.getLogger("torch.onnx"), logging.getLogger("torch.onnx").level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            export = _by_dynamo if dynamo else _by_script
            return export(torch, module, two, names)
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(
            f"PyTorch cannot export {type(module).__name__}: {reason[:300]}: see that forward "
            "takes tensors with rows on axis 0 and has no control flow that depends on values"
        ) from error
    finally:
        quiet.setLevel(before)


def _by_dynamo(torch: Any, module: Module, tensors: tuple[Any, ...], names: list[str]) -> bytes:
    rows = torch.export.Dim("rows")
    program = torch.onnx.export(
        module,
        tensors,
        dynamo=True,
        verbose=False,
        input_names=names,
        dynamic_shapes=tuple({0: rows} for _ in tensors),
    )
    return bytes(program.model_proto.SerializeToString())


def _by_script(torch: Any, module: Module, tensors: tuple[Any, ...], names: list[str]) -> bytes:
    buffer = io.BytesIO()
    torch.onnx.export(
        module,
        tensors,
        buffer,
        dynamo=False,
        input_names=names,
        dynamic_axes={name: {0: "rows"} for name in names},
    )
    return buffer.getvalue()
