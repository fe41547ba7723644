from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from bench import heart, logreg
from bench.mlp import Network, export, train
from bench.task import Array

LINE = "63.0,1.0,1.0,145.0,233.0,1.0,2.0,150.0,0.0,2.3,3.0,0.0,6.0,0"


def run_onnx(model: onnx.ModelProto, rows: Array) -> list[Array]:
    """Run a model with the ONNX reference implementation."""
    name = model.graph.input[0].name
    outputs = ReferenceEvaluator(model).run(None, {name: rows.astype(np.float32)})
    return [np.asarray(output, dtype=np.float64) for output in outputs]


def test_the_exported_network_is_the_float_network() -> None:
    generator = np.random.default_rng(0)
    network = Network(
        generator.normal(size=(6, 4)),
        generator.normal(size=4),
        generator.normal(size=(4, 3)),
        generator.normal(size=3),
    )
    x = generator.normal(size=(5, 6))
    answer = run_onnx(export(network), x)[-1]
    np.testing.assert_allclose(answer, network.logits(x), rtol=1e-4, atol=1e-4)


def test_training_learns_what_no_linear_model_can() -> None:
    generator = np.random.default_rng(1)
    x = generator.uniform(-1, 1, size=(600, 2))
    labels = np.where(x[:, 0] * x[:, 1] > 0, 1, 0)
    network = train(x, labels)
    right = network.logits(x).argmax(axis=1) == labels
    assert right.mean() > 0.95


def test_logreg_arrays_and_onnx_give_the_reference(tmp_path: Path) -> None:
    single, batch = logreg.make_tasks(tmp_path)
    assert single.reference.shape == (20, 1, 1)
    assert batch.reference.shape == (1, 128, 1)
    for task in (single, batch):
        logits = task.arrays["inputs"] @ task.arrays["weights"] + task.arrays["bias"]
        np.testing.assert_allclose(1 / (1 + np.exp(-logits)), task.reference[..., 0], atol=1e-12)
    scores = run_onnx(onnx.load(batch.onnx_path), batch.arrays["raw_inputs"][0])[-1]
    np.testing.assert_allclose(scores[:, 1], batch.expected(0)[:, 0], atol=1e-5)


def write_hospitals(folder: Path) -> None:
    """Write four files of made-up patients whose label follows the fourth column."""
    generator = np.random.default_rng(2)
    for name in heart.HOSPITALS:
        rows: Array = generator.uniform(0, 5, size=(40, 13)).round(2)
        labels = (rows[:, 3] > 2.5).astype(int)
        lines = [
            ",".join(["?", *map(str, r[1:]), str(y)]) for r, y in zip(rows, labels, strict=True)
        ]
        lines[0] = lines[0].replace("?", "1.0")
        (folder / f"processed.{name}.data").write_text("\n".join(lines) + "\n")


def test_heart_models_export_what_they_predict(tmp_path: Path) -> None:
    write_hospitals(tmp_path)
    tasks, test = heart.make_tasks(tmp_path, tmp_path)
    assert len(test.rows) == 48
    assert not np.isnan(test.rows).any()
    for task in tasks:
        scores = run_onnx(onnx.load(task.onnx_path), task.arrays["inputs"][0])[-1]
        np.testing.assert_allclose(scores[:, -1:], task.expected(0), atol=1e-5)


def test_missing_values_may_be_empty_or_a_question_mark(tmp_path: Path) -> None:
    path = tmp_path / "processed.va.data"
    path.write_text(f"{LINE}\n{LINE.replace('145.0', '?').replace('233.0', '')[:-1]}3\n")
    rows, labels = heart.read_hospital(path)
    assert np.isnan(rows[1, [3, 4]]).all()
    assert not np.isnan(rows[0]).any()
    assert labels.tolist() == [0, 1]


def test_a_line_with_too_few_columns_is_named(tmp_path: Path) -> None:
    path = tmp_path / "processed.va.data"
    path.write_text(f"{LINE}\n1,2,3\n")
    with pytest.raises(ValueError, match="line 2: expected 14 columns, got 3"):
        heart.read_hospital(path)
