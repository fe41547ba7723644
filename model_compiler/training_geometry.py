"""Sizes and levels of a training's ciphertexts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tacit.errors import ParameterError
from tacit.layout import Layout
from tacit.training import Algorithm, TrainingTask


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes of a training's ciphertexts.

    Attributes:
        task: what is trained.
        slots: of a ciphertext.

    Raises:
        ParameterError: two rows do not fit into a ciphertext.
    """

    task: TrainingTask
    slots: int

    def __post_init__(self) -> None:
        if 2 * self.task.width > self.slots:
            raise ParameterError(
                f"rows of {self.task.width} slots do not fit twice into {self.slots} slots"
            )

    @property
    def batch_ciphertexts(self) -> int:
        """Ciphertexts of rows that an iteration reads."""
        return self._needed(self.task.batch_rows or self.task.rows)

    @property
    def batches(self) -> int:
        """Mini-batches."""
        return -(-self._needed(self.task.rows) // self.batch_ciphertexts)

    @property
    def ciphertexts(self) -> int:
        """Ciphertexts of all rows."""
        return self.batches * self.batch_ciphertexts

    def layout(self, ciphertexts: int) -> Layout:
        """Return the layout of one row to a block: features are Layout's rows."""
        blocks = ciphertexts * self.slots // self.task.width
        cells = np.arange(blocks, dtype=np.int64)[None, :]
        return Layout(self.slots, self.task.width, ciphertexts, cells)

    def weights_layout(self) -> Layout:
        """Return the layout of weights, which are read from the first block."""
        return Layout(self.slots, self.task.width, 1, np.zeros((1, 1), dtype=np.int64))

    @property
    def validation_ciphertexts(self) -> int:
        """Ciphertexts of validation rows."""
        return self._needed(self.task.validation_rows)

    def _needed(self, rows: int) -> int:
        return -(-rows * self.task.width // self.slots)


@dataclass(frozen=True, slots=True)
class Levels:
    """Levels of a training.

    Attributes:
        upload: of rows, labels and validation rows.
        least: of weights and margins that go home.
    """

    upload: int
    least: int = 0


def iteration_depth(task: TrainingTask) -> int:
    """Return the levels of an iteration, the first excepted."""
    if task.algorithm is Algorithm.LINEAR:
        return 3
    return 2 + task.degree.bit_length()


def first_depth(task: TrainingTask) -> int:
    """Return the levels of the first iteration, whose shares do not depend on weights."""
    if not task.labelled:
        return 1
    return 2 + (task.classes > 1)
