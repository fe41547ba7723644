"""What scikit-learn's tools want to know of an estimator; asked for by scikit-learn only."""

from __future__ import annotations

from typing import Any, Literal


def of_estimator(kind: Literal["classifier", "regressor"], *, missing: bool) -> Any:
    """Return scikit-learn's tags of a classifier or regressor.

    Args:
        kind: which.
        missing: whether NaN stands for a missing value.
    """
    from sklearn.utils import ClassifierTags, InputTags, RegressorTags, Tags, TargetTags

    classifies = kind == "classifier"
    return Tags(
        estimator_type=kind,
        target_tags=TargetTags(required=True),
        classifier_tags=ClassifierTags() if classifies else None,
        regressor_tags=None if classifies else RegressorTags(),
        input_tags=InputTags(allow_nan=missing),
        non_deterministic=False,
        requires_fit=True,
    )
