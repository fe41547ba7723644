"""Made-up patients for tests of training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def patients(
    rows: int = 300, features: int = 5, seed: int = 0, classes: int = 2
) -> tuple[Floats, NDArray[np.int64]]:
    """Rows of different units and offsets; labels that follow from them up to chance."""
    rng = np.random.default_rng(seed)
    inner = rng.normal(size=(rows, features))
    scores = inner @ (1.5 * rng.normal(size=(features, classes - 1)))
    if classes == 2:
        labels = (rng.random(rows) < 1.0 / (1.0 + np.exp(-scores[:, 0]))).astype(np.int64)
    else:
        labels = np.concatenate([scores, np.zeros((rows, 1))], axis=1).argmax(axis=1)
    return inner * rng.uniform(0.5, 30.0, features) + rng.uniform(-50.0, 50.0, features), labels


def numbers(rows: int = 200, features: int = 6, seed: int = 0) -> tuple[Floats, Floats]:
    """Rows as in `patients`, and a number that depends on them linearly, up to noise."""
    rng = np.random.default_rng(seed + 1000)
    table, _ = patients(rows, features, seed)
    return table, table @ rng.normal(size=features) + 5.0 + rng.normal(size=rows)
