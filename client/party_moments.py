"""Joint standardisation: pooled means and deviations of columns, and nobody's own.

Each party sums up its rows and, for every column, how many values it has, their sum and the sum of
their squares, with values mapped from the column's agreed range to [0, 1]. Only the totals over all
parties are decrypted. Missing values (NaN) are left out of their column's sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tacit.client.party_sums import JointSums
from tacit.errors import InputRangeError, InputShapeError, SchemaMismatchError
from tacit.logistic import CLIP, Preparation
from tacit.party_terms import SessionTerms

Floats = NDArray[np.float64]

_SUMS_PER_COLUMN = 3
_CURVATURE_SHARE = 0.25
# Encoding and decoding work in double precision, which leaves fewer bits than it has.
_DOUBLE_BITS = 44.0
_MARGIN_BITS = 4.0


@dataclass(frozen=True, slots=True, eq=False)
class PooledMoments:
    """What all parties learn of the pooled table.

    Attributes:
        columns: names.
        rows: of all parties.
        counts: values that are there, by column; shape (columns,).
        means: shape (columns,).
        deviations: standard deviations; 0 for constant columns.
    """

    columns: tuple[str, ...]
    rows: int
    counts: NDArray[np.int64]
    means: Floats
    deviations: Floats

    def to_json(self) -> dict[str, object]:
        """Return a JSON-serialisable dict."""
        return {
            "columns": list(self.columns),
            "rows": self.rows,
            "counts": self.counts.tolist(),
            "means": self.means.tolist(),
            "deviations": self.deviations.tolist(),
        }

    def filled(self, x: Floats) -> Floats:
        """Put the pooled mean where a value is missing."""
        return np.where(np.isnan(x), self.means, x)

    def preparation(self) -> Preparation:
        """Return the standardisation that every party applies to its rows."""
        constant = self.deviations <= 0.0
        inverse = np.where(constant, 0.0, 1.0 / np.where(constant, 1.0, self.deviations))
        return Preparation(self.means, np.diag(inverse), 1.0)


def pooled_moments(sums: JointSums, x: Floats, seconds: float) -> PooledMoments:
    """Compute pooled moments with the other parties.

    Args:
        sums: an activity of the session.
        x: this party's table, shape (rows, columns), NaN where a value is missing.
        seconds: how long to wait for the others in each step.

    Raises:
        SchemaMismatchError, InputShapeError: other columns than agreed, or no rows.
        InputRangeError: a value outside its column's range; names the column.
    """
    terms = sums.keys.session.terms
    totals = sums.run(local_sums(terms, x), seconds) * terms.most_rows
    counts, first, second = totals[1:].reshape(_SUMS_PER_COLUMN, -1)
    whole = np.rint(counts).astype(np.int64)
    n = np.maximum(whole, 1)
    low, width = _ranges(terms)
    mean = first / n
    # Sums are off by up to 2^-precision_bits of the whole: what is near that counts as constant.
    exact = min(sums.smudging().precision_bits, _DOUBLE_BITS)
    least = terms.most_rows * 2.0 ** (_MARGIN_BITS - exact)
    variance = np.where(second - n * mean**2 <= least, 0.0, second / n - mean**2)
    names = tuple(column.name for column in terms.columns)
    rows = round(float(totals[0]))
    return PooledMoments(names, rows, whole, low + width * mean, width * np.sqrt(variance))


def local_sums(terms: SessionTerms, x: Floats) -> Floats:
    """Return one party's numbers: rows, counts, sums, sums of squares; over `most_rows`."""
    low, width = _ranges(terms)
    _check_table(terms, x)
    mapped = (x - low) / width
    present = ~np.isnan(mapped)
    outside = present & ~((mapped >= 0.0) & (mapped <= 1.0))
    if outside.any():
        column = terms.columns[int(np.flatnonzero(outside.any(axis=0))[0])]
        raise InputRangeError(
            f"column {column.name!r} has values outside the agreed range "
            f"[{column.low:g}, {column.high:g}]: correct or clip them"
        )
    u = np.where(present, mapped, 0.0)
    parts = [[len(x)], present.sum(axis=0), u.sum(axis=0), (u * u).sum(axis=0)]
    return np.asarray(np.concatenate(parts) / terms.most_rows, dtype=np.float64)


def pooled_curvature(sums: JointSums, moments: PooledMoments, x: Floats, seconds: float) -> float:
    """Compute the largest curvature of the pooled logistic loss, for the step length.

    Reveals the pooled matrix of second moments of the standardised, clipped columns.

    Args:
        sums: an activity of the session.
        moments: of the pooled table.
        x: this party's table.
        seconds: how long to wait for the others in each step.
    """
    rows = moments.preparation().extended(moments.filled(x))
    places = np.triu_indices(rows.shape[1])
    largest = CLIP * CLIP * sums.keys.session.terms.most_rows
    totals = sums.run((rows.T @ rows)[places] / largest, seconds) * largest
    gram: Floats = np.zeros((rows.shape[1],) * 2)
    gram[places] = totals
    gram = gram + np.triu(gram, 1).T
    return _CURVATURE_SHARE * float(np.linalg.eigvalsh(gram / gram[0, 0]).max())


def _ranges(terms: SessionTerms) -> tuple[Floats, Floats]:
    low = np.array([column.low for column in terms.columns])
    high = np.array([column.high for column in terms.columns])
    return low, high - low


def _check_table(terms: SessionTerms, x: Floats) -> None:
    if not terms.columns:
        raise SchemaMismatchError("the session has no columns")
    if x.ndim != 2 or x.shape[1] != len(terms.columns):
        raise SchemaMismatchError(
            f"a table of {len(terms.columns)} columns is agreed on, got shape {x.shape}"
        )
    if not 1 <= len(x) <= terms.most_rows:
        raise InputShapeError(f"1 to {terms.most_rows} rows expected, got {len(x)}")
