"""Trees and support vector machines from scikit-learn, compiled, simulated and encrypted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tacit.artifact import Artifact
from tacit.model_compiler import CompileOptions, compile_model
from tacit.runtime.simulate import simulate
from tests.model_compiler.encrypted import run_encrypted, tiny_insecure

sklearn = pytest.importorskip("sklearn")
skl2onnx = pytest.importorskip("skl2onnx")

from sklearn import datasets, ensemble, svm, tree  # noqa: E402
from sklearn.model_selection import train_test_split  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402

Floats = NDArray[np.float64]

# Encryption errors of a tiny ring stay far below what the polynomials cost.
CLASS_ERROR = 0.06


class Split:
    """A data set in two halves."""

    def __init__(self, load: Any) -> None:
        x, y = load(return_X_y=True)
        parts = train_test_split(x.astype(np.float32), y, random_state=0)
        self.x, self.unseen, self.y, self.answers = parts


def compiled(model: Any, split: Split, out: Path, **options: Any) -> Artifact:
    given = {
        "calibration": split.x,
        "plans": ("latency",),
        "precision_bits": 8.0,
        "bootstrap": "never",  # which way is faster is not asked here, and takes long to find out
        **options,
    }
    classifier = hasattr(model, "classes_")
    onx = skl2onnx.to_onnx(
        model, split.x[:1], options={"zipmap": False} if classifier else None, target_opset=17
    )
    return compile_model(onx, out, options=CompileOptions(name="m", **given))


def activation(artifact: Artifact, function: str) -> dict[str, Any]:
    """Return the report on the one activation of a kind."""
    activations: Any = artifact.report["activations"]
    (found,) = [a for a in activations if a["function"] == function]
    return dict(found)


def undecided(fitted: Any, rows: Floats, seen: Floats, margin: float) -> NDArray[np.bool_]:
    """Mark rows that come within the stated margin of a threshold on their path."""
    found = np.zeros(len(rows), dtype=np.bool_)
    trees = getattr(fitted, "estimators_", np.array([fitted]))
    for each in np.ravel(trees):
        structure = each.tree_
        paths = structure.decision_path(rows.astype(np.float32))
        inner = structure.children_left != -1
        for node in np.flatnonzero(inner):
            feature, threshold = structure.feature[node], structure.threshold[node]
            reach = 1.5 * np.abs(seen[:, feature] - threshold).max()
            close = np.abs(rows[:, feature] - threshold) <= margin * reach
            found |= close & np.asarray(paths[:, [node]].todense()).ravel().astype(bool)
    return found


CLASSIFIERS = {
    "tree": lambda: tree.DecisionTreeClassifier(max_depth=4, random_state=0),
    "forest": lambda: ensemble.RandomForestClassifier(10, max_depth=4, random_state=0),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_keeps_every_class_outside_the_stated_margin(
    name: str, tmp_path: Path
) -> None:
    split = Split(datasets.load_breast_cancer)
    fitted = CLASSIFIERS[name]().fit(split.x, split.y)
    artifact = compiled(fitted, split, tmp_path)
    report = activation(artifact, "step")
    assert 0.0 < report["margin"] < 2.0**-7
    result = simulate(artifact, split.unseen, noise=True, clip=True)
    assert result.overflows == 0
    labels, scores = result.outputs["label"], result.outputs["probabilities"]
    close = undecided(fitted, split.unseen, split.x, report["margin"])
    assert close.mean() < 0.5
    expected = fitted.predict(split.unseen)
    assert np.array_equal(labels[~close], expected[~close])
    assert (labels == expected).mean() >= 0.98
    error = np.abs(scores - fitted.predict_proba(split.unseen)).max(axis=1)
    assert error[~close].max() <= CLASS_ERROR


def test_a_boosted_regressor_keeps_its_values(tmp_path: Path) -> None:
    split = Split(datasets.load_diabetes)
    fitted = ensemble.GradientBoostingRegressor(n_estimators=30, max_depth=3, random_state=0)
    fitted.fit(split.x, split.y)
    artifact = compiled(fitted, split, tmp_path)
    (got,) = simulate(artifact, split.unseen, noise=True, clip=True).outputs.values()
    expected = fitted.predict(split.unseen)
    errors = np.abs(np.ravel(got) - expected) / np.ptp(expected)
    assert np.sqrt(np.mean(errors**2)) <= 0.02


def test_every_comparison_uses_its_whole_domain_whatever_its_unit(tmp_path: Path) -> None:
    """Features in units a million times larger give the same circuit."""
    split = Split(datasets.load_iris)
    margins = []
    for factor in (1.0, 1e6):
        scaled = Split(datasets.load_iris)
        scaled.x, scaled.unseen = split.x.copy(), split.unseen.copy()
        scaled.x[:, 0] *= factor
        scaled.unseen[:, 0] *= factor
        fitted = tree.DecisionTreeClassifier(max_depth=3, random_state=0).fit(scaled.x, scaled.y)
        artifact = compiled(fitted, scaled, tmp_path)
        report = activation(artifact, "step")
        margins.append((report["margin"], report["degrees"]))
        labels = simulate(artifact, scaled.unseen, clip=True).outputs["label"]
        assert np.array_equal(labels, fitted.predict(scaled.unseen))
    assert margins[0] == margins[1]


def test_a_tree_gives_the_same_classes_encrypted(tmp_path: Path) -> None:
    pytest.importorskip("openfhe", reason="openfhe does not import here")
    split = Split(datasets.load_iris)
    fitted = tree.DecisionTreeClassifier(max_depth=3, random_state=0).fit(split.x, split.y)
    artifact = compiled(fitted, split, tmp_path, params=tiny_insecure(17), accuracy=0.01)
    rows = np.clip(split.unseen[:4], split.x.min(axis=0), split.x.max(axis=0))
    got = run_encrypted(artifact, {"X": rows})
    want = simulate(artifact, rows).outputs
    assert np.array_equal(got["label"], fitted.predict(rows))
    np.testing.assert_allclose(got["probabilities"], want["probabilities"], atol=2.0**-12)


MACHINES = {
    "rbf": lambda: svm.SVC(kernel="rbf", gamma="scale"),
    "sigmoid": lambda: svm.SVC(kernel="sigmoid", gamma=0.02),
}


@pytest.mark.parametrize("kernel", MACHINES)
def test_a_kernel_machine_keeps_its_classes(kernel: str, tmp_path: Path) -> None:
    split = Split(datasets.load_breast_cancer)
    fitted = make_pipeline(StandardScaler(), MACHINES[kernel]()).fit(split.x, split.y)
    artifact = compiled(fitted, split, tmp_path)
    labels = simulate(artifact, split.unseen, noise=True, clip=True).outputs["label"]
    sure = np.abs(fitted.decision_function(split.unseen)) > 0.02
    assert np.array_equal(labels[sure], fitted.predict(split.unseen)[sure])
    assert sure.mean() > 0.9


def test_a_radial_regressor_keeps_its_values(tmp_path: Path) -> None:
    split = Split(datasets.load_diabetes)
    fitted = make_pipeline(StandardScaler(), svm.SVR(kernel="rbf", C=50.0)).fit(split.x, split.y)
    artifact = compiled(fitted, split, tmp_path)
    (got,) = simulate(artifact, split.unseen, noise=True, clip=True).outputs.values()
    expected = fitted.predict(split.unseen)
    errors = np.abs(np.ravel(got) - expected) / np.ptp(expected)
    assert np.sqrt(np.mean(errors**2)) <= 0.01
