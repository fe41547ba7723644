"""Question `logreg`: logistic regression on 30 features, one row and a batch of 128."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from bench.plots import draw_comparison as draw
from bench.question import Answer, Options, measure
from bench.record import look_around
from bench.task import Array, Task

__all__ = ["NAME", "SUMMARY", "draw", "make_tasks", "run"]

NAME = "logreg"
SUMMARY = "logistic regression, 30 features (breast cancer): one row, batch 128"
SUBJECTS = (
    "tacit:openfhe",
    "tacit:on_server",
    "tenseal",
    "tenseal:tutorial_chain",
    "tenseal:logits",
    "tenseal:small_logits",
    "concrete-ml",
    "openfhe",
    "openfhe:logits",
)
BATCH_ROWS = 128
SINGLE_ROWS = 20
ROUNDS = 15


def run(options: Options, console: Console) -> Answer:
    """Measure both workloads side by side."""
    around = look_around()
    answer = Answer()
    with tempfile.TemporaryDirectory(prefix="tacit-bench-") as folder:
        for task in make_tasks(Path(folder)):
            part, _ = measure(
                task, options.subjects(SUBJECTS), options.pace(ROUNDS), around, console
            )
            answer.records += part.records
            answer.failures += part.failures
    return answer


def make_tasks(folder: Path) -> list[Task]:
    """Train the model, export it and return the workloads `one row` and `batch 128`."""
    pipeline, calibration, test = _train()
    onnx_path = folder / "logreg.onnx"
    onnx_path.write_bytes(_export(pipeline, calibration))
    singles = test[:SINGLE_ROWS, None, :]
    batch = test[None, :BATCH_ROWS, :]
    workloads = {"one row": singles, f"batch {BATCH_ROWS}": batch}
    return [
        Task(
            question=NAME,
            workload=name,
            arrays=_arrays(pipeline, calibration, rows),
            onnx_path=onnx_path,
            reference=_probabilities(pipeline, rows),
        )
        for name, rows in workloads.items()
    ]


def _train() -> tuple[Any, Array, Array]:
    """Return the fitted pipeline, its training rows and test rows, unscaled."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, labels = load_breast_cancer(return_X_y=True)
    # Exported models read float32, so the float64 reference starts from the same numbers.
    rows = rows.astype(np.float32).astype(np.float64)
    train, test, train_labels, _ = train_test_split(
        rows, labels, test_size=0.4, random_state=0, stratify=labels
    )
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return pipeline.fit(train, train_labels), train, test


def _export(pipeline: Any, rows: Array) -> bytes:
    from skl2onnx import to_onnx

    options = {id(pipeline): {"zipmap": False}}
    model = to_onnx(pipeline, rows[:1].astype(np.float32), options=options)
    exported: bytes = model.SerializeToString()
    return exported


def _arrays(pipeline: Any, calibration: Array, rows: Array) -> dict[str, Array]:
    """Give peers what they need: the scaler's work done, the weights of the linear part."""
    scaler, model = pipeline[0], pipeline[-1]
    flat = rows.reshape(-1, rows.shape[-1])
    return {
        "weights": model.coef_[0],
        "bias": model.intercept_,
        "calibration": scaler.transform(calibration),
        "raw_calibration": calibration,
        "inputs": scaler.transform(flat).reshape(rows.shape),
        "raw_inputs": rows,
    }


def _probabilities(pipeline: Any, rows: Array) -> Array:
    flat = rows.reshape(-1, rows.shape[-1])
    probabilities = pipeline.predict_proba(flat)[:, 1]
    reference: Array = probabilities.reshape(*rows.shape[:2], 1)
    return reference
