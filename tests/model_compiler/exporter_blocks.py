"""Patterns of blocks: residual, grouped, attention, channels last, decoders, heads."""

from __future__ import annotations

import numpy as np

from tests.model_compiler.exporter_parts import CONV, HEAD, POOLED, C, Pattern, S, f, i, w

BLOCKS: dict[str, Pattern] = {
    "residual_block": Pattern(
        CONV + "R1 = Relu(A)\nB = Conv<pads=[1, 1, 1, 1]>(R1, k1p)\nU = Add(B, X)\nR = Relu(U)\n"
        + POOLED, {"k1p": w(C, C, 3, 3, seed=20)}, activations=("relu", "relu"),
    ),
    "residual_block_with_projection": Pattern(
        "A = Conv<pads=[1, 1, 1, 1], strides=[2, 2]>(X, k3, bias)\nR1 = Relu(A)\n"
        "B = Conv<pads=[1, 1, 1, 1]>(R1, k3)\nP = Conv<strides=[2, 2]>(X, k1)\nU = Add(B, P)\n"
        "R = Relu(U)\n" + POOLED,
    ),
    "option_a_shortcut": Pattern(
        "A = Conv<pads=[1, 1, 1, 1], strides=[2, 2]>(X, k8)\nR1 = Relu(A)\n"
        "B = Conv<pads=[1, 1, 1, 1]>(R1, k88)\n"
        "S1 = Slice(X, st, en, ax, sp)\nP = Pad(S1, pads, zero)\nU = Add(B, P)\nR = Relu(U)\n"
        "G = GlobalAveragePool(R)\nQ = Flatten(G)\nY = Gemm(Q, fc8)",
        {"k88": w(2 * C, 2 * C, 3, 3), "st": i(0, 0), "en": i(99, 99), "ax": i(2, 3), "sp": i(2, 2),
         "pads": i(0, 2, 0, 0, 0, 2, 0, 0), "fc8": w(2 * C, 3)},
    ),
    "option_a_shortcut_by_concat_of_zeros": Pattern(
        "A = Conv<pads=[1, 1, 1, 1], strides=[2, 2]>(X, k8)\n"
        "S1 = AveragePool<kernel_shape=[1, 1], strides=[2, 2]>(X)\nz = Mul(S1, zero)\n"
        "P = Concat<axis=1>(S1, z)\nU = Add(A, P)\nR = Relu(U)\n"
        "G = GlobalAveragePool(R)\nQ = Flatten(G)\nY = Gemm(Q, fc8)", {"fc8": w(2 * C, 3)},
    ),
    "depthwise_separable": Pattern(
        "A = Conv<group=4, kernel_shape=[3, 3], pads=[1, 1, 1, 1]>(X, kd)\n"
        "N = BatchNormalization(A, gamma, beta, mean, var)\nR1 = Clip(N, zero, six)\n"
        "B = Conv(R1, k1)\nR = Clip(B, zero, six)\n" + POOLED, activations=("clip", "clip"),
    ),
    "depthwise_with_multiplier": Pattern(
        "A = Conv<group=4, pads=[1, 1, 1, 1], strides=[2, 2]>(X, kd2)\nR = Relu(A)\n"
        "G = GlobalAveragePool(R)\nQ = Flatten(G)\nY = Gemm(Q, fc8)",
        {"kd2": w(2 * C, 1, 3, 3), "fc8": w(2 * C, 3)},
    ),
    "grouped_and_shuffled_channels": Pattern(
        "A = Conv<group=2>(X, kg)\nB = Reshape(A, s5)\nT = Transpose<perm=[0, 2, 1, 3, 4]>(B)\n"
        "D = Reshape(T, s4)\nR = Relu(D)\n" + POOLED,
        {"kg": w(C, 2, 1, 1), "s5": i(-1, 2, 2, S, S), "s4": i(-1, C, S, S)},
    ),
    "squeeze_and_excitation": Pattern(
        CONV + "G0 = ReduceMean<axes=[2, 3], keepdims=1>(A)\nE = Conv(G0, k1)\nF = Relu(E)\n"
        "H = Conv(F, k1b)\nZ = Sigmoid(H)\nR = Mul(A, Z)\n" + POOLED,
        {"k1b": w(C, C, 1, 1, seed=21)}, activations=("relu", "sigmoid"), products=1,
    ),
    "average_pool_counting_the_padding": Pattern(
        CONV + "R = AveragePool<count_include_pad=1, kernel_shape=[3, 3], pads=[1, 1, 1, 1], "
        "strides=[2, 2]>(A)\n" + POOLED,
    ),
    "average_pool_not_counting_the_padding": Pattern(
        CONV + "R = AveragePool<count_include_pad=0, kernel_shape=[3, 3], pads=[1, 1, 1, 1], "
        "strides=[2, 2]>(A)\n" + POOLED,
    ),
    "average_pool_with_ceil_mode": Pattern(
        CONV + "R = AveragePool<ceil_mode=1, kernel_shape=[3, 3], strides=[2, 2]>(A)\n" + POOLED,
        opset=19,
    ),
    "max_pool_with_ceil_mode": Pattern(
        CONV + "R = MaxPool<ceil_mode=1, kernel_shape=[3, 3], strides=[2, 2]>(A)\n" + POOLED,
    ),
    "max_pool_with_padding_of_resnet": Pattern(
        CONV + "R = MaxPool<ceil_mode=0, dilations=[1, 1], kernel_shape=[3, 3], pads=[1, 1, 1, 1], "
        "strides=[2, 2]>(A)\n" + POOLED,
    ),
    "max_pool_same_of_tensorflow": Pattern(
        CONV + 'R = MaxPool<auto_pad="SAME_UPPER", kernel_shape=[2, 2], strides=[2, 2]>(A)\n'
        + POOLED,
        shape=(C, 5, 5),
    ),
    "max_pool_with_empty_auto_pad": Pattern(
        CONV + 'R = MaxPool<auto_pad="", kernel_shape=[2, 2], strides=[2, 2]>(A)\n' + POOLED,
    ),
    "nhwc_input_of_tf2onnx": Pattern(
        "T = Transpose<perm=[0, 3, 1, 2]>(X)\nA = Conv<pads=[1, 1, 1, 1]>(T, k3, bias)\n"
        "R = Relu(A)\n"
        "M = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(R)\nU = Transpose<perm=[0, 2, 3, 1]>(M)\n"
        "Q = Reshape(U, t)\nm = MatMul(Q, flat)\nY = Add(m, fcb)",
        {"t": i(-1, C * 9)}, shape=(S, S, C),
    ),
    "nhwc_by_reshape_of_one_channel": Pattern(
        "T = Reshape(X, t)\nA = Conv<pads=[1, 1, 1, 1]>(T, ki, bias)\nR = Relu(A)\n" + POOLED,
        {"t": i(-1, 1, S, S), "ki": w(C, 1, 3, 3)}, shape=(S, S, 1),
    ),
    "nhwc_transposes_around_every_layer": Pattern(
        "T = Transpose<perm=[0, 3, 1, 2]>(X)\nA = Conv<pads=[1, 1, 1, 1]>(T, k3)\n"
        "U = Transpose<perm=[0, 2, 3, 1]>(A)\nB = Add(U, bias)\nR0 = Relu(B)\n"
        "V = Transpose<perm=[0, 3, 1, 2]>(R0)\nD = Conv<pads=[1, 1, 1, 1]>(V, k3)\n"
        "Z = Transpose<perm=[0, 2, 3, 1]>(D)\nE = Add(Z, bias)\nR = Relu(E)\n"
        "Q = ReduceMean<axes=[1, 2], keepdims=0>(R)" + HEAD, shape=(S, S, C),
        activations=("relu", "relu"),
    ),
    "keras_preprocessing_layers": Pattern(
        "N = Mul(X, c)\nO = Sub(N, one)\nT = Transpose<perm=[0, 3, 1, 2]>(O)\n"
        "A = Conv<pads=[1, 1, 1, 1]>(T, k3, bias)\nR = Relu(A)\n" + POOLED,
        {"c": f(1 / 127.5).reshape(()), "one": f(1.0).reshape(())}, shape=(S, S, C),
    ),
    "normalisation_by_mean_and_std": Pattern(
        "D = Sub(X, mu)\nN = Div(D, sd)\nA = Conv<pads=[1, 1, 1, 1]>(N, k3, bias)\nR = Relu(A)\n"
        + POOLED, {"mu": w(1, C, 1, 1), "sd": np.abs(w(1, C, 1, 1)) + 0.5},
    ),
    "dense_as_1x1_convolution": Pattern(
        "U = Unsqueeze(X, a23)\nA = Conv(U, kf, bias)\nR = Relu(A)\n" + POOLED,
        {"a23": i(2, 3), "kf": w(C, 7, 1, 1)}, shape=(7,),
    ),
    "one_dimensional_convolutions": Pattern(
        "A = Conv<pads=[2, 2], dilations=[2]>(X, ks, bias)\nR0 = Relu(A)\n"
        "M = MaxPool<kernel_shape=[2], strides=[2]>(R0)\nR = Conv(M, ks)\n" + POOLED,
        {"ks": w(C, C, 3)}, shape=(C, 12),
    ),
    "causal_convolution_by_pad_and_slice": Pattern(
        "P = Pad(X, pads, zero)\nA = Conv(P, ks, bias)\nB = Slice(A, st, en, ax)\nR = Relu(B)\n"
        + POOLED,
        {"ks": w(C, C, 3), "pads": i(0, 0, 2, 0, 0, 2), "st": i(0), "en": i(-2), "ax": i(2)},
        shape=(C, 12),
    ),
    "einsum_head": Pattern(
        CONV + 'R = Relu(A)\nQ = ReduceMean<axes=[2, 3], keepdims=0>(R)\n'
        'Y = Einsum<equation="bc,ck->bk">(Q, fc)',
    ),
    "upsampling_decoder": Pattern(
        'A = Conv<strides=[2, 2], pads=[1, 1, 1, 1]>(X, k3)\nR0 = Relu(A)\n'
        'U = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", '
        'nearest_mode="floor">(R0, , scales)\nR = Conv<pads=[1, 1, 1, 1]>(U, k3)\n' + POOLED,
        {"scales": np.array([1.0, 1.0, 2.0, 2.0], dtype=np.float32)},
    ),
    "transposed_convolution_decoder": Pattern(
        "A = ConvTranspose<kernel_shape=[2, 2], strides=[2, 2]>(X, kt, bias)\n"
        "R = Relu(A)\n" + POOLED,
        {"kt": w(C, C, 2, 2)},
    ),
    "inception_branches": Pattern(
        "A = Conv(X, k1)\nB = Conv<pads=[1, 1, 1, 1]>(X, k3)\n"
        "M = AveragePool<kernel_shape=[3, 3], pads=[1, 1, 1, 1]>(X)\nD = Concat<axis=1>(A, B, M)\n"
        "R = Relu(D)\nG = GlobalAveragePool(R)\nQ = Flatten(G)\nY = Gemm(Q, fc12)",
        {"fc12": w(3 * C, 3)},
    ),
    "dense_block": Pattern(
        "A = Conv<pads=[1, 1, 1, 1]>(X, k3)\nR0 = Relu(A)\nD = Concat<axis=1>(X, R0)\n"
        "B = Conv<pads=[1, 1, 1, 1]>(D, k48)\nR = Relu(B)\n" + POOLED, {"k48": w(C, 2 * C, 3, 3)},
    ),
    "focus_layer_by_slices": Pattern(
        "a = Slice(X, s00, e, ax, sp)\nb = Slice(X, s10, e, ax, sp)\nc = Slice(X, s01, e, ax, sp)\n"
        "d = Slice(X, s11, e, ax, sp)\nF = Concat<axis=1>(a, b, c, d)\nA = Conv(F, kf)\n"
        "R = Relu(A)\n"
        + POOLED,
        {"s00": i(0, 0), "s10": i(1, 0), "s01": i(0, 1), "s11": i(1, 1), "e": i(99, 99),
         "ax": i(2, 3), "sp": i(2, 2), "kf": w(C, 4 * C, 1, 1)},
    ),
    "onnxmltools_feature_vector": Pattern(
        "S = ai.onnx.ml.Scaler<offset=[0.5, 0.25, 0.0, 1.0], scale=[2.0, 1.0, 0.5, 3.0]>(X)\n"
        "H = MatMul(S, fc)\nY = Add(H, fcb)", shape=(C,),
    ),
    "spatial_mean_by_matmul": Pattern(
        CONV + "R = Relu(A)\nV = Reshape(R, t)\nM = MatMul(V, ones)\nQ = Squeeze(M, a2)" + HEAD,
        {"t": i(0, C, -1), "ones": np.full((S * S, 1), 1 / (S * S)), "a2": i(2)},
    ),
    "global_max_pool_head": Pattern(
        CONV + "G = GlobalMaxPool(A)\nQ = Flatten(G)" + HEAD,
    ),
    "group_norm_of_torch_script": Pattern(
        CONV + "V = Reshape(A, t)\nI = InstanceNormalization<epsilon=0.00001>(V, g1, g0)\n"
        "s = Shape(A)\nU = Reshape(I, s)\nM = Mul(U, gc)\nR = Add(M, bc)\n" + POOLED,
        {"t": i(0, 2, -1), "g1": np.ones(2), "g0": np.zeros(2), "gc": w(C, 1, 1),
         "bc": w(C, 1, 1, seed=30)}, products=1,
    ),
    "chunks_of_dynamo": Pattern(
        "A, B = Split<axis=1, num_outputs=2>(X)\nD = Conv<pads=[1, 1, 1, 1]>(A, k2)\n"
        "E = Concat<axis=1>(D, B)\nR = Relu(E)\n" + POOLED, {"k2": w(2, 2, 3, 3)}, opset=18,
    ),
    "split_by_attribute": Pattern(
        "A, B = Split<axis=1, split=[1, 3]>(X)\nE = Concat<axis=1>(B, A)\n"
        "D = Conv(E, k1)\nR = Relu(D)\n" + POOLED, opset=11,
    ),
    "resize_to_sizes_from_shapes": Pattern(
        "A = Conv<strides=[2, 2], pads=[1, 1, 1, 1]>(X, k3)\ns = Shape(X)\nhw = Slice(s, i2, i4)\n"
        "t = Shape(A)\nnc = Slice(t, i0, i2)\nz = Concat<axis=0>(nc, hw)\n"
        'U = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", '
        'nearest_mode="floor">(A, , , z)\nV = Add(U, X)\nR = Relu(V)\n' + POOLED,
        {"i0": i(0), "i2": i(2), "i4": i(4)},
    ),
    "upsample_of_opset_9": Pattern(
        'U = Upsample<mode="nearest">(X, scales)\nR = Conv<pads=[1, 1, 1, 1]>(U, k3)\n' + POOLED,
        {"scales": np.array([1.0, 1.0, 2.0, 2.0], dtype=np.float32)}, opset=9,
    ),
    "pads_as_attribute": Pattern(
        'P = Pad<mode="constant", pads=[0, 0, 1, 1, 0, 0, 1, 1], value=0.0>(X)\n'
        "A = Conv(P, k3, bias)\nR = Relu(A)\n" + POOLED, opset=10,
    ),
    "reflection_padding": Pattern(
        'P = Pad<mode="reflect">(X, pads)\nA = Conv(P, k3, bias)\nR = Relu(A)\n' + POOLED,
        {"pads": i(0, 0, 1, 1, 0, 0, 1, 1)},
    ),
    "view_of_old_torch": Pattern(
        CONV + "R = Relu(A)\nM = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(R)\ns = Shape(M)\n"
        "c = Constant<value_int=0>()\nn = Gather<axis=0>(s, c)\nu = Unsqueeze<axes=[0]>(n)\n"
        "m = Constant<value_ints=[-1]>()\nt = Concat<axis=0>(u, m)\nQ = Reshape(M, t)\n"
        "Y = Gemm(Q, flat, fcb)", opset=12,
    ),
    "fixed_view_of_torch": Pattern(
        CONV + "R = Relu(A)\nM = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(R)\n"
        "Q = Reshape(M, t)\nY = Gemm(Q, flat, fcb)", {"t": i(1, -1)}, fixed=True,
    ),
    "relu_by_max_with_zero": Pattern(
        CONV + "R = Max(A, zero)\n" + POOLED, activations=("relu",),
    ),
    "relu_by_where": Pattern(
        CONV + "m = Greater(A, zero)\nR = Where(m, A, zero)\n" + POOLED, activations=("relu",),
    ),
    "casts_to_half_and_back": Pattern(
        "a = Cast<to=1>(X)\nA = Conv<pads=[1, 1, 1, 1]>(a, k3)\nR = Relu(A)\n" + POOLED,
    ),
    "bias_by_expand": Pattern(
        "A = Conv<pads=[1, 1, 1, 1]>(X, k3)\nb = Expand(b1, s)\nB = Add(A, b)\nR = Relu(B)\n"
        + POOLED, {"b1": w(1, C, 1, 1), "s": i(1, C, S, S)},
    ),
    "bilinear_upsampling_of_torch": Pattern(
        'U = Resize<mode="linear", coordinate_transformation_mode="pytorch_half_pixel", '
        "cubic_coeff_a=-0.75>(X, , scales)\nR = Conv<pads=[1, 1, 1, 1]>(U, k3)\n" + POOLED,
        {"scales": np.array([1.0, 1.0, 2.0, 2.0], dtype=np.float32)},
    ),
    "pixel_shuffle": Pattern(
        "A = Conv<pads=[1, 1, 1, 1]>(X, k16)\nD = DepthToSpace<blocksize=2, mode=\"CRD\">(A)\n"
        "R = Relu(D)\n" + POOLED, {"k16": w(4 * C, C, 3, 3)},
    ),
    "pixel_shuffle_by_reshapes": Pattern(
        "A = Conv<pads=[1, 1, 1, 1]>(X, k16)\nB = Reshape(A, s6)\n"
        "T = Transpose<perm=[0, 1, 4, 2, 5, 3]>(B)\nD = Reshape(T, s4)\nR = Relu(D)\n" + POOLED,
        {"k16": w(4 * C, C, 3, 3), "s6": i(-1, C, 2, 2, S, S), "s4": i(-1, C, 2 * S, 2 * S)},
    ),
    "dilated_convolution_of_deeplab": Pattern(
        "A = Conv<dilations=[2, 2], pads=[2, 2, 2, 2]>(X, k3, bias)\nR = Relu(A)\n" + POOLED,
    ),
    "weights_transposed_by_a_node": Pattern(
        CONV + "R = Relu(A)\nG = GlobalAveragePool(R)\nQ = Flatten(G)\n"
        "V = Transpose<perm=[1, 0]>(fct)\nm = MatMul(Q, V)\nY = Add(m, fcb)",
    ),
    "kernel_from_tensorflow_layout": Pattern(
        "k = Transpose<perm=[3, 2, 0, 1]>(khwio)\nA = Conv<pads=[1, 1, 1, 1]>(X, k)\nR = Relu(A)\n"
        + POOLED, {"khwio": w(3, 3, C, C)},
    ),
    "quarter_turn_of_the_features": Pattern(
        CONV + "R = Relu(A)\nM = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(R)\n"
        "T = Transpose<perm=[0, 2, 3, 1]>(M)\nQ = Flatten<axis=1>(T)\nY = Gemm(Q, flat, fcb)",
    ),
    "uneven_adaptive_pool_of_dynamo": Pattern(
        CONV + "R = Relu(A)\nT = Transpose<perm=[2, 3, 0, 1]>(R)\nG = GatherND(T, cells)\n"
        "U = Transpose<perm=[2, 3, 0, 1]>(G)\nQ = ReduceMean<axes=[2, 3], keepdims=0>(U)" + HEAD,
        {"cells": np.stack(np.meshgrid(i(0, 2, 2, 5), i(1, 4), indexing="ij"), axis=-1)},
    ),
    "log_softmax_head": Pattern(CONV + "R = Relu(A)\nG = GlobalAveragePool(R)\nQ = Flatten(G)\n"
        "Z = Gemm<transB=1>(Q, fct, fcb)\nY = LogSoftmax<axis=1>(Z)"),
    "flattened_softmax_of_old_opsets": Pattern(
        CONV + "R = Relu(A)\nG = GlobalAveragePool(R)\nQ = Flatten(G)\n"
        "Z = Gemm<transB=1>(Q, fct, fcb)\nY = Softmax(Z)", opset=11,
    ),
}  # fmt: skip
