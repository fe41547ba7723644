"""What `bench training` trains on: patients of the UCI files, tumours, and made-up patients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.heart import HOSPITALS, read_hospital
from bench.task import Array

FOLDS = 5
SEED = 0
FRAMINGHAM_ROWS, FRAMINGHAM_FEATURES = 780, 9
Labels = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Patients:
    """Rows and labels.

    Attributes:
        name: of the workload.
        rows: shape (rows, features); NaN where a value is missing.
        labels: 0 or 1.
    """

    name: str
    rows: Array
    labels: Labels

    def folds(self) -> Iterator[tuple[Indices, Indices]]:
        """Yield training and test rows of five stratified folds."""
        from sklearn.model_selection import StratifiedKFold

        chosen = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED)
        yield from chosen.split(self.rows, self.labels)


def sets(heart: Path | None) -> list[Patients]:
    """Return the workloads; those of the heart files only if a folder is given."""
    found = [breast_cancer(), framingham_like()]
    if heart is not None:
        parts = [read_hospital(heart / f"processed.{name}.data") for name in HOSPITALS]
        pooled = Patients(
            "heart pooled",
            np.concatenate([rows for rows, _ in parts]),
            np.concatenate([labels for _, labels in parts]),
        )
        found = [Patients("heart cleveland", *parts[0]), pooled, *found]
    return found


def breast_cancer() -> Patients:
    """Return scikit-learn's tumours: 569 rows of 30 features that nearly repeat each other."""
    from sklearn.datasets import load_breast_cancer

    rows, labels = load_breast_cancer(return_X_y=True)
    return Patients("breast cancer", rows, labels.astype(np.int64))


def framingham_like(
    rows: int = FRAMINGHAM_ROWS, features: int = FRAMINGHAM_FEATURES, seed: int = SEED
) -> Patients:
    """Draw patients as many and as hard to tell apart as those of TenSEAL's tutorial."""
    rng = np.random.default_rng(seed)
    mixing = 0.3 * rng.normal(size=(features, features)) + np.eye(features)
    inner = rng.normal(size=(rows, features)) @ mixing
    scores = inner @ (0.2 * rng.normal(size=features))
    labels = (rng.random(rows) < 1.0 / (1.0 + np.exp(-scores))).astype(np.int64)
    units, offsets = rng.uniform(0.5, 30.0, features), rng.uniform(-50.0, 150.0, features)
    return Patients(f"framingham-like {rows}x{features}", inner * units + offsets, labels)
