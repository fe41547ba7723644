"""Which function translates which operator, and what to suggest for the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from tacit.model_compiler.onnx_ops import (
    activations,
    arithmetic,
    contractions,
    convolution,
    layout,
    linear,
    ml,
    normalisations,
    piecewise,
    pooling,
    pooling_max,
    rearrange,
    resize,
    trees,
    vector_machine,
)
from tacit.model_compiler.onnx_ops.builder import Value
from tacit.model_compiler.onnx_ops.call import Call
from tacit.model_compiler.onnx_ops.fused import ONNXRUNTIME
from tacit.model_compiler.onnx_ops.loading import OnnxNode

Rule = Callable[[Call], list[Value]]  # an empty list: cannot be computed
Key = tuple[str, str]
ML = "ai.onnx.ml"
QUANTISED = ("ConvInteger", "MatMulInteger", "QGemm", "QAttention", "MatMulNBits")


def core_rules() -> Mapping[Key, Rule]:
    """Return (domain, operator) -> function for everything computed on encrypted values."""
    rules: dict[Key, Rule] = {("", name): rule for name, rule in _standard_rules().items()}
    rules[ML, "Scaler"] = ml.scaler
    rules[ML, "LinearRegressor"] = ml.linear_regressor
    rules[ML, "LinearClassifier"] = ml.unexpanded_classifier
    rules[ML, "ArrayFeatureExtractor"] = ml.array_feature_extractor
    rules[ML, "SVMRegressor"] = vector_machine.regressor
    rules[ML, "SVMClassifier"] = vector_machine.unexpanded_classifier
    rules["tacit", "MachineScores"] = vector_machine.two_class_scores
    rules["tacit", "PairScores"] = vector_machine.pair_scores
    rules[ML, "TreeEnsembleRegressor"] = trees.regressor
    rules[ML, "TreeEnsembleClassifier"] = trees.unexpanded_classifier
    rules["tacit", "TreeScores"] = trees.class_scores
    rules["tacit", "GatherColumns"] = layout.gather_columns
    rules["tacit", "GatherPoints"] = layout.gather_points
    rules["tacit", "LinearScores"] = ml.linear_scores
    return MappingProxyType(rules)


def _standard_rules() -> dict[str, Rule]:
    return {
        "Add": arithmetic.add,
        "Sub": arithmetic.subtract,
        "Mul": _multiply,
        "Div": _divide,
        "Reciprocal": piecewise.quotient,
        "Log": piecewise.logarithm,
        "Greater": piecewise.compare,
        "GreaterOrEqual": piecewise.compare,
        "Less": piecewise.compare,
        "LessOrEqual": piecewise.compare,
        "Not": piecewise.invert,
        "And": piecewise.connect,
        "Or": piecewise.connect,
        "Xor": piecewise.connect,
        "Where": piecewise.where,
        "Neg": arithmetic.negate,
        "Pow": arithmetic.power,
        "Sum": arithmetic.sum_of_many,
        "Mean": arithmetic.mean_of_many,
        "Max": arithmetic.maximum,
        "Min": arithmetic.minimum,
        "Gemm": linear.gemm,
        "MatMul": linear.matmul,
        "Conv": convolution.convolution,
        "ConvTranspose": convolution.transposed_convolution,
        "AveragePool": pooling.average_pool,
        "Resize": resize.resize,
        "Upsample": resize.upsample,
        "DepthToSpace": rearrange.depth_to_space,
        "SpaceToDepth": rearrange.space_to_depth,
        "CenterCropPad": rearrange.center_crop_pad,
        "CumSum": rearrange.prefix_sum,
        "Trilu": rearrange.triangle,
        "Einsum": contractions.einsum,
        "GlobalAveragePool": contractions.global_average_pool,
        "BatchNormalization": linear.batch_normalization,
        "ReduceSum": linear.reduce_sum,
        "ReduceMean": linear.reduce_mean,
        "Identity": layout.identity,
        "Dropout": layout.dropout,
        "Cast": layout.cast,
        "Flatten": layout.flatten,
        "Reshape": layout.reshape,
        "Squeeze": layout.squeeze,
        "Unsqueeze": layout.unsqueeze,
        "Transpose": layout.transpose,
        "Concat": layout.concat,
        "Split": layout.split,
        "Slice": layout.slice_,
        "Gather": layout.gather,
        "Expand": layout.expand,
        "Tile": layout.tile,
        "Pad": layout.pad,
        **activations.activation_rules(),
        **normalisations.normalisation_rules(),
        **pooling_max.pooling_rules(),
    }


def _multiply(call: Call) -> list[Value]:
    return arithmetic.multiply(call) or piecewise.masked_product(call)


def _divide(call: Call) -> list[Value]:
    return piecewise.quotient(call) if call.is_value(1) else arithmetic.divide(call)


def why_unsupported(node: OnnxNode, *, at_client: bool) -> str:
    """Say why a node without a rule cannot be compiled and what to use instead.

    Args:
        node: the node.
        at_client: whether the client could run it if it were first or last in the model.
    """
    if at_client:
        return (
            "cannot be computed on encrypted values; it is supported only as one of the first or "
            f"last steps, which the client runs in the clear. {_suggestion(node)}"
        )
    return f"is not supported. {_suggestion(node)}"


def _suggestion(node: OnnxNode) -> str:
    if is_quantised(node):
        return "Export the model in floating point, before quantisation"
    if node.domain.startswith(ONNXRUNTIME):
        return "onnxruntime's optimiser wrote it: compile the file that was optimised"
    return _suggestion_for(node.op)


def is_quantised(node: OnnxNode) -> bool:
    """Tell whether a node belongs to a quantised model."""
    name = node.op.lower()
    return "quantize" in name or "qlinear" in name or node.op in QUANTISED


def _suggestion_for(op: str) -> str:
    match op:
        case "Div":
            return "Divide by a constant, or let the division be the last step"
        case "LpPool" | "GlobalLpPool":
            return "Use AveragePool or MaxPool"
        case "Hardmax":
            return "Inside the network use Softmax"
        case "LpNormalization" | "Normalizer" | "LRN":
            return "Use BatchNormalization, or normalise the input before the model"
        case "Sin" | "Cos" | "Tan" | "Floor" | "Ceil" | "Round":
            return "Use a polynomial (Mul, Add, Pow) or a supported activation"
        case "ArgMax" | "ArgMin" | "TopK" | "Equal":
            return "Return the scores and compare them behind the model"
        case "ReduceProd":
            return "Use ReduceMean or ReduceSum"
        case "LSTM" | "GRU" | "RNN" | "Attention" | "MultiHeadAttention":
            return "Use dense layers on a fixed window of the input"
        case "TreeEnsemble":
            return "Export with an ai.onnx.ml opset below 5: TreeEnsembleClassifier or -Regressor"
        case "OneHotEncoder" | "OneHot" | "Binarizer" | "Imputer" | "DictVectorizer":
            return "Encode and complete the features before the model"
    return "Replace it by supported operators, or drop it before export"
