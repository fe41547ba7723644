from __future__ import annotations

import numpy as np
from onnx.reference import ReferenceEvaluator

from bench.lenet import LeNet, export, gradients, train

SIDE = 8


def _network() -> LeNet:
    return LeNet.drawn(SIDE, (2, 3), 5, 3)


def test_the_exported_network_is_the_float_network() -> None:
    network, x = _network(), np.random.default_rng(0).random((4, SIDE**2))
    (answer,) = ReferenceEvaluator(export(network, SIDE)).run(None, {"x": x.astype(np.float32)})
    np.testing.assert_allclose(np.asarray(answer), network.logits(x), rtol=1e-3, atol=1e-5)


def test_gradients_are_those_of_the_loss() -> None:
    generator = np.random.default_rng(1)
    network, x = _network(), generator.random((6, SIDE**2))
    labels = generator.integers(0, 3, 6)

    def loss() -> float:
        logits = network.logits(x)
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        return float(-np.log(shares[np.arange(6), labels]).mean())

    found = gradients(network, x, labels)
    for name, weights in network.arrays().items():
        place = tuple(int(generator.integers(n)) for n in weights.shape)
        step, kept = 1e-5, weights[place]
        weights[place] = kept + step
        above = loss()
        weights[place] = kept - step
        slope = (above - loss()) / (2 * step)
        weights[place] = kept
        np.testing.assert_allclose(found[name][place], slope, rtol=1e-4, atol=1e-8)


def test_training_learns_where_a_blob_is() -> None:
    generator = np.random.default_rng(2)
    labels = generator.integers(0, 3, 600)
    images = 0.1 * generator.random((600, SIDE, SIDE))
    corners = [(1, 1), (1, 5), (5, 3)]
    for image, label in zip(images, labels, strict=True):
        y, x = corners[label]
        image[y : y + 2, x : x + 2] += 0.8
    network = LeNet.drawn(SIDE, (2, 4), 8, 3)
    train(network, images.reshape(600, -1), labels, epochs=20)
    right = network.logits(images.reshape(600, -1)).argmax(axis=1) == labels
    assert right.mean() > 0.95
