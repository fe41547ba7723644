"""Linear regression on encrypted rows, with and without a penalty, as scikit-learn's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tacit.client.training import checks, export
from tacit.client.training.common_parameters import PRESET_CLIP
from tacit.client.training.estimator import Division, Estimator
from tacit.client.training.job import Course
from tacit.client.training.parameters import at_least, one_of
from tacit.client.training.preprocessing import Preprocessing
from tacit.client.training.requests import RemoteModel, room_for
from tacit.errors import UserError
from tacit.training import Algorithm, TrainingTask

Floats = NDArray[np.float64]
Reg = TypeVar("Reg", bound="_Regressor")

MOMENTS, GRADIENT = "moments", "gradient"
_ITERATIONS = 4
_SMALLEST = 1e-9


@dataclass(eq=False, repr=False, kw_only=True)
class _Regressor(Estimator):
    """Minimises |y - X w|^2 + alpha |w|^2."""

    _KIND = "regressor"

    solver: str = MOMENTS
    iterations: int = _ITERATIONS
    clip: float = np.inf
    whiten: float = 1.0

    @property
    def _alpha(self) -> float:
        raise NotImplementedError

    def predict(self, X: Any) -> Floats:
        """Predict numbers, shape (rows,).

        Raises:
            NotTrainedError: not fitted yet.
            TrainingRowsError: another number of features, or not finite.
        """
        return self._margins(X)[:, 0] * self.target_deviation_ + self.target_mean_

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the share of the variance that is explained, R^2; see `predict`."""
        numbers = np.asarray(y, dtype=np.float64)
        wrong = np.average((numbers - self.predict(X)) ** 2, weights=sample_weight)
        mean = np.average(numbers, weights=sample_weight)
        return float(1.0 - wrong / np.average((numbers - mean) ** 2, weights=sample_weight))

    def _asked(self, X: Any, y: Any) -> tuple[Division, TrainingTask]:
        self._check_parameters()
        one_of("solver", self.solver, (MOMENTS, GRADIENT))
        at_least("alpha", self._alpha, 0.0)
        if self.solver == MOMENTS and self.validation:
            raise UserError(
                f"validation={self.validation!r} goes with solver='gradient': moments take no "
                "iterations that could be validated"
            )
        table = self._checked_table(X)
        numbers = checks.checked_targets(y, len(table))
        self.target_mean_ = float(numbers.mean())
        self.target_deviation_ = float(numbers.std()) or 1.0
        targets = (numbers - self.target_mean_) / self.target_deviation_
        division = self._divided(table, targets[:, None])
        self.rows_ = len(division.rows)
        self.preprocessing_ = Preprocessing.of(
            division.rows,
            clip=self.clip,
            whiten=self.whiten if self.solver == GRADIENT else 0.0,
            penalty=self._alpha / len(division.rows) if self.solver == GRADIENT else 0.0,
        )
        return division, self._task(division)

    def _task(self, division: Division) -> TrainingTask:
        gradient = self.solver == GRADIENT
        held = division.held_rows if gradient else None
        penalised = gradient and self._alpha > 0
        extra = self._penalty_copies() * self.n_features_in_ if penalised else 0
        return TrainingTask(
            Algorithm.LINEAR if gradient else Algorithm.MOMENTS,
            rows=room_for(len(division.rows) + extra),
            features=self.n_features_in_,
            iterations=self.iterations if gradient else 0,
            validation_rows=0 if held is None else room_for(len(held)),
            validation_every=0 if held is None else self.validate_every,
            predictions=gradient and self.where == "server",
        )

    def _step(self) -> float:
        # Squared errors bend alike everywhere: there is no longer step.
        return 1.0

    def _with_penalty(self, rows: Floats, targets: Floats) -> tuple[Floats, Floats]:
        """Append rows whose squared errors add up to alpha |w|^2, none of them very long."""
        if self.solver == MOMENTS or not self._alpha:
            return rows, targets
        copies = self._penalty_copies()
        inner = np.sqrt(self._alpha / copies) * self.preprocessing_.mixing
        penalty = np.concatenate([np.zeros((len(inner), 1)), inner], axis=1)
        added = np.tile(penalty, (copies, 1))
        return np.concatenate([rows, added]), np.concatenate([targets, np.zeros((len(added), 1))])

    def _penalty_copies(self) -> int:
        longest = self._alpha * float(np.square(self.preprocessing_.mixing).max())
        return max(1, int(np.ceil(longest / PRESET_CLIP**2)))

    def _solved(self, received: Floats, remote: RemoteModel) -> Floats:
        if remote.task.algorithm is not Algorithm.MOMENTS:
            return received
        moments = received * self.rows_
        gram, cross = moments[:-1, :-1], moments[:-1, -1]
        mixing = self.preprocessing_.mixing
        gram = gram.copy()
        gram[1:, 1:] += self._alpha * mixing.T @ mixing
        return np.asarray(np.linalg.lstsq(gram, cross, rcond=_SMALLEST)[0][:, None])

    def _finished(self: Reg, course: Course) -> Reg:
        super()._finished(course)
        # Moments are no weights yet: only their owner can solve for them.
        return self.download() if self.solver == MOMENTS else self

    def _exported(self) -> bytes:
        return export.regressor(self.coef_, float(self.intercept_))

    def _for_features(self, weights: Floats) -> tuple[Floats, Floats]:
        inner, constant = self.preprocessing_.weights(weights[:, 0])
        scale = self.target_deviation_
        return inner * scale, np.asarray(constant * scale + self.target_mean_)

    def _learnt(self) -> Mapping[str, object]:
        return {
            "mean": self.target_mean_,
            "deviation": self.target_deviation_,
            "rows": self.rows_,
        }

    def _relearn(self, learnt: Mapping[str, Any]) -> None:
        self.target_mean_ = float(learnt["mean"])
        self.target_deviation_ = float(learnt["deviation"])
        self.rows_ = int(learnt["rows"])


@dataclass(eq=False, repr=False, kw_only=True)
class Ridge(_Regressor):
    """Linear regression with a penalty on the squares of the coefficients.

    Constructor parameters:

        url: the server, or a `tacit.Connection` with token, key directory, passphrase.
        alpha: factor of the penalty, for features as they come.
        solver: "moments" has the server sum up products of columns, which you decrypt and solve:
            exact to the noise, one multiplication deep. "gradient" iterates on encrypted weights,
            which nobody has to decrypt.
        iterations, clip, whiten: of the gradient solver; as in `LogisticRegression`.
        missing: "refuse" or "mean", which fills missing values in at your side.
        constant: "refuse" or "ignore" columns that never change.
        validation, validate_every, early_stopping: as in `LogisticRegression`.
        where: "server" or "client", as in `LogisticRegression`; moments are always decrypted.
        simulate: train in this process, without encryption and server, with noise alike.
        random_state: of the division into training and validation rows.
        verbose: show progress.

    Attributes:
        coef_, intercept_: shape (features,) and (), after `download()`.
    """

    alpha: float = 1.0

    @property
    def _alpha(self) -> float:
        return self.alpha


@dataclass(eq=False, repr=False, kw_only=True)
class LinearRegression(_Regressor):
    """Linear regression without a penalty.

    Constructor parameters: those of `Ridge`, without alpha.

    Attributes:
        coef_, intercept_: shape (features,) and (), after `download()`.
    """

    @property
    def _alpha(self) -> float:
        return 0.0
