"""Support vector machines of scikit-learn, against onnxruntime and the estimators.

ONNX's own reference couples the probabilities of pairs wrongly where there are three classes.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from skl2onnx import to_onnx
from sklearn.svm import SVC, NuSVC

from tacit.clear_steps import steps_from_json, steps_to_json
from tacit.errors import UnsupportedModelError
from tacit.model_compiler.graph import Activation, Affine
from tacit.model_compiler.onnx_import import import_onnx
from tests.model_compiler.onnx_models import run_imported

GENERATOR = np.random.default_rng(11)
X = GENERATOR.normal(size=(120, 4)).astype(np.float32)
SCORES = X @ GENERATOR.normal(size=(4, 5))
TWO, THREE, FIVE = (SCORES[:, :k].argmax(axis=1) for k in (2, 3, 5))
NAMED = np.array(["a", "b", "long"])[THREE]

MACHINES = {
    "three_classes": (SVC(), THREE),
    "names_of_three": (SVC(kernel="poly", degree=2), NAMED),
    "five_linear": (SVC(kernel="linear"), FIVE),
    "one_against_one": (SVC(decision_function_shape="ovo"), FIVE),
    "nu": (NuSVC(nu=0.2, kernel="sigmoid"), THREE),
    "probabilities_of_two": (SVC(probability=True, random_state=0), TWO),
    "probabilities_of_three": (SVC(probability=True, random_state=0), NAMED),
    "probabilities_of_five": (SVC(kernel="linear", probability=True, random_state=0), FIVE),
}


@pytest.mark.parametrize("key", MACHINES)
def test_a_machine_for_several_classes_equals_onnxruntime(key: str) -> None:
    estimator, target = MACHINES[key]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # probability=True is on its way out
        estimator.fit(X, target)
    model = to_onnx(estimator, X[:1], options={"zipmap": False})
    graph = import_onnx(model, name=key)
    label, scores = run_imported(graph, {"X": X})
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(model.SerializeToString())
    wanted_label, wanted_scores = session.run(None, {"X": X})
    assert label.tolist() == wanted_label.tolist()
    np.testing.assert_allclose(scores, wanted_scores, atol=2e-5)
    assert np.mean(label == estimator.predict(X)) > 0.95
    assert any(isinstance(node, Activation | Affine) for node in graph.nodes)
    steps = steps_to_json(graph.epilogue)
    assert steps_to_json(steps_from_json(steps)) == steps


def test_decisions_that_do_not_fit_the_classes_are_refused_by_name() -> None:
    model = to_onnx(SVC().fit(X, THREE), X[:1])
    machine = next(node for node in model.graph.node if node.op_type == "SVMClassifier")
    rho = next(a for a in machine.attribute if a.name == "rho")
    del rho.floats[-1]
    with pytest.raises(UnsupportedModelError, match="3 pairs of classes need as many rho"):
        import_onnx(model, name="damaged")
    counts = next(a for a in machine.attribute if a.name == "vectors_per_class")
    counts.ints[0] += 1
    with pytest.raises(UnsupportedModelError, match="do not fit the vectors per class"):
        import_onnx(model, name="damaged")
