"""Mutants of good models: bytes and fields changed at random, each from a seed of its own."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import onnx
from onnx import AttributeProto

from tests.model_compiler.evil_parts import ints
from tests.model_compiler.onnx_models import build

Generator = np.random.Generator
SMALL = (0, 1, 2, 3, -1, -2)
NUMBERS = (5, 7, 127, 1 << 31, -(1 << 31), 1 << 40, (1 << 63) - 1, -(1 << 63))
FLOATS = (0.0, -1.0, 0.5, 2.0, 1e30, -1e30, 3e38, float("nan"), float("inf"), 1e-30)
TEXTS = ("", "NOTSET", "SAME_UPPER", "VALID", "edge", "reflect", "linear", "\x00", "X", "Y", "W")


@lru_cache(maxsize=1)
def models() -> tuple[onnx.ModelProto, ...]:
    """Return the good models: dense, convolutional, trees, shape arithmetic, exporters' habits."""
    draw = np.random.default_rng(0).normal
    dense = build(
        """
        S = ai.onnx.ml.Scaler<offset=[1.0], scale=[2.0]>(X)
        A = Gemm<transB=1>(S, W, B)
        R = Relu(A)
        T = Reshape(R, SHAPE)
        P = Transpose<perm=[0, 2, 1]>(T)
        F = Flatten(P)
        H = MatMul(F, W)
        Y = Softmax<axis=-1>(H)
        """,
        {"X": (4,)},
        {"W": draw(size=(4, 4)), "B": draw(size=4), "SHAPE": ints(-1, 2, 2)},
    )
    image = build(
        """
        P = Pad(X, PADS)
        C = Conv<kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 0, 0], group=1>(P, K, B)
        N = BatchNormalization<epsilon=0.001>(C, B, B, B, V)
        R = LeakyRelu<alpha=0.1>(N)
        M = MaxPool<kernel_shape=[2, 2], strides=[1, 1]>(R)
        A = AveragePool<kernel_shape=[2, 2], pads=[0, 1, 1, 0], count_include_pad=1>(M)
        G = GlobalAveragePool(A)
        F = Flatten(G)
        Y = Gemm(F, W)
        """,
        {"X": (2, 6, 6)},
        {
            "K": draw(size=(4, 2, 3, 3)),
            "B": draw(size=4),
            "V": np.abs(draw(size=4)) + 0.1,
            "W": draw(size=(4, 3)),
            "PADS": ints(0, 0, 1, 1, 0, 0, 1, 1),
        },
    )
    shapes = build(
        """
        S = Shape(X)
        N = Gather<axis=0>(S, ZERO)
        U = Unsqueeze(N, ZERO1)
        M = Constant<value_ints=[-1]>()
        T = Concat<axis=0>(U, M)
        C = ConvTranspose<strides=[2, 2], output_padding=[1, 1]>(X, K)
        D = DepthToSpace<blocksize=2, mode="CRD">(C)
        E = Slice(D, STARTS, ENDS, AXES, STEPS)
        L = Split<axis=2, num_outputs=2>(E)
        F = Reshape(X, T)
        Z = Squeeze(F)
        G = Clip(F, LOW, HIGH)
        H = ReduceMean<keepdims=0>(E, AXES)
        I = Tile(H, ONES)
        O = Gemm(G, W)
        Y = Concat<axis=1>(O, I)
        """.replace("L = Split<axis=2, num_outputs=2>(E)\n", "").replace("Z = Squeeze(F)\n", ""),
        {"X": (4, 3, 3)},
        {
            "K": draw(size=(4, 4, 2, 2)),
            "ZERO": np.array(0, dtype=np.int64),
            "ZERO1": ints(0),
            "STARTS": ints(0, 1),
            "ENDS": ints(10, 9),
            "AXES": ints(2, 3),
            "STEPS": ints(2, 3),
            "LOW": np.array(-1.0),
            "HIGH": np.array(1.0),
            "W": draw(size=(36, 3)),
            "ONES": ints(1, 2),
        },
        opset=18,
    )
    trees = build(
        """
        A = ai.onnx.ml.TreeEnsembleRegressor<n_targets=1, nodes_treeids=[0, 0, 0, 0, 0],
        nodes_nodeids=[0, 1, 2, 3, 4], nodes_featureids=[1, 0, 2, 0, 0],
        nodes_values=[0.5, 0.0, -0.25, 0.0, 0.0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_truenodeids=[1, 0, 3, 0, 0], nodes_falsenodeids=[2, 0, 4, 0, 0],
        target_treeids=[0, 0, 0], target_nodeids=[1, 3, 4], target_ids=[0, 0, 0],
        target_weights=[1.0, 2.0, -3.0]>(X)
        B = ai.onnx.ml.LinearRegressor<coefficients=[1.0, 2.0, 3.0, 4.0], intercepts=[0.5]>(X)
        Y = Add(A, B)
        """.replace(",\n", ", "),
        {"X": (4,)},
    )
    return dense, image, shapes, trees


