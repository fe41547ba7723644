"""ONNX -> Artifact."""

from tacit.model_compiler.options import CompileOptions
from tacit.model_compiler.pipeline import compile_model

__all__ = ["CompileOptions", "compile_model"]
