"""Patterns of single layers: normalisation, padding, pooling, flattening, activations."""

from __future__ import annotations

import numpy as np

from tests.model_compiler.exporter_parts import CONV, HEAD, POOLED, C, Pattern, f, i, w

LAYERS: dict[str, Pattern] = {
    "torch_script_batch_norm_not_folded": Pattern(
        CONV + "N = BatchNormalization<epsilon=0.00001, momentum=0.9>(A, gamma, beta, mean, var)\n"
        "R = Relu(N)\n" + POOLED, activations=("relu",),
    ),
    "torch_script_batch_norm_with_training_mode_0": Pattern(
        CONV + "N = BatchNormalization<epsilon=0.001, training_mode=0>(A, gamma, beta, mean, var)\n"
        "R = Relu(N)\n" + POOLED, activations=("relu",),
    ),
    "batch_norm_written_out": Pattern(
        CONV + "e = Constant<value_float=0.001>()\nv = Add(var, e)\nd = Sqrt(v)\n"
        "s = Div(gamma, d)\nt = Mul(mean, s)\nu = Sub(beta, t)\na = Constant<value_ints=[1, 2]>()\n"
        "s3 = Unsqueeze(s, a)\nu3 = Unsqueeze(u, a)\nM = Mul(A, s3)\nN = Add(M, u3)\nR = Relu(N)\n"
        + POOLED, activations=("relu",),
    ),
    "batch_norm_before_the_first_convolution": Pattern(
        "N = BatchNormalization(X, gamma, beta, mean, var)\nA = Conv<pads=[1, 1, 1, 1]>(N, k3)\n"
        "R = Relu(A)\n" + POOLED, activations=("relu",),
    ),
    "batch_norm_on_features": Pattern(
        "H = Gemm(X, fc4)\nN = BatchNormalization(H, gamma, beta, mean, var)\nR = Relu(N)\n"
        "Y = Gemm(R, fc, fcb)", {"fc4": w(6, C)}, shape=(6,), activations=("relu",),
    ),
    "batch_norm_1d_through_unsqueeze": Pattern(
        "H = Gemm(X, fc4)\nU = Unsqueeze(H, a2)\n"
        "N = BatchNormalization(U, gamma, beta, mean, var)\n"
        "Q = Squeeze(N, a2)\nR = Relu(Q)\nY = Gemm(R, fc, fcb)", {"fc4": w(6, C), "a2": i(2)},
        shape=(6,), activations=("relu",),
    ),
    "pad_before_a_convolution": Pattern(
        "P = Pad(X, pads, zero)\nA = Conv<kernel_shape=[3, 3], strides=[2, 2]>(P, k3, bias)\n"
        "R = Relu(A)\n" + POOLED, {"pads": i(0, 0, 1, 1, 0, 0, 1, 1)}, activations=("relu",),
    ),
    "uneven_pad_of_keras": Pattern(
        "P = Pad(X, pads)\nA = Conv<kernel_shape=[3, 3], strides=[2, 2]>(P, k3, bias)\n"
        "R = Relu(A)\n"
        + POOLED, {"pads": i(0, 0, 0, 0, 0, 0, 1, 1)},
    ),
    "same_upper_of_tensorflow": Pattern(
        'A = Conv<auto_pad="SAME_UPPER", kernel_shape=[3, 3], strides=[2, 2]>(X, k3, bias)\n'
        "R = Relu(A)\n" + POOLED,
    ),
    "same_lower_of_cntk": Pattern(
        'A = Conv<auto_pad="SAME_LOWER", dilations=[1, 1], group=1, strides=[1, 1]>(X, k3)\n'
        "B = Add(A, b3)\nR = Relu(B)\n"
        'M = MaxPool<auto_pad="NOTSET", kernel_shape=[2, 2], pads=[0, 0, 0, 0],'
        "strides=[2, 2]>(R)\n"
        "Q = Reshape(M, shape)\nD = MatMul(Q, D2)\nY = Add(D, b2)",
        {"b3": w(C, 1, 1), "shape": i(1, C * 9), "D2": w(C * 9, 5), "b2": w(1, 5)}, fixed=True,
    ),
    "cntk_weights_reshaped": Pattern(
        "A = Conv<pads=[1, 1, 1, 1]>(X, k3)\nR = Relu(A)\n"
        "M = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(R)\n"
        "Q = Reshape(M, shape)\nV = Reshape(W4, wshape)\nD = MatMul(Q, V)\nY = Add(D, b2)",
        {"shape": i(1, C * 9), "W4": w(C, 3, 3, 5), "wshape": i(C * 9, 5), "b2": w(1, 5)},
        fixed=True,
    ),
    "cntk_divides_the_input": Pattern(
        "D = Div(X, c255)\nA = Conv<pads=[1, 1, 1, 1]>(D, k3)\nR = Relu(A)\n" + POOLED,
        {"c255": f(255.0)}, fixed=True,
    ),
    "global_average_by_reduce_mean": Pattern(
        CONV + "R = Relu(A)\nG = ReduceMean<axes=[2, 3], keepdims=1>(R)\nQ = Flatten(G)" + HEAD,
    ),
    "global_average_without_keepdims": Pattern(
        CONV + "R = Relu(A)\nQ = ReduceMean<axes=[2, 3], keepdims=0>(R)" + HEAD,
    ),
    "global_average_by_negative_axes": Pattern(
        CONV + "R = Relu(A)\nG = ReduceMean(R, axes)\nQ = Flatten(G)" + HEAD,
        {"axes": i(-1, -2)}, opset=18,
    ),
    "adaptive_average_pool": Pattern(
        CONV + "R = Relu(A)\nG = AveragePool<kernel_shape=[6, 6], strides=[6, 6]>(R)\n"
        "Q = Flatten<axis=1>(G)" + HEAD,
    ),
    "average_pool_over_the_image_and_squeeze": Pattern(
        CONV + "R = Relu(A)\nG = GlobalAveragePool(R)\nT = Squeeze(G, a3)\n"
        "Q = Squeeze(T, a2)" + HEAD,
        {"a3": i(3), "a2": i(2)},
    ),
    "squeeze_without_axes": Pattern(
        CONV + "R = Relu(A)\nG = GlobalAveragePool(R)\nQ = Squeeze(G)" + HEAD,
    ),
    "squeeze_by_attribute": Pattern(
        CONV + "R = Relu(A)\nG = GlobalAveragePool(R)\n"
        "Q = Squeeze<axes=[2, 3]>(G)" + HEAD, opset=11,
    ),
    "flatten_by_shape_gather_concat": Pattern(
        CONV + "R = Relu(A)\nM = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(R)\n"
        "s = Shape(M)\nn = Gather<axis=0>(s, i0)\nu = Unsqueeze(n, a0)\n"
        "m = Constant<value_ints=[-1]>()\nt = Concat<axis=0>(u, m)\nQ = Reshape(M, t)\n"
        "Y = Gemm(Q, flat, fcb)", {"i0": np.array(0, dtype=np.int64), "a0": i(0)},
    ),
    "flatten_by_product_of_the_shape": Pattern(
        CONV + "R = Relu(A)\nM = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(R)\n"
        "s = Shape(M)\na = Slice(s, i0, i1)\nb = Slice(s, i1, i4)\np = ReduceProd<keepdims=1>(b)\n"
        "t = Concat<axis=0>(a, p)\nQ = Reshape(M, t)\nY = Gemm(Q, flat, fcb)",
        {"i0": i(0), "i1": i(1), "i4": i(4)},
    ),
    "flatten_by_casts_of_tf2onnx": Pattern(
        CONV + "R = Relu(A)\nM = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(R)\n"
        "s = Shape(M)\nc = Cast<to=6>(s)\na = Slice(c, i0, i1)\nm = Constant<value_ints=[36]>()\n"
        "d = Cast<to=6>(m)\nt = Concat<axis=0>(a, d)\nl = Cast<to=7>(t)\nQ = Reshape(M, l)\n"
        "Y = Gemm(Q, flat, fcb)", {"i0": i(0), "i1": i(1)},
    ),
    "flatten_by_dynamo_sizes": Pattern(
        CONV + "R = Relu(A)\nM = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(R)\n"
        "s = Shape<start=0, end=1>(X)\nt = Concat<axis=0>(s, m)\n"
        "Q = Reshape<allowzero=1>(M, t)\nY = Gemm(Q, flat, fcb)", {"m": i(36)}, opset=18,
    ),
    "reshape_copies_the_rows_by_0": Pattern(
        CONV + "R = Relu(A)\nM = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(R)\n"
        "Q = Reshape(M, t)\nY = Gemm(Q, flat, fcb)", {"t": i(0, -1)},
    ),
    "mxnet_reshape_codes_for_flatten": Pattern(
        CONV + "R = Relu(A)\nM = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(R)\n"
        "Q = Flatten(M)\nY = Gemm<alpha=1.0, beta=1.0, transA=0, transB=1>(Q, flatt, fcb)",
        {"flatt": w(3, C * 9)},
    ),
    "dropouts_and_identities": Pattern(
        CONV + "I = Identity(A)\nD = Dropout(I, ratio)\nJ = Identity(D)\nR = Relu(J)\n"
        "K = Identity(R)\n"
        "G = GlobalAveragePool(K)\nE = Dropout(G)\nQ = Flatten(E)" + HEAD,
        {"ratio": f(0.5).reshape(())},
    ),
    "identity_weights": Pattern(
        "kk = Identity(k3)\nbb = Identity(bias)\nA = Conv<pads=[1, 1, 1, 1]>(X, kk, bb)\n"
        "R = Relu(A)\n"
        + POOLED,
    ),
    "constants_as_nodes": Pattern(
        "c = Constant<value_float=0.5>()\nd = Constant<value_floats=[0.1, -0.2, 0.3, 0.4]>()\n"
        "a = Constant<value_ints=[1, 2]>()\ne = Unsqueeze(d, a)\n"
        "A = Conv<pads=[1, 1, 1, 1]>(X, k3)\n"
        "M = Mul(A, c)\nB = Add(M, e)\nR = Relu(B)\n" + POOLED,
    ),
    "bias_of_shape_c_1_1": Pattern(
        "A = Conv<pads=[1, 1, 1, 1]>(X, k3)\nB = Add(A, b)\nR = Relu(B)\n" + POOLED,
        {"b": w(C, 1, 1)},
    ),
    "bias_of_shape_1_c_1_1_on_the_left": Pattern(
        "A = Conv<pads=[1, 1, 1, 1]>(X, k3)\nB = Add(b, A)\nR = Relu(B)\n" + POOLED,
        {"b": w(1, C, 1, 1)},
    ),
    "paddle_elementwise_bias": Pattern(
        "A = Conv<dilations=[1, 1], group=1, pads=[1, 1, 1, 1], strides=[1, 1]>(X, k3)\n"
        "b = Reshape(bias, bs)\nB = Add(A, b)\nR = Relu(B)\n" + POOLED, {"bs": i(1, -1, 1, 1)},
    ),
    "paddle_scale_and_batch_norm": Pattern(
        "s = Mul(X, half)\nA = Conv<pads=[1, 1, 1, 1]>(s, k3)\n"
        "N = BatchNormalization<epsilon=0.00001, momentum=0.9>(A, gamma, beta, mean, var)\n"
        "R = Relu(N)\nP = AveragePool<kernel_shape=[6, 6]>(R)\nq = Flatten<axis=1>(P)\n"
        "m = MatMul(q, fc)\nY = Add(m, fcb)", {"half": f(0.5)},
    ),
    "relu6_by_clip_inputs": Pattern(
        CONV + "R = Clip(A, zero, six)\n" + POOLED, activations=("clip",),
    ),
    "relu6_by_clip_attributes": Pattern(
        CONV + "R = Clip<min=0.0, max=6.0>(A)\n" + POOLED, opset=9, activations=("clip",),
    ),
    "relu6_by_min_and_relu": Pattern(
        CONV + "r = Relu(A)\nR = Min(r, six)\n" + POOLED,
    ),
    "relu6_with_bounds_from_constants": Pattern(
        "lo = Constant<value_float=0.0>()\nhi = Constant<value_float=6.0>()\n" + CONV
        + "R = Clip(A, lo, hi)\n" + POOLED, activations=("clip",),
    ),
    "leaky_relu_by_max": Pattern(
        CONV + "s = Mul(A, slope)\nR = Max(A, s)\n" + POOLED, {"slope": f(0.1).reshape(())},
    ),
    "prelu_per_channel": Pattern(CONV + "R = PRelu(A, slope)\n" + POOLED, {"slope": w(C, 1, 1)}),
    "prelu_of_keras_shared_axes": Pattern(
        CONV + "r = Relu(A)\nn = Neg(A)\ns = Relu(n)\na = Neg(alpha)\nt = Mul(a, s)\n"
        "R = Add(r, t)\n"
        + POOLED, {"alpha": w(C, 1, 1)},
    ),
    "hard_swish_by_clip": Pattern(
        CONV + "t = Add(A, three)\nc = Clip(t, zero, six)\nd = Div(c, six)\n"
        "R = Mul(A, d)\n" + POOLED,
        {"three": f(3.0).reshape(())}, activations=("hard_swish",),
    ),
}  # fmt: skip
