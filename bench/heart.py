"""Question `heart`: the area under the curve, encrypted and clear, on four hospitals' patients."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

from bench.plots import draw_auc as draw
from bench.question import Answer, Options, measure
from bench.record import Record, Surroundings, look_around
from bench.report import Figure, record_of
from bench.rounds import Outcome
from bench.task import Array, Task

__all__ = ["NAME", "SUMMARY", "draw", "make_tasks", "read_hospital", "run"]

NAME = "heart"
SUMMARY = "heart disease, four hospitals: encrypted AUC against clear AUC (needs --heart DIR)"
HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
FEATURES = 13
HIDDEN = 16
ROUNDS = 1
SEED = 3
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Patients:
    """Complete rows.

    Attributes:
        rows: shape (patients, 13); missing values are replaced (the client's business, in clear).
        labels: 1 = diseased.
        hospitals: index into `HOSPITALS`.
    """

    rows: Array
    labels: Labels
    hospitals: Labels

    def only(self, chosen: npt.NDArray[Any]) -> Patients:
        """Return some of the patients."""
        return Patients(self.rows[chosen], self.labels[chosen], self.hospitals[chosen])


def run(options: Options, console: Console) -> Answer:
    """Compare the AUC of both models over the test patients, pooled and per hospital."""
    if options.heart is None:
        console.print(
            "heart skipped: give --heart DIR, a folder with processed.{cleveland,hungarian,"
            "switzerland,va}.data from the UCI repository (Heart Disease)"
        )
        return Answer()
    around = look_around()
    answer = Answer()
    with tempfile.TemporaryDirectory(prefix="tacit-bench-") as folder:
        tasks, test = make_tasks(Path(folder), options.heart)
        for task in tasks:
            part, outcomes = measure(
                task, options.subjects(()), options.pace(ROUNDS), around, console
            )
            answer.records += part.records
            answer.failures += part.failures
            for outcome in outcomes:
                if outcome.name == "tacit" and outcome.measured:
                    answer.records += _compare(outcome, task, test, around, console)
    return answer


def make_tasks(folder: Path, source: Path) -> tuple[list[Task], Patients]:
    """Train two models on 70 % of each hospital's patients.

    Returns:
        The workloads `logistic regression` and `network`, one group with all test rows, and
        the test patients.
    """
    train, test = _split(_read_all(source))
    makers: dict[str, Callable[[Patients], tuple[onnx.ModelProto, Predict]]] = {
        "logistic regression": _logistic_regression,
        "network": _network,
    }
    tasks = []
    for workload, make in makers.items():
        model, predict = make(train)
        onnx_path = folder / f"heart-{workload.replace(' ', '-')}.onnx"
        onnx.save(model, onnx_path)
        arrays = {"inputs": test.rows[None], "calibration": train.rows}
        reference = predict(test.rows)[None, :, None]
        tasks.append(Task(NAME, workload, arrays, onnx_path, reference))
    return tasks, test


def read_hospital(path: Path) -> tuple[Array, Labels]:
    """Read a `processed.*.data` file: 14 columns by commas; `?` or nothing is missing (NaN).

    Raises:
        ValueError: a line has another number of columns.
    """
    lines = [line.split(",") for line in path.read_text().splitlines() if line.strip()]
    for number, fields in enumerate(lines, start=1):
        if len(fields) != FEATURES + 1:
            raise ValueError(f"{path.name}, line {number}: expected 14 columns, got {len(fields)}")
    values = np.array([[_number(field) for field in line] for line in lines])
    return values[:, :FEATURES], (values[:, FEATURES] > 0).astype(np.int64)


Predict = Callable[[Array], Array]


def _number(field: str) -> float:
    return float("nan") if field.strip() in ("", "?") else float(field)


def _read_all(source: Path) -> Patients:
    parts = [read_hospital(source / f"processed.{name}.data") for name in HOSPITALS]
    hospitals = np.concatenate([np.full(len(rows), i) for i, (rows, _) in enumerate(parts)])
    rows = np.concatenate([rows for rows, _ in parts])
    return Patients(rows, np.concatenate([labels for _, labels in parts]), hospitals)


def _split(patients: Patients) -> tuple[Patients, Patients]:
    """Split within each hospital and label; fill gaps with the training patients' medians."""
    from sklearn.model_selection import train_test_split

    strata = patients.hospitals * 2 + patients.labels
    train, test = train_test_split(
        np.arange(len(patients.rows)), test_size=0.3, random_state=SEED, stratify=strata
    )
    medians = np.nanmedian(patients.rows[train], axis=0)
    filled = np.where(np.isnan(patients.rows), medians, patients.rows)
    # The exported models read float32: the float64 reference starts from the same numbers.
    complete = Patients(
        filled.astype(np.float32).astype(np.float64), patients.labels, patients.hospitals
    )
    return complete.only(train), complete.only(test)


def _logistic_regression(train: Patients) -> tuple[onnx.ModelProto, Predict]:
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    pipeline.fit(train.rows, train.labels)
    options = {id(pipeline): {"zipmap": False}}
    model = to_onnx(pipeline, train.rows[:1].astype(np.float32), options=options)
    return model, lambda rows: pipeline.predict_proba(rows)[:, 1]


def _network(train: Patients) -> tuple[onnx.ModelProto, Predict]:
    """Fit 13-16-1 with tanh, and write it as Sub, Div, Gemm, Tanh, Gemm, Sigmoid."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(train.rows)
    network = MLPClassifier((HIDDEN,), "tanh", alpha=1.0, max_iter=500, random_state=SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(scaler.transform(train.rows), train.labels)
    constants = {
        "mean": scaler.mean_,
        "spread": scaler.scale_,
        "weights_1": network.coefs_[0],
        "bias_1": network.intercepts_[0],
        "weights_2": network.coefs_[1],
        "bias_2": network.intercepts_[1],
    }
    rounded = {n: a.astype(np.float32).astype(np.float64) for n, a in constants.items()}
    return _export_network(rounded), lambda rows: _run_network(rounded, rows)


def _run_network(w: dict[str, Array], rows: Array) -> Array:
    hidden = np.tanh((rows - w["mean"]) / w["spread"] @ w["weights_1"] + w["bias_1"])
    probabilities: Array = 1 / (1 + np.exp(-(hidden @ w["weights_2"] + w["bias_2"])[:, 0]))
    return probabilities


def _export_network(w: dict[str, Array]) -> onnx.ModelProto:
    steps = (
        ("Sub", ["x", "mean"], "centred"),
        ("Div", ["centred", "spread"], "scaled"),
        ("Gemm", ["scaled", "weights_1", "bias_1"], "sums"),
        ("Tanh", ["sums"], "hidden"),
        ("Gemm", ["hidden", "weights_2", "bias_2"], "logit"),
        ("Sigmoid", ["logit"], "risk"),
    )
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, [out], name=out) for kind, inputs, out in steps],
        "heart",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", FEATURES])],
        [helper.make_tensor_value_info("risk", TensorProto.FLOAT, ["rows", 1])],
        [numpy_helper.from_array(a.astype(np.float32), name) for name, a in w.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def _compare(
    outcome: Outcome, task: Task, test: Patients, around: Surroundings, console: Console
) -> list[Record]:
    """Return clear and encrypted AUC and their difference, pooled and per hospital."""
    from sklearn.metrics import roc_auc_score

    encrypted = np.array(outcome.rounds[0].outputs)[:, 0]
    clear = task.expected(0)[:, 0]
    groups = {"all four": np.ones(len(test.labels), dtype=bool)}
    groups |= {name: test.hospitals == i for i, name in enumerate(HOSPITALS)}
    records = []
    for group, chosen in groups.items():
        labels = test.labels[chosen]
        exact = float(roc_auc_score(labels, clear[chosen]))
        ours = float(roc_auc_score(labels, encrypted[chosen]))
        console.print(
            f"{task.workload}, {group}: AUC clear {exact:.4f}, encrypted {ours:.4f}, "
            f"{chosen.sum()} patients"
        )
        figures = {
            "auc_clear": exact,
            "auc_encrypted": ours,
            "auc_difference": abs(ours - exact),
        }
        workload = f"{task.workload}, {group}"
        records += [
            record_of(Figure(m, "1", [v]), outcome, around, question=NAME, workload=workload)
            for m, v in figures.items()
        ]
    return records
