"""The estimators under scikit-learn's own checks, simulated."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

import tacit

pytest.importorskip("sklearn", minversion="1.6", reason="the checks of scikit-learn 1.6")

# With the weights at the server, each prediction is a fresh encryption with fresh noise (1e-6).
NOISY = "encrypted predictions carry fresh noise, above the check's tolerance of 1e-7"
EXCLUDED: dict[str, dict[str, str]] = {
    "server": {
        "check_methods_sample_order_invariance": NOISY,
        "check_methods_subset_invariance": NOISY,
        "check_pipeline_consistency": NOISY,
    },
    "client": {},
}
MODELS: list[tuple[type[Any], dict[str, Any]]] = [
    (tacit.LogisticRegression, {}),
    (tacit.Ridge, {}),
    (tacit.Ridge, {"solver": "gradient"}),
    (tacit.LinearRegression, {}),
]


@pytest.mark.parametrize("where", ["server", "client"])
@pytest.mark.parametrize(("model", "params"), MODELS)
def test_the_estimator_passes_scikit_learns_checks(
    model: type[Any], params: dict[str, Any], where: str
) -> None:
    from sklearn.utils.estimator_checks import check_estimator

    estimator = model(simulate=True, where=where, **params)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some checks provoke warnings and look at them
        results = check_estimator(
            estimator, expected_failed_checks=EXCLUDED[where], on_skip=None, on_fail=None
        )
    failed = {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"}
    assert not failed
    passed = sum(result["status"] == "passed" for result in results)
    assert passed >= len(results) - len(EXCLUDED[where]) - 1
