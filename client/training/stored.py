"""Between prepared rows, as estimators have them, and stored values, as circuits compute on them.

The contract of `tacit.training_plan`: rows are multiplied so that the step length is 1, targets and
the columns of moments so that they stay within [-1, 1], and what comes back is turned round again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tacit.client.training.requests import TrainingRequest
from tacit.errors import KeyFileError, OverflowedAnswerError, WrongAnswerError
from tacit.logistic import ROW_SCALE
from tacit.training import Algorithm, TrainingTask

Floats = NDArray[np.float64]

# Far above the errors of sums of products of stored values, and less than a row.
_ROWS_OFF = 0.25


@dataclass(frozen=True, slots=True, eq=False)
class StoredUnits:
    """Factors of one training.

    Attributes:
        columns: what the columns (1, features, and for moments the target) are multiplied by to be
            stored.
        target: what targets are multiplied by, where they are ciphertexts of numbers.
        count: rows that were encrypted.
    """

    columns: Floats
    target: float
    count: int

    @classmethod
    def of(cls, request: TrainingRequest) -> StoredUnits:
        """Choose the factors for a request."""
        count, columns = request.rows.shape
        largest = float(np.abs(request.targets).max(initial=0.0)) or 1.0
        if request.task.algorithm is Algorithm.MOMENTS:
            table = np.concatenate([request.rows, request.targets], axis=1)
            sizes = np.abs(table).max(axis=0)  # the plan has room for sums of values in [-1, 1]
            return cls(1.0 / np.where(sizes > 0.0, sizes, 1.0), 1.0, count)
        row_factor = math.sqrt(request.step * request.task.rows / (request.curvature * count))
        linear = request.task.algorithm is Algorithm.LINEAR
        factors = np.full(columns, row_factor / ROW_SCALE)
        return cls(factors, 0.5 / largest if linear else 1.0, count)

    def rows(self, request: TrainingRequest) -> Floats:
        """Return the rows to be encrypted."""
        if request.task.algorithm is Algorithm.MOMENTS:
            return np.concatenate([request.rows, request.targets], axis=1) * self.columns
        rows = request.rows * self.columns
        return rows if request.task.labelled else rows * request.targets

    def labels(self, request: TrainingRequest) -> Floats | None:
        """Return the labels to be encrypted, where they are ciphertexts of their own."""
        if not request.task.labelled:
            return None
        if request.task.algorithm is Algorithm.LINEAR:
            return request.targets * self.target
        return (request.targets + 1.0) / 2.0

    def queries(self, rows: Floats) -> Floats:
        """Return rows to be validated on or predicted, unsigned."""
        return rows * self.columns[: rows.shape[1]]

    def weights(self, task: TrainingTask, received: Floats) -> Floats:
        """Return weights of prepared rows, shape (features + 1, classes).

        Args:
            task: what is trained.
            received: shape (classes, features + 1), stored.
        """
        scale = task.margin_scale / self.target
        return np.asarray(received.T * (self.columns[:, None] * scale))

    def margins(self, received: Floats) -> Floats:
        """Return margins in units of the targets; `TrainingPlan.margins` came before."""
        return received / self.target

    def moments(self, received: Floats) -> Floats:
        """Return means of products of prepared columns from stored sums.

        What the sums must be like is known: the constant column is 1 in every row, no sum of
        squares is below 0 or above that of the constant, no other sum beyond what theirs allow.

        Raises:
            WrongAnswerError: the server summed up other rows, or made a fault.
            OverflowedAnswerError: sums that no rows have: some wrapped around.
        """
        squares = np.maximum(np.diag(received), 0.0)
        beyond = np.abs(received) - np.sqrt(np.outer(squares, squares))
        if not beyond.max() <= _ROWS_OFF or squares.max() > self.count + _ROWS_OFF:
            raise OverflowedAnswerError(
                "the sums of products are those of no rows at all: they outgrew the modulus, or "
                "the server used other evaluation keys; do not use them, train again"
            )
        if abs(received[0, 0] - self.count) > _ROWS_OFF:
            raise WrongAnswerError(
                f"the server's sums are not those over the {self.count} rows that were sent: it "
                "computed with other rows or made a fault; train again"
            )
        return np.asarray(received * self.per_sum)

    @property
    def per_sum(self) -> Floats:
        """What stored sums of products are multiplied by to be means of prepared columns."""
        return np.asarray(1.0 / (np.outer(self.columns, self.columns) * self.count))

    def to_json(self) -> dict[str, object]:
        """Return a JSON-serialisable dict."""
        return {"columns": self.columns.tolist(), "target": self.target, "count": self.count}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> StoredUnits:
        """Rebuild from `to_json`.

        Raises:
            KeyFileError: a field is missing or of the wrong form.
        """
        try:
            columns = np.array(fields["columns"], dtype=np.float64)
            return cls(columns, float(fields["target"]), int(fields["count"]))
        except (KeyError, TypeError, ValueError) as error:
            raise KeyFileError("the record of this training is damaged") from error
