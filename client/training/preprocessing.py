"""What happens to rows at their owner's side: it is learnt once and travels with the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tacit.errors import KeyFileError, TrainingRowsError

Floats = NDArray[np.float64]

_CONSTANT = 1e-12
_FLOOR = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Preprocessing:
    """Fill in, centre, mix, clip.

    Attributes:
        fill: what stands for a missing value, shape (features,).
        mean: of each feature, shape (features,).
        mixing: shape (features, features): one over the deviations, times whitening.
        clip: prepared features are moved to [-clip, clip]; infinite for none.
    """

    fill: Floats
    mean: Floats
    mixing: Floats
    clip: float

    @classmethod
    def of(cls, rows: Floats, *, clip: float, whiten: float, penalty: float = 0.0) -> Preprocessing:
        """Learn from training rows.

        Args:
            rows: shape (rows, features); NaN where a value is missing.
            clip: see the class.
            whiten: 0 standardises, 1 makes features uncorrelated, which saves iterations where
                features nearly repeat each other, and more noise is learnt; powers between.
            penalty: on the mean square of coefficients, if it is to be prepared for.
        """
        fill = np.nanmean(rows, axis=0)
        filled = np.where(np.isnan(rows), fill, rows)
        mean, deviation = filled.mean(axis=0), filled.std(axis=0)
        still = deviation <= _CONSTANT * np.maximum(1.0, np.abs(filled).max(axis=0))
        size = np.sqrt(deviation**2 + penalty)
        mixing = np.diag(np.where(still, 0.0, 1.0 / np.where(still, 1.0, size)))
        if whiten:
            scaled = (filled - mean) @ mixing
            mixing = mixing @ _whitening(
                scaled.T @ scaled / len(rows) + penalty * mixing**2, whiten
            )
        return cls(fill, mean, mixing, clip)

    @property
    def features(self) -> int:
        """How many features rows have."""
        return len(self.mean)

    def prepare(self, rows: Floats) -> Floats:
        """Return the constant column 1 and the prepared features, shape (rows, features + 1).

        Raises:
            TrainingRowsError: another number of features.
        """
        if rows.shape[1] != self.features:
            raise TrainingRowsError(f"{self.features} features expected, got {rows.shape[1]}")
        filled = np.where(np.isnan(rows), self.fill, rows)
        prepared = np.clip((filled - self.mean) @ self.mixing, -self.clip, self.clip)
        return np.concatenate([np.ones((len(rows), 1)), prepared], axis=1)

    def weights(self, prepared: Floats) -> tuple[Floats, float]:
        """Return coefficients and intercept for features as they come; clipping is left out."""
        coefficients = self.mixing @ prepared[1:]
        return coefficients, float(prepared[0] - coefficients @ self.mean)

    def to_json(self) -> dict[str, object]:
        """Return a JSON-serialisable dict; it says something about the rows, so keep it."""
        arrays = {name: getattr(self, name).tolist() for name in ("fill", "mean", "mixing")}
        return {**arrays, "clip": self.clip}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Preprocessing:
        """Rebuild from `to_json`.

        Raises:
            KeyFileError: a field is missing or of the wrong form.
        """
        try:
            fill, mean, mixing = (
                np.array(fields[name], dtype=np.float64) for name in ("fill", "mean", "mixing")
            )
            clip = float(fields["clip"])
        except (KeyError, TypeError, ValueError) as error:
            raise KeyFileError("the record of this training is damaged") from error
        if mean.ndim != 1 or fill.shape != mean.shape or mixing.shape != 2 * mean.shape:
            raise KeyFileError("the record of this training is damaged")
        return cls(fill, mean, mixing, clip)


def _whitening(variances: Floats, power: float) -> Floats:
    """Return a matrix that turns variances v along the principal axes into v^(1 - power).

    Args:
        variances: shape (features, features), symmetric.
        power: 0 to 1.
    """
    values, vectors = np.linalg.eigh(variances)
    floor = _FLOOR * float(values.max(initial=0.0)) or 1.0
    return np.asarray(vectors / np.maximum(values, floor) ** (0.5 * power))
