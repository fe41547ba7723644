"""What may be trained on: rows and labels are checked before anything is encrypted.

Messages keep the words that scikit-learn's users and tools look for.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tacit.errors import LabelError, NotTrainedError, TrainingRowsError

Array = NDArray[Any]
Floats = NDArray[np.float64]


def checked_rows(rows: object, *, missing: bool = False, least: int = 1) -> Floats:
    """Return rows of numbers, shape (rows, features).

    Args:
        rows: anything that numpy reads as a table.
        missing: accept NaN, which stands for a missing value.
        least: how many rows there must be.

    Raises:
        TrainingRowsError: not a table of finite numbers, or too few rows.
    """
    _refuse_sparse(rows)
    table = _numbers(rows)
    if table.ndim != 2:
        raise TrainingRowsError(
            f"Expected 2D array, got {table.ndim}D array instead: shape (rows, features) is "
            "needed. Reshape your data with array.reshape(-1, 1) if it has a single feature or "
            "array.reshape(1, -1) if it is a single row."
        )
    count, features = table.shape
    if features == 0:
        raise TrainingRowsError(
            f"0 feature(s) (shape={table.shape}) while a minimum of 1 is required."
        )
    if count < least:
        raise TrainingRowsError(
            f"Found array with {count} sample(s) (n_samples={count}) while a minimum of {least} "
            "is required."
        )
    if np.isinf(table).any() or (not missing and np.isnan(table).any()):
        kind = "infinity" if np.isinf(table).any() else "NaN"
        advice = "" if missing else "; missing='mean' fills missing values in at your side"
        raise TrainingRowsError(f"Input X contains {kind}: finite numbers are needed{advice}")
    return table


def checked_columns(rows: Floats, names: Sequence[str] | None) -> None:
    """Refuse columns that never change: they say nothing, and their scale is unknown.

    Raises:
        TrainingRowsError: some column is constant; names them all.
    """
    known = np.where(np.isnan(rows), np.nanmean(rows, axis=0, keepdims=True), rows)
    spread, size = np.ptp(known, axis=0), np.abs(known).max(axis=0)
    constant = np.flatnonzero(~(spread > 1e-12 * np.maximum(1.0, size)))
    if constant.size:
        words = ", ".join(names[i] if names else str(i) for i in constant)
        raise TrainingRowsError(
            f"column(s) {words} are constant: leave them out, or pass constant='ignore', which "
            "gives them weight 0"
        )


def checked_present(rows: Floats) -> None:
    """Refuse columns without any value.

    Raises:
        TrainingRowsError: some column holds missing values only.
    """
    empty = np.flatnonzero(np.isnan(rows).all(axis=0))
    if empty.size:
        raise TrainingRowsError(f"column(s) {empty.tolist()} hold missing values only")


def checked_labels(labels: object, count: int) -> Array:
    """Return labels, shape (rows,), of a classification.

    Raises:
        LabelError: another number of them, missing, or not labels of classes.
    """
    column = _column(labels, count)
    if column.dtype.kind == "f":
        _refuse_not_finite(column)
        if not np.array_equal(column, np.round(column)):
            raise LabelError(
                "Unknown label type: continuous. Labels of classes are expected; for numbers "
                "there are Ridge and LinearRegression"
            )
    elif column.dtype.kind not in "iubUSO":
        raise LabelError(f"Unknown label type: {column.dtype}")
    return column


def classes_of(labels: Array) -> Array:
    """Return the distinct labels, sorted.

    Raises:
        LabelError: fewer than two, or they cannot be sorted.
    """
    try:
        classes = np.unique(labels)
    except TypeError as error:
        raise LabelError("labels of one kind are expected: numbers or text") from error
    if len(classes) < 2:
        raise LabelError(
            f"labels of two classes or more are needed, got one class: {len(labels)} rows of it"
        )
    return classes


def checked_targets(targets: object, count: int) -> Floats:
    """Return numbers to predict, shape (rows,).

    Raises:
        LabelError: another number of them, missing, or not numbers.
    """
    column = _column(targets, count)
    try:
        numbers = column.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise LabelError(f"targets are numbers, got dtype {column.dtype}") from error
    _refuse_not_finite(numbers)
    return numbers


def feature_names(rows: object) -> list[str] | None:
    """Return the names of a table's columns, if all of them are text."""
    columns = getattr(rows, "columns", None)
    if columns is None:
        return None
    names = list(columns)
    return names if names and all(isinstance(name, str) for name in names) else None


def checked_names(names: Sequence[str] | None, seen: Sequence[str] | None) -> None:
    """Refuse a table whose columns have other names than in training.

    Raises:
        TrainingRowsError: they differ.
    """
    if names is not None and seen is not None and list(seen) != list(names):
        raise TrainingRowsError(
            "The feature names should match those that were passed during fit: expected "
            f"{list(seen)}, got {list(names)}"
        )


def not_downloaded() -> NotTrainedError:
    """Return the error of weights that are still encrypted at the server."""
    return NotTrainedError("the weights are encrypted at the server: call download() first")


def not_trained(model: str) -> NotTrainedError:
    """Return the error of a model that was not fitted; scikit-learn's too where that is loaded."""
    message = f"This {model} instance is not fitted yet. Call 'fit' first."
    exceptions = sys.modules.get("sklearn.exceptions")
    if exceptions is None:
        return NotTrainedError(message)
    both = type("NotTrainedError", (NotTrainedError, exceptions.NotFittedError), {})
    error: NotTrainedError = both(message)
    return error


def _numbers(rows: object) -> Floats:
    table = np.asarray(rows)
    if table.dtype.kind == "c" or _holds_complex(table):
        raise TrainingRowsError("Complex data not supported: real numbers are needed")
    try:
        return np.asarray(table, dtype=np.float64)
    except TypeError as error:
        raise _ObjectRowsError(f"argument must be a string or a number: {error}") from error
    except ValueError as error:
        raise TrainingRowsError(f"rows of numbers are needed: {error}") from error


class _ObjectRowsError(TrainingRowsError, TypeError):
    """Cells that are no numbers at all."""


def _holds_complex(table: Array) -> bool:
    return table.dtype == object and any(isinstance(cell, complex) for cell in table.flat)


def _refuse_sparse(rows: object) -> None:
    if hasattr(rows, "tocsr") or type(rows).__module__.startswith("scipy.sparse"):
        raise TrainingRowsError("sparse rows are not supported: pass rows.toarray()")


def _column(values: object, count: int) -> Array:
    if values is None:
        raise LabelError("requires y to be passed, but the target y is None")
    column = np.asarray(values)
    if column.dtype.kind == "c":
        raise LabelError("Complex data not supported")
    if column.ndim == 2 and column.shape[1] == 1:
        warnings.warn(
            "A column-vector y was passed when a 1d array was expected",
            _column_warning(),
            stacklevel=4,
        )
        column = column[:, 0]
    if column.ndim != 1:
        raise LabelError(f"y should be a 1d array, got an array of shape {column.shape} instead.")
    if len(column) != count:
        raise LabelError(f"{count} rows and {len(column)} labels: one label per row is expected")
    return column


def _column_warning() -> type[Warning]:
    exceptions = sys.modules.get("sklearn.exceptions")
    found: type[Warning] = UserWarning if exceptions is None else exceptions.DataConversionWarning
    return found


def _refuse_not_finite(column: Array) -> None:
    if np.isnan(column).any():
        raise LabelError("Input y contains NaN: every row needs a label")
    if np.isinf(column).any():
        raise LabelError("Input y contains infinity: finite numbers are needed")