def mutant(seed: int) -> bytes:
    """Return the mutant of that seed: a quarter have changed bytes, the others changed fields."""
    generator = np.random.default_rng(seed)
    chosen = models()[int(generator.integers(len(models())))]
    if seed % 4 == 0:
        return _changed_bytes(chosen.SerializeToString(), generator)
    model = onnx.ModelProto()
    model.CopyFrom(chosen)
    for _ in range(int(generator.integers(1, 3))):
        _change_field(model, generator)
    data: bytes = model.SerializeToString()
    return data


def _changed_bytes(whole: bytes, generator: Generator) -> bytes:
    data = bytearray(whole) or bytearray(1)
    for _ in range(int(generator.integers(1, 5))):
        data = data or bytearray(1)
        at = int(generator.integers(len(data)))
        length = int(generator.integers(1, 12))
        match generator.integers(5):
            case 0:
                data[at] = int(generator.integers(256))
            case 1:
                data[at] ^= 1 << int(generator.integers(8))
            case 2:
                del data[at : at + length]
            case 3:
                data[at:at] = data[at : at + length]
            case 4:
                other = int(generator.integers(len(data)))
                data[at : at + length] = data[other : other + length]
    if generator.random() < 0.05:
        del data[int(generator.integers(len(data))) :]
    return bytes(data)


def _change_field(model: onnx.ModelProto, generator: Generator) -> None:
    graph = model.graph
    node = graph.node[int(generator.integers(len(graph.node)))]
    match int(generator.integers(9)):
        case 0 | 1 | 2 if node.attribute:
            _change_attribute(
                node.attribute[int(generator.integers(len(node.attribute)))], generator
            )
        case 3 if node.input:
            other = graph.node[int(generator.integers(len(graph.node)))]
            names = [*other.input, *other.output, ""]
            node.input[int(generator.integers(len(node.input)))] = names[
                int(generator.integers(len(names)))
            ]
        case 4 if node.input:
            del node.input[int(generator.integers(len(node.input)))]
        case 5 if graph.initializer:
            _change_tensor(
                graph.initializer[int(generator.integers(len(graph.initializer)))], generator
            )
        case 6:
            dims = graph.input[0].type.tensor_type.shape.dim
            dims[int(generator.integers(len(dims)))].dim_value = _drawn(generator)
        case 7:
            ops = [other.op_type for other in graph.node] + ["Identity", "Relu", "Sum", "Neg"]
            node.op_type = ops[int(generator.integers(len(ops)))]
        case 8:
            model.opset_import[0].version = int(generator.integers(14, 22))
        case _:
            graph.node.remove(node)


def _change_attribute(item: AttributeProto, generator: Generator) -> None:
    if item.type == AttributeProto.INT:
        item.i = _drawn(generator)
    elif item.type == AttributeProto.FLOAT:
        item.f = FLOATS[int(generator.integers(len(FLOATS)))]
    elif item.type == AttributeProto.STRING:
        item.s = TEXTS[int(generator.integers(len(TEXTS)))].encode()
    elif item.type == AttributeProto.INTS and item.ints:
        at = int(generator.integers(len(item.ints)))
        if generator.random() < 0.3:
            del item.ints[at]
        else:
            item.ints[at] = _drawn(generator)
    elif item.type == AttributeProto.FLOATS and item.floats:
        at = int(generator.integers(len(item.floats)))
        item.floats[at] = FLOATS[int(generator.integers(len(FLOATS)))]
    elif item.type == AttributeProto.STRINGS and item.strings:
        at = int(generator.integers(len(item.strings)))
        item.strings[at] = TEXTS[int(generator.integers(len(TEXTS)))].encode()


def _change_tensor(tensor: onnx.TensorProto, generator: Generator) -> None:
    match int(generator.integers(4)):
        case 0 if tensor.dims:
            tensor.dims[int(generator.integers(len(tensor.dims)))] = _drawn(generator)
        case 1:
            tensor.data_type = int(generator.integers(0, 24))
        case 2 if len(tensor.raw_data) >= 8 and tensor.data_type == onnx.TensorProto.INT64:
            numbers = np.frombuffer(tensor.raw_data, dtype=np.int64).copy()
            numbers[int(generator.integers(numbers.size))] = _drawn(generator)
            tensor.raw_data = numbers.tobytes()
        case _:
            tensor.raw_data = _changed_bytes(tensor.raw_data + b"\0", generator)


def _drawn(generator: Generator) -> int:
    numbers = SMALL if generator.random() < 0.7 else NUMBERS
    return numbers[int(generator.integers(len(numbers)))]
