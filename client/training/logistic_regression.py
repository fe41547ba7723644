"""Logistic regression on encrypted rows, much as scikit-learn's: two classes or more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tacit.client.training import checks, export
from tacit.client.training.common_parameters import PRESET_DEGREE
from tacit.client.training.estimator import Division, Estimator
from tacit.client.training.parameters import at_least, one_of
from tacit.client.training.preprocessing import Preprocessing
from tacit.client.training.requests import room_for
from tacit.errors import LabelError
from tacit.training import DEGREES, Algorithm, TrainingTask

Array = NDArray[Any]
Floats = NDArray[np.float64]


@dataclass(eq=False, repr=False, kw_only=True)
class LogisticRegression(Estimator):
    """Classifier trained by a server that cannot read rows, weights or predictions.

    With more than two classes there is one model for each against the rest, for example as the
    last layer on the features of a frozen network. Constructor parameters:

        url: the server, or a `tacit.Connection` with token, key directory, passphrase.
        iterations: of Nesterov's gradient method; few do, as rows are prepared.
        degree: of the sigmoid's polynomial: 3, 5 or 7. 5 never diverges.
        clip: prepared features are moved to [-clip, clip].
        whiten: 0 standardises features, 1 makes them uncorrelated; powers between.
        decay: share of the weights that each iteration takes away.
        weight_bits: encryption may put a prepared weight off by 2^-weight_bits; 0 leaves that to
            the server (about 2^-11). 26 leaves room for `release`, at several times the keys.
        batch_rows: rows of a mini-batch; 0 takes all rows in every iteration. A server rounds up to
            whole ciphertexts, so with few rows there is one batch.
        missing: "refuse" or "mean", which fills missing values in at your side.
        constant: "refuse" or "ignore" columns that never change.
        validation: share of the rows held back for the learning curve.
        validate_every: iterations between its points.
        early_stopping: points without improvement after which training stops; 0 for never.
        where: "server" keeps the weights encrypted there and has it predict; "client" downloads
            and decrypts them at the end.
        simulate: train in this process, without encryption and server, with noise alike.
        random_state: of the division into training and validation rows.
        verbose: show progress.

    Attributes:
        classes_: labels in sorted order.
        coef_, intercept_: shape (1 or classes, features) and (1 or classes,), after `download()`.
    """

    _KIND = "classifier"

    classes_: Array = field(init=False)
    degree: int = PRESET_DEGREE
    decay: float = 0.0
    weight_bits: int = 0
    batch_rows: int = 0

    def decision_function(self, X: Any) -> Floats:
        """Return scores: shape (rows,) for two classes, (rows, classes) for more.

        Raises:
            NotTrainedError: not fitted yet.
            TrainingRowsError: another number of features, or not finite.
        """
        margins = self._margins(X)
        return margins[:, 0] if len(self.classes_) == 2 else margins

    def predict_proba(self, X: Any) -> Floats:
        """Return probabilities, shape (rows, classes); see `decision_function`."""
        chances = 0.5 * (1.0 + np.tanh(0.5 * self._margins(X)))
        if len(self.classes_) == 2:
            return np.concatenate([1.0 - chances, chances], axis=1)
        return np.asarray(chances / chances.sum(axis=1, keepdims=True))

    def predict(self, X: Any) -> Array:
        """Return the most likely labels, shape (rows,); see `decision_function`."""
        margins = self._margins(X)
        if len(self.classes_) == 2:
            return np.asarray(self.classes_[(margins[:, 0] > 0).astype(np.int64)])
        return np.asarray(self.classes_[margins.argmax(axis=1)])

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the share of rows whose label is predicted; see `decision_function`."""
        right = self.predict(X) == np.asarray(y)
        return float(np.average(right, weights=sample_weight))

    def _asked(self, X: Any, y: Any) -> tuple[Division, TrainingTask]:
        self._check_parameters()
        one_of("degree", self.degree, DEGREES)
        at_least("decay", self.decay, 0.0)
        table = self._checked_table(X)
        labels = checks.checked_labels(y, len(table))
        self.classes_ = checks.classes_of(labels)
        signs = self._signs(labels)
        division = self._divided(table, signs)
        self.preprocessing_ = Preprocessing.of(division.rows, clip=self.clip, whiten=self.whiten)
        count, held = len(division.rows), division.held_rows
        task = TrainingTask(
            Algorithm.LOGISTIC,
            rows=room_for(count),
            features=self.n_features_in_,
            iterations=self.iterations,
            degree=self.degree,
            classes=signs.shape[1],
            batch_rows=min(self.batch_rows, count),
            decay=self.decay,
            validation_rows=0 if held is None else room_for(len(held)),
            validation_every=0 if held is None else self.validate_every,
            predictions=self.where == "server",
            weight_bits=self.weight_bits,
        )
        return division, task

    def _signs(self, labels: Array) -> Floats:
        """Return 1 or -1, shape (rows, 1), or (rows, classes) for more than two."""
        classes = self.classes_[1:] if len(self.classes_) == 2 else self.classes_
        return np.where(labels[:, None] == classes[None, :], 1.0, -1.0)

    def _strata(self, targets: Floats) -> list[NDArray[np.bool_]]:
        return [np.all(targets == row, axis=1) for row in np.unique(targets, axis=0)]

    def _exported(self) -> bytes:
        return export.classifier(self.coef_, self.intercept_)

    def _for_features(self, weights: Floats) -> tuple[Floats, Floats]:
        pairs = [self.preprocessing_.weights(column) for column in weights.T]
        return np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])

    def _learnt(self) -> Mapping[str, object]:
        return {"classes": self.classes_.tolist(), "dtype": self.classes_.dtype.str}

    def _relearn(self, learnt: Mapping[str, Any]) -> None:
        if not str(learnt["dtype"]).lstrip("<>=|").startswith(("i", "u", "b", "f", "U", "O")):
            raise LabelError("the record of this training holds labels of an unknown kind")
        self.classes_ = np.array(learnt["classes"], dtype=np.dtype(learnt["dtype"]))
