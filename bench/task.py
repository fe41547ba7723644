"""A task: one model, one workload, the rows to predict and the right answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Task:
    """One workload, given to every subject alike.

    Attributes:
        question: the benchmark question.
        workload: name of the workload.
        arrays: what the workers may use: weights, calibration rows and
            `inputs`, shape (groups, rows, features); round r takes group r modulo their number.
        onnx_path: the model as a user would export it; input rows are `raw_inputs` if those exist
            (before scaling), otherwise `inputs`.
        reference: outputs of the float64 model, shape (groups, rows, outputs).
        threshold: for one output, the value that separates the labels; with several outputs the
            label is the argmax.
    """

    question: str
    workload: str
    arrays: dict[str, Array]
    onnx_path: Path
    reference: Array
    threshold: float = 0.5

    def save_arrays(self, folder: Path) -> Path:
        """Write the arrays where the workers can read them."""
        name = f"{self.question} {self.workload}".replace(" ", "-")
        path = folder / f"{name}.npz"
        with path.open("wb") as file:
            np.savez(file, **self.arrays)  # type: ignore[arg-type]
        return path

    def expected(self, index: int) -> Array:
        """Return the float model's outputs for one round, shape (rows, outputs)."""
        rows: Array = self.reference[index % len(self.reference)]
        return rows

    def output_range(self) -> float:
        """Return the width of the range of the float model's outputs."""
        return float(np.ptp(self.reference)) or 1.0

    def labels(self, outputs: Array) -> npt.NDArray[np.int64]:
        """Turn outputs, shape (rows, outputs), into labels, shape (rows,)."""
        if outputs.shape[1] == 1:
            return (outputs[:, 0] > self.threshold).astype(np.int64)
        labels: npt.NDArray[np.int64] = np.argmax(outputs, axis=1).astype(np.int64)
        return labels
