"""Training on the union of all parties' rows: one model, which all read together.

Each party prepares its rows with the pooled moments, encrypts them in its own range of row numbers
and sends them to the server, which adds all uploads and trains. The final weights are decrypted by
all parties; each of them gets the same model.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tacit.client.joint_model import JointModel, averaged
from tacit.client.party import Party
from tacit.client.party_decrypt import Request
from tacit.client.party_moments import PooledMoments
from tacit.client.training.http_trainer import patiently
from tacit.client.training.preprocessing import Preprocessing
from tacit.client.training.service import TrainingService
from tacit.client.training.stored import StoredUnits
from tacit.errors import (
    InputShapeError,
    LabelError,
    MissingPartyError,
    ParameterError,
    PartyError,
    TrainingRowsError,
)
from tacit.logistic import CLIP, ROW_SCALE
from tacit.training import Algorithm, JobState, JobStatus
from tacit.training_plan import TrainingPlan

Floats = NDArray[np.float64]

_PAUSE_SECONDS, _LONGEST_PAUSE = 0.1, 5.0
_NOISE_SAFETY_BITS = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class JointWeights:
    """A logistic model trained on the union.

    Attributes:
        coefficients: for features as they come, shape (features,).
        intercept: the constant.
        prepared: weights of prepared rows, the constant's first, shape (features + 1,).
        preprocessing: what happens to rows first: filling in, centring, scaling, clipping.
    """

    coefficients: Floats
    intercept: float
    prepared: Floats
    preprocessing: Preprocessing

    def probabilities(self, x: Floats) -> Floats:
        """Return the probability of the positive class, shape (rows,); NaN is filled in."""
        margins = self.preprocessing.prepare(x) @ self.prepared
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * margins)))


@dataclass(frozen=True, slots=True, eq=False)
class JointTraining:
    """One training by all parties; the same at each of them.

    Attributes:
        party: whose joint key was made for the training's signature.
        plan: the compiled training: logistic, two classes, all rows in every iteration.
        name: of the training in this session: lower-case letters, digits and dashes.
        constant: "refuse" columns that are the same in all rows of all parties, or "ignore" them,
            which gives them weight 0.
    """

    party: Party
    plan: TrainingPlan
    name: str = "training"
    constant: str = "refuse"

    def __post_init__(self) -> None:
        task = self.plan.task
        if task.algorithm is not Algorithm.LOGISTIC or task.classes != 1:
            raise ParameterError("several parties train logistic regression of two classes")
        if task.features != len(self.party.terms.columns):
            raise ParameterError(
                f"a training of {task.features} features for {len(self.party.terms.columns)} "
                "columns"
            )
        if task.parties != len(self.party.terms.parties):
            raise ParameterError(
                f"a training for {task.parties} parties in a session of "
                f"{len(self.party.terms.parties)}: ask for one with `parties` in its task"
            )
        self.party.model().check(self.plan.signature)

    def fit(
        self,
        service: TrainingService,
        x: Floats,
        positive: NDArray[Any],
        *,
        seconds: float = 3600.0,
        noise_bits: float | None = None,
    ) -> JointWeights:
        """Take part from the pooled moments to the model; may be run again after a crash.

        Args:
            service: the server; all parties are the same tenant there.
            x: this party's table, shape (rows, features), NaN where a value is missing.
            positive: shape (rows,), the class: 0 or 1, or truth values.
            seconds: how long to wait for the others, and for the training.
            noise_bits: log2 of a bound on the weights' noise, in coefficients; default from what
                the plan says of its precision.

        Raises:
            SchemaMismatchError, InputRangeError, InputShapeError: the table does not fit.
            LabelError: a class other than 0 and 1.
            TrainingRowsError: a column is constant over all parties; with `constant="ignore"` it
                may be run again, and nothing is computed twice.
            MissingPartyError: names who did not come.
            PartyError: the training failed at the server; says why.
            WrongShareError, ParameterError: see `JointModel.decrypt`.
        """
        if positive.shape != (len(x),):
            raise InputShapeError(f"{len(x)} rows, but classes of shape {positive.shape}")
        if not np.isin(positive, (0, 1)).all():
            raise LabelError("classes must be 0 or 1, the same two at all parties")
        units, preprocessing, rows = self.prepared(x, seconds)
        first = self.first_row(len(x), seconds)
        signs = np.where(positive, 1.0, -1.0)[:, None]
        job = self.send(service, units.queries(rows) * signs, first)
        self.wait(service, job, seconds)
        stored = self.weights(service, job, seconds, noise_bits)
        prepared = units.weights(self.plan.task, stored)[:, 0]
        coefficients, intercept = preprocessing.weights(prepared)
        return JointWeights(coefficients, intercept, prepared, preprocessing)

    def prepared(self, x: Floats, seconds: float) -> tuple[StoredUnits, Preprocessing, Floats]:
        """Agree on how rows are prepared; returns the units, the preparation, and our own rows."""
        moments = self.party.moments(x, name=f"{self.name}-moments", seconds=seconds)
        if self.constant == "refuse":
            _check_columns(moments)
        curvature = self.party.curvature(moments, x, name=f"{self.name}-curvature", seconds=seconds)
        preprocessing = preprocessing_of(moments)
        count, task = moments.rows, self.plan.task
        factor = math.sqrt(task.rows / (curvature * count)) / ROW_SCALE
        units = StoredUnits(np.full(task.features + 1, factor), 1.0, count)
        return units, preprocessing, preprocessing.prepare(x)

    def first_row(self, rows: int, seconds: float) -> int:
        """Tell the others how many rows we send; returns the number of our first one.

        Raises:
            PartyError: all rows together are more than fit.
            MissingPartyError: names who did not say.
        """
        session, step = self.party.session, f"{self.name}.rows"
        session.say(step, lambda: ({"rows": rows}, ()))
        counts = []
        for entry in session.wait(step, seconds):
            count = entry.body.get("rows")
            if type(count) is not int or not 1 <= count <= self.plan.task.rows:
                name = session.terms.parties[entry.party]
                raise PartyError(f"{name!r} did not say how many rows it sends")
            counts.append(count)
        if counts[session.party] != rows:
            raise PartyError(f"{counts[session.party]} rows were announced before, not {rows}")
        if sum(counts) > self.plan.task.rows:
            raise PartyError(
                f"all parties' {sum(counts)} rows are more than the {self.plan.task.rows} that fit"
            )
        return sum(counts[: session.party])

    def send(self, service: TrainingService, stored: Floats, first: int) -> str:
        """Encrypt our rows and send them, the same ciphertexts if it was done before.

        Args:
            service: the server.
            stored: shape (rows, features + 1), values in [-1, 1].
            first: number of the first row.

        Returns:
            The job: the same for all parties.
        """
        model, session = self.party.model(), self.party.session
        name = f"planned/{self.name}-rows.json"
        if not session.folder.has(name):
            (frames,) = model.encrypt(self.plan.upload, self.plan.packed(stored, first=first))
            blobs = [session.folder.add_blob(str(i), frame) for i, frame in enumerate(frames)]
            session.folder.write_json(name, {"blobs": [blob.to_json() for blob in blobs]})
        nonce = f"{session.terms.session[:32]}-{self.name}"
        parties = len(session.terms.parties)
        plan_name = self.plan.signature.model
        job = patiently(lambda: service.begin(plan_name, model.key_id, nonce, parties)).job
        for number, frame in enumerate(self._kept(name)):
            self._sent(service, job, number, frame)
        return job

    def wait(self, service: TrainingService, job: str, seconds: float) -> JobStatus:
        """Wait until the training is done.

        Raises:
            MissingPartyError: names whose rows the server waits for.
            PartyError: it failed, or was cancelled.
        """
        end, pause = time.monotonic() + seconds, _PAUSE_SECONDS
        while True:
            status = patiently(lambda: service.status(job))
            if status.state is JobState.DONE:
                return status
            if status.state.ended:
                raise PartyError(f"the training {status.state.value}: {status.reason}")
            if time.monotonic() > end:
                names = self.party.terms.parties
                missing = [names[i] for i, left in enumerate(status.missing) if left]
                raise MissingPartyError(
                    f"the training waits for the rows of {', '.join(missing)}"
                    if missing
                    else f"the training is {status.state.value} after {seconds:g} s"
                )
            time.sleep(pause)
            pause = min(1.5 * pause, _LONGEST_PAUSE)

    def weights(
        self, service: TrainingService, job: str, seconds: float, noise_bits: float | None = None
    ) -> Floats:
        """Decrypt the final weights with all parties; stored values, shape (1, features + 1)."""
        model, task = self.party.model(), self.plan.task
        spec = self.plan.weights_plan(task.iterations).outputs[0]
        name, purpose = f"{self.name}-weights", f"weights of {self.name}"
        if self.party.session.leads:
            frames = patiently(lambda: service.weights(job))
            noise = weight_noise_bits(model, self.plan) if noise_bits is None else noise_bits
            repeats = self.plan.signature.params.slots // task.width
            asked = Request(spec.level, spec.degree, noise, repeats, purpose)
            model.request(name, frames, asked)
        slots = model.decrypt(name, purpose=purpose, seconds=seconds)
        return averaged(slots, task.width)[:, : task.features + 1]

    def _kept(self, name: str) -> list[bytes]:
        folder = self.party.session.folder
        listed = folder.read_json(name)["blobs"]
        digests = [str(blob[1]) for blob in listed] if isinstance(listed, list) else []
        return [(folder.path / "blobs" / digest).read_bytes() for digest in digests]

    def _sent(self, service: TrainingService, job: str, number: int, frame: bytes) -> None:
        party = self.party.session.party
        patiently(lambda: service.send_rows(job, number, frame, party))


def _check_columns(moments: PooledMoments) -> None:
    constant = [n for n, d in zip(moments.columns, moments.deviations, strict=True) if d <= 0.0]
    if constant:
        raise TrainingRowsError(
            f"column(s) {', '.join(constant)} are constant over all parties: pass "
            "constant='ignore', which gives them weight 0, or begin a session without them"
        )


def preprocessing_of(moments: PooledMoments) -> Preprocessing:
    """Return the estimators' preparation with pooled means and deviations."""
    mixing = moments.preparation().mixing
    return Preprocessing(moments.means, moments.means, mixing, CLIP)


def weight_noise_bits(model: JointModel, plan: TrainingPlan) -> float:
    """Return log2 of a bound on the noise in the coefficients of the final weights.

    From the precision that the plan promises for a slot: an error of 2^-bits in a slot is one of
    2^-bits scale / sqrt(N) in a coefficient, if errors are independent.
    """
    weights = plan.weights_plan(plan.task.iterations)
    params = model.facts.params
    scale = params.scale(weights.outputs[0].level) ** weights.outputs[0].degree
    slot = -weights.precision_bits + math.log2(scale)
    return max(1.0, slot - 0.5 * params.log_n + _NOISE_SAFETY_BITS)
