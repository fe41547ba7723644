"""What all estimators share: rows in, a training somewhere, encrypted or decrypted weights out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from tacit.client.cli_common import progress_on_stderr
from tacit.client.frames import Progress, no_progress
from tacit.client.training import checks, export, tags
from tacit.client.training.common_parameters import CommonParameters
from tacit.client.training.connection import Connection
from tacit.client.training.curve import LearningCurve
from tacit.client.training.job import Course, StoppingRule, TrainingJob
from tacit.client.training.preprocessing import Preprocessing
from tacit.client.training.progress import progress_bar
from tacit.client.training.records import TrainingRecord, read_record, write_record
from tacit.client.training.release import ReleaseCounter, ReleasePolicy, release
from tacit.client.training.requests import Memory, RemoteModel, Trainer, TrainingRequest
from tacit.client.training.simulated import SimulatedTrainer
from tacit.errors import TrainingRowsError, UserError
from tacit.training import MOST_FEATURES, TrainingTask

Array = NDArray[Any]
Floats = NDArray[np.float64]
Est = TypeVar("Est", bound="Estimator")

LONG_RUN = 6
LONG_STEP, SHORT_STEP = 1.0, 1.5
"""Step lengths times the largest curvature there can be. Curvature falls while margins grow, so a
few iterations may take longer steps; many are sure to be stable below 4/3 only."""


@dataclass(frozen=True, slots=True, eq=False)
class Division:
    """Rows and targets to train on, and those held back for validation.

    Attributes:
        rows, held_rows: shape (rows, features), as they came; None if none is held back.
        targets, held_targets: shape (rows, classes), as in `TrainingRequest`.
    """

    rows: Floats = field(repr=False)
    targets: Floats = field(repr=False)
    held_rows: Floats | None = field(default=None, repr=False)
    held_targets: Floats | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class ReleasedModel:
    """Coefficients that may be shared.

    Attributes:
        coef, intercept: for features as they come, noisy; shapes as `coef_` and `intercept_`.
        deviation: of the noise, in units of prepared features.
        count, budget: results released under this key so far, and at most.
    """

    coef: Floats
    intercept: Floats
    deviation: float
    count: int
    budget: int


class Estimator(CommonParameters):
    """Base of the estimators; not for use by itself.

    Attributes:
        n_features_in_: columns of the rows it was fitted on.
        preprocessing_: what happens to rows before they are encrypted.
        n_iter_: iterations behind the weights.
        learning_curve_: validation loss against iterations.
        job_id_: name of the training at the server.
    """

    n_features_in_: int
    n_iter_: int
    preprocessing_: Preprocessing
    learning_curve_: LearningCurve

    @classmethod
    def attach(
        cls: type[Est], url: str | Connection, job_id: str, *, verbose: bool = False
    ) -> TrainingJob[Est]:
        """Find a training again, for example after this program was restarted.

        Args:
            url: as the estimator had it; the key directory holds what only the owner knows.
            job_id: what `fit(..., wait=False).id` was.
            verbose: show progress.

        Raises:
            KeyFileError: the key directory has no record of it, or cannot be read.
            ServiceError: the server cannot be reached or does not know it.
        """
        connection = url if isinstance(url, Connection) else Connection(url)
        record = read_record(connection, job_id)
        if record.model != cls.__name__:
            raise UserError(f"job {job_id} trains a {record.model}, not a {cls.__name__}")
        estimator = cls(**{**record.params, "url": url, "verbose": verbose})
        estimator._restore(record)
        remote = estimator._trainer().attach(job_id, record.memory)
        return estimator._watched(remote, record.held_targets)

    @overload
    def fit(self: Est, X: Any, y: Any, *, wait: Literal[True] = True) -> Est: ...

    @overload
    def fit(self: Est, X: Any, y: Any, *, wait: Literal[False]) -> TrainingJob[Est]: ...

    def fit(self: Est, X: Any, y: Any, *, wait: bool = True) -> Est | TrainingJob[Est]:
        """Encrypt rows and have them trained on.

        Args:
            X: shape (rows, features).
            y: shape (rows,): labels, any two values or more, of classifiers; numbers of regressors.
            wait: False returns a handle of the job at once.

        Raises:
            TrainingRowsError: not finite, constant columns, too many rows.
            LabelError: one class only, or not what `y` has to be.
            ServiceError: the server cannot be reached or refuses.
        """
        job = self._begun(X, y)
        if not wait:
            return job
        with progress_bar(self.verbose) as heard:
            return job.result(heard)

    def request(self, X: Any, y: Any) -> TrainingRequest:
        """Return what `fit` would ask of its trainer: the public task, and the prepared rows.

        Nothing is encrypted or sent. Raises what `fit` raises for its arguments.
        """
        return self._requested(*self._asked(X, y))

    @property
    def job_id_(self) -> str:
        """Name of the training at the server."""
        return self._fitted_remote().job_id

    @property
    def coef_(self) -> Floats:
        """Coefficients for features as they come; call `download()` first."""
        return self._for_features(self._downloaded())[0]

    @property
    def intercept_(self) -> Floats:
        """Intercepts that go with `coef_`; call `download()` first."""
        return self._for_features(self._downloaded())[1]

    def download(self: Est) -> Est:
        """Fetch the encrypted weights and decrypt them here: `coef_`, `intercept_`, `to_onnx()`.

        Raises:
            NotTrainedError: not fitted yet.
            ServiceError: the server cannot be reached or no longer has them.
        """
        remote = self._fitted_remote()
        self.weights_: Floats = self._solved(remote.weights(self._kept(remote)), remote)
        return self

    def to_onnx(self, path: Path | str | None = None) -> bytes:
        """Return the decrypted model as an ONNX file's bytes, which `tacit compile` takes.

        Clipping of rows is left out: it matters beyond `clip` standard deviations only.

        Args:
            path: where to write them, too.

        Raises:
            NotTrainedError: the weights were not downloaded.
            UserError: package onnx is missing, or the file cannot be written.
        """
        return export.written(self._exported(), path)

    def release(
        self, policy: ReleasePolicy | None = None, *, counter: ReleaseCounter | None = None
    ) -> ReleasedModel:
        """Make coefficients that may be shared with others; see `tacit.client.training.release`.

        Args:
            policy: budget of releases under one key (default 128) and security.
            counter: the record of releases; default beside the keys.

        Raises:
            ReleaseError: the budget is spent, or the noise would leave too few digits.
            NotTrainedError: not fitted yet.
        """
        if counter is None and self.simulate:
            raise UserError("simulated weights are nobody's secret: pass a counter to try this out")
        counter = counter or ReleaseCounter(self._connection().directory / "releases")
        remote = self._fitted_remote()
        kept = self._kept(remote)
        shared = release(remote.weights(kept), remote.error(kept), remote.key_id, counter, policy)
        coefficients, intercept = self._for_features(self._solved(shared.values, remote))
        return ReleasedModel(coefficients, intercept, shared.deviation, shared.count, shared.budget)

    def __sklearn_tags__(self) -> Any:
        return tags.of_estimator(self._KIND, missing=self.missing == "mean")

    # -- what subclasses say -------------------------------------------------------------------

    _KIND: ClassVar[Literal["classifier", "regressor"]]
    """What scikit-learn calls such estimators."""

    def _exported(self) -> bytes:
        """Return `coef_` and `intercept_` as an ONNX file's bytes."""
        raise NotImplementedError

    def _learnt(self) -> Mapping[str, object]:
        """Return what was learnt about targets, JSON-serialisable."""
        raise NotImplementedError

    def _relearn(self, learnt: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def _for_features(self, weights: Floats) -> tuple[Floats, Floats]:
        """Return coefficients and intercepts for features as they come."""
        raise NotImplementedError

    def _asked(self, X: Any, y: Any) -> tuple[Division, TrainingTask]:
        """Check rows and targets, learn what is learnt here, and say what is to be trained."""
        raise NotImplementedError

    def _step(self) -> float:
        return LONG_STEP if self.iterations > LONG_RUN else SHORT_STEP

    def _solved(self, received: Floats, remote: RemoteModel) -> Floats:
        """Return weights of prepared rows, shape (features + 1, classes)."""
        return received

    def _kept(self, remote: RemoteModel) -> int | None:
        return self.n_iter_ if self.n_iter_ < remote.task.iterations else None

    # -- fit -----------------------------------------------------------------------------------

    def _checked_table(self, rows: object) -> Floats:
        """Check training rows and remember what they are like."""
        table = checks.checked_rows(rows, missing=self.missing == "mean", least=2)
        if table.shape[1] > MOST_FEATURES:
            raise TrainingRowsError(f"{table.shape[1]} features: at most {MOST_FEATURES} fit")
        checks.checked_present(table)
        names = checks.feature_names(rows)
        if self.constant == "refuse":
            checks.checked_columns(table, names)
        self.n_features_in_ = table.shape[1]
        vars(self).pop("feature_names_in_", None)
        if names is not None:
            self.feature_names_in_ = np.array(names, dtype=object)
        return table

    def _checked_query(self, rows: object) -> Floats:
        """Check rows to be predicted."""
        if "n_iter_" not in vars(self):
            raise checks.not_trained(type(self).__name__)
        checks.checked_names(checks.feature_names(rows), vars(self).get("feature_names_in_"))
        table = checks.checked_rows(rows, missing=self.missing == "mean")
        if table.shape[1] != self.n_features_in_:
            raise TrainingRowsError(
                f"X has {table.shape[1]} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input"
            )
        return table

    def _divided(self, rows: Floats, targets: Floats) -> Division:
        """Hold back a share of the rows for validation, alike in every class."""
        if not self.validation:
            return Division(rows, targets)
        random = np.random.default_rng(self.random_state)
        back = np.zeros(len(rows), dtype=bool)
        for stratum in self._strata(targets):
            members = random.permutation(np.flatnonzero(stratum))
            back[members[: round(self.validation * len(members))]] = True
        if not back.any() or back.all():
            raise TrainingRowsError(f"{len(rows)} rows are too few to hold some back")
        return Division(rows[~back], targets[~back], rows[back], targets[back])

    def _strata(self, targets: Floats) -> list[NDArray[np.bool_]]:
        return [np.ones(len(targets), dtype=bool)]

    def _requested(self, division: Division, task: TrainingTask) -> TrainingRequest:
        """Prepare rows."""
        rows = self.preprocessing_.prepare(division.rows)
        held = division.held_rows
        validation = None if held is None else self.preprocessing_.prepare(held)
        rows, targets = self._with_penalty(rows, division.targets)
        return TrainingRequest(task, rows, targets, self._step(), validation)

    def _begun(self: Est, X: Any, y: Any) -> TrainingJob[Est]:
        """Prepare, encrypt, send, remember; return the job."""
        division, task = self._asked(X, y)
        request = self._requested(division, task)

        def remember(job_id: str, memory: Memory) -> None:
            if not self.simulate:
                write_record(self._connection(), self._record(job_id, memory, division))

        with progress_on_stderr(not self.verbose) as progress:
            remote = self._trainer(progress).start(request, remember)
        return self._watched(remote, division.held_targets)

    def _with_penalty(self, rows: Floats, targets: Floats) -> tuple[Floats, Floats]:
        return rows, targets

    def _watched(self: Est, remote: RemoteModel, held_targets: Floats | None) -> TrainingJob[Est]:
        course = Course(remote, StoppingRule(patience=self.early_stopping), held_targets)
        return TrainingJob(course, self._finished)

    def _finished(self: Est, course: Course) -> Est:
        vars(self).pop("weights_", None)
        self._remote = course.remote
        self.learning_curve_ = course.curve
        self.n_iter_ = course.stopped or course.remote.task.iterations
        if self.where == "client":
            self.download()
        return self

    # -- predict -------------------------------------------------------------------------------

    def _margins(self, rows: object) -> Floats:
        """Return scores, shape (rows, classes): here with decrypted weights, or at the server."""
        table = self._checked_query(rows)
        prepared = self.preprocessing_.prepare(table)
        if "weights_" in vars(self):
            return prepared @ self.weights_
        remote = self._fitted_remote()
        if self.n_iter_ < remote.task.iterations:
            # Stopped early: the server predicts with final weights only.
            return prepared @ self.download().weights_
        return remote.margins(prepared)

    def _fitted_remote(self) -> RemoteModel:
        if "_remote" not in vars(self):
            raise checks.not_trained(type(self).__name__)
        return self._remote

    def _downloaded(self) -> Floats:
        if "weights_" not in vars(self):
            self._fitted_remote()
            raise checks.not_downloaded()
        return self.weights_

    # -- where -----------------------------------------------------------------------------------

    def _trainer(self, progress: Progress = no_progress) -> Trainer:
        if self.simulate:
            return SimulatedTrainer(seed=self.random_state)
        from tacit.client.training.http_trainer import HttpTrainer

        return HttpTrainer(self._connection(), progress)

    def _connection(self) -> Connection:
        return self.url if isinstance(self.url, Connection) else Connection(str(self.url))

    def _record(self, job_id: str, memory: Memory, division: Division) -> TrainingRecord:
        params = {k: v for k, v in self.get_params().items() if k not in ("url", "verbose")}
        names = vars(self).get("feature_names_in_")
        return TrainingRecord(
            job_id,
            type(self).__name__,
            params,
            self.preprocessing_,
            self._learnt(),
            memory,
            None if names is None else tuple(names),
            division.held_targets,
        )

    def _restore(self, record: TrainingRecord) -> None:
        self.preprocessing_ = record.preprocessing
        self.n_features_in_ = record.preprocessing.features
        if record.names is not None:
            self.feature_names_in_ = np.array(record.names, dtype=object)
        self._relearn(record.learnt)
