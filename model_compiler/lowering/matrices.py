"""What kind of affine map a node is: pure additions, scalar multiples, or a matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array

from tacit.model_compiler.builder import NEGLIGIBLE
from tacit.model_compiler.graph import Affine

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Coordinates:
    """Nonzero entries of a matrix: parallel arrays."""

    row: Ints
    column: Ints
    value: Floats


def coordinates(matrix: csr_array) -> Coordinates:
    """List the entries of a sparse matrix that are not negligible."""
    entries = coo_array(matrix)
    kept = np.abs(entries.data) > NEGLIGIBLE
    return Coordinates(
        entries.row[kept].astype(np.int64),
        entries.col[kept].astype(np.int64),
        entries.data[kept].astype(np.float64),
    )


def scalar_of(matrix: csr_array) -> float | None:
    """Return s if the matrix is s times the identity, s not 0, else None."""
    rows, columns = matrix.shape
    if rows != columns or not _begins_with_a_unit(matrix):
        return None
    if np.count_nonzero(matrix.data) != rows:
        return None
    entries = coordinates(matrix)
    if len(entries.row) != rows or np.any(entries.row != entries.column):
        return None
    first = float(entries.value[0])
    return first if np.all(entries.value == first) else None


def _begins_with_a_unit(matrix: csr_array) -> bool:
    """Tell whether the first row has an entry on the diagonal alone, without reading the others."""
    first = slice(int(matrix.indptr[0]), int(matrix.indptr[1]))
    return bool(np.all(matrix.indices[first][matrix.data[first] != 0.0] == 0))


def with_factors(
    matrix: csr_array, rows: Floats | float = 1.0, columns: Floats | float = 1.0
) -> csr_array:
    """Multiply every row and every column of a sparse matrix by a factor of its own."""
    by_row = np.repeat(rows, np.diff(matrix.indptr)) if np.ndim(rows) else rows
    by_column = np.asarray(columns)[matrix.indices] if np.ndim(columns) else columns
    data = matrix.data * by_column * by_row
    return csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape, copy=True)


def scalars_of(node: Affine) -> tuple[float, ...] | None:
    """Return one factor per input if every matrix is a multiple of the identity, else None."""
    factors = [scalar_of(matrix) for matrix in node.matrices]
    known = tuple(f for f in factors if f is not None)
    return known if len(known) == len(factors) else None


def is_signs(factors: tuple[float, ...]) -> bool:
    """Tell whether all factors are 1 or -1."""
    return all(f in (1.0, -1.0) for f in factors)


def has_only_unit_entries(node: Affine) -> bool:
    """Tell whether every entry is 1 or -1 and no row is empty: additions of elements."""
    if any(np.any((matrix.data != 0.0) & (np.abs(matrix.data) != 1.0)) for matrix in node.matrices):
        return False
    entries = [coordinates(matrix) for matrix in node.matrices]
    rows = np.concatenate([e.row for e in entries])
    return len(np.unique(rows)) == len(node.bias)
