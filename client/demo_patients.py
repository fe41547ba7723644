"""Patients for the demonstration: synthetic ones, or the UCI heart-disease files.

The synthetic patients follow rounded descriptive statistics, by diagnosis, of the 303 patients of
the Cleveland Clinic in the UCI heart-disease data (R. Detrano et al., "International application of
a new probability algorithm for the diagnosis of coronary artery disease", American Journal of
Cardiology 64, 1989): means, standard deviations, extremes and frequencies. Columns are drawn
independently within a diagnosis, so correlations between them are lost: good enough to show a
prediction, useless for medicine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tacit.errors import UserError

Floats = NDArray[np.float64]
_Spread = tuple[float, float, float, float]
_Numbers = tuple[float, ...]

FEATURES = (
    "age",
    "sex",
    "cp",
    "trestbps",
    "chol",
    "fbs",
    "restecg",
    "thalach",
    "exang",
    "oldpeak",
    "slope",
    "ca",
    "thal",
)
_DISEASE_RATE = 0.46

# (mean, deviation, lowest, highest) without and with disease.
_MEASURED: dict[
    str, tuple[tuple[float, float, float, float], tuple[float, float, float, float]]
] = {
    "age": ((52.6, 9.5, 29, 76), (56.6, 7.9, 35, 77)),
    "trestbps": ((129, 16, 94, 180), (135, 19, 100, 200)),
    "chol": ((243, 53, 126, 417), (251, 49, 131, 409)),
    "thalach": ((158, 19, 96, 202), (139, 23, 71, 195)),
    "oldpeak": ((0.6, 0.8, 0, 4.2), (1.6, 1.3, 0, 6.2)),
}
# Values, and how frequent each is without and with disease.
_COUNTED: dict[str, tuple[_Numbers, _Numbers, _Numbers]] = {
    "sex": ((0, 1), (0.44, 0.56), (0.18, 0.82)),
    "cp": ((1, 2, 3, 4), (0.10, 0.25, 0.41, 0.24), (0.05, 0.06, 0.13, 0.76)),
    "fbs": ((0, 1), (0.86, 0.14), (0.84, 0.16)),
    "restecg": ((0, 1, 2), (0.58, 0.01, 0.41), (0.40, 0.02, 0.58)),
    "exang": ((0, 1), (0.86, 0.14), (0.45, 0.55)),
    "slope": ((1, 2, 3), (0.65, 0.30, 0.05), (0.26, 0.65, 0.09)),
    "ca": ((0, 1, 2, 3), (0.81, 0.13, 0.04, 0.02), (0.33, 0.32, 0.22, 0.13)),
    "thal": ((3, 6, 7), (0.79, 0.04, 0.17), (0.27, 0.09, 0.64)),
}


@dataclass(frozen=True, slots=True, eq=False)
class Patients:
    """Measurements, shape (patients, 13), float64, and diagnoses, shape (patients,), bool."""

    rows: Floats
    diseased: NDArray[np.bool_]
    source: str


def synthetic_patients(count: int, seed: int = 0) -> Patients:
    """Draw patients; see the module's docstring for where the numbers come from."""
    random = np.random.default_rng(seed)
    diseased = random.random(count) < _DISEASE_RATE
    rows = np.empty((count, len(FEATURES)))
    for column, name in enumerate(FEATURES):
        for group in (False, True):
            chosen = diseased == group
            rows[chosen, column] = _drawn(name, group, int(chosen.sum()), random)
    return Patients(rows, diseased, f"{count} synthetic patients")


def read_patients(path: Path) -> Patients:
    """Read one UCI file, or every processed.*.data of a folder; gaps take the column's median.

    Raises:
        UserError: no such file, or not 14 columns of numbers.
    """
    files = sorted(path.glob("processed.*.data")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path} holds no processed.*.data: give a UCI heart-disease file")
    table = np.concatenate([_table(file) for file in files])
    with_values = ~np.all(np.isnan(table), axis=0)
    medians = np.zeros(table.shape[1])
    medians[with_values] = np.nanmedian(table[:, with_values], axis=0)
    filled = np.where(np.isnan(table), medians, table)
    names = ", ".join(file.name for file in files)
    return Patients(filled[:, :-1], filled[:, -1] > 0, f"{len(table)} patients of {names}")


def _drawn(name: str, diseased: bool, count: int, random: np.random.Generator) -> Floats:
    if name in _MEASURED:
        mean, deviation, low, high = _MEASURED[name][diseased]
        values = np.clip(random.normal(mean, deviation, count), low, high)
        return np.round(values, 1 if name == "oldpeak" else 0)
    choices, without, with_disease = _COUNTED[name]
    return random.choice(choices, size=count, p=with_disease if diseased else without)


def _table(file: Path) -> Floats:
    try:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        cells = [[_number(cell) for cell in line.split(",")] for line in lines]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {file}: give a UCI heart-disease file") from error
    except ValueError as error:
        raise UserError(f"{file}: {error}; a UCI heart-disease file is expected") from error
    if not cells or {len(row) for row in cells} != {len(FEATURES) + 1}:
        raise UserError(f"{file}: 14 columns are expected, as in the UCI heart-disease files")
    return np.asarray(cells, dtype=np.float64)


def _number(cell: str) -> float:
    return float("nan") if cell.strip() in ("", "?") else float(cell)
