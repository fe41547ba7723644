"""Training on encrypted rows: what client, compiler and server agree on.

A `TrainingTask` says what is trained and holds no data. The compiler turns it into an artifact like
any other, whose plans are the steps of the training (`tacit.training_plan`); a job on the server
runs the steps on uploaded ciphertexts. States and progress of a job are described here, too.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields
from enum import Enum

from tacit.errors import ParameterError
from tacit.logistic import SIGMOID_RANGE
from tacit.party_terms import MOST_PARTIES

MOST_ITERATIONS = 256
MOST_ROWS = 1 << 20
MOST_FEATURES = 1 << 12
MOST_WEIGHT_BITS = 40
DEGREES = (3, 5, 7)


class Algorithm(str, Enum):
    """What is trained, and how."""

    # Nesterov's gradient method on the logistic loss; several classes are one-vs-rest heads.
    LOGISTIC = "logistic"
    # The same on squared errors.
    LINEAR = "linear"
    # One product: the sums of all products of two columns; the client solves for the weights.
    MOMENTS = "moments"


@dataclass(frozen=True, slots=True)
class TrainingTask:
    """What is trained. Equal tasks share a compiled plan, so it must not say anything private.

    Attributes:
        algorithm: see `Algorithm`.
        rows: how many rows must fit; parties together.
        features: columns without the constant one.
        iterations: of the gradient method; 0 for moments.
        degree: of the sigmoid's polynomial: 3, 5 or 7; ignored but for logistic.
        classes: weight vectors; 1 for two classes, or one target.
        batch_rows: rows of a mini-batch, rounded up to whole ciphertexts; 0 takes all rows in
            every iteration.
        decay: share of the weights, the constant's excepted, taken away by each iteration (L2).
        step_decay: iteration t = 0, 1, ... has a step of 1 / (1 + step_decay t).
        validation_rows: rows whose margins are computed on the way; 0 for none.
        validation_every: after every so many iterations.
        predictions: keep a level, so that the server can predict with the encrypted weights.
        weight_bits: encryption may put weights of prepared rows off by 2^-weight_bits; 0 leaves
            that to the compiler.
        parties: who share the key; for several, parameters leave room for the noise that hides
            each one's share of a decryption, and nothing is bootstrapped.

    Raises:
        ParameterError: a number is out of range, or they contradict each other.
    """

    algorithm: Algorithm
    rows: int
    features: int
    iterations: int = 5
    degree: int = 3
    classes: int = 1
    batch_rows: int = 0
    decay: float = 0.0
    step_decay: float = 0.0
    validation_rows: int = 0
    validation_every: int = 0
    predictions: bool = False
    weight_bits: int = 0
    parties: int = 1

    def __post_init__(self) -> None:
        self._check_range("rows", 1, MOST_ROWS)
        self._check_range("features", 1, MOST_FEATURES)
        self._check_range("classes", 1, MOST_FEATURES)
        self._check_range("batch_rows", 0, self.rows)
        self._check_range("parties", 1, MOST_PARTIES)
        self._check_range("validation_rows", 0, MOST_ROWS)
        self._check_range("validation_every", 0, MOST_ITERATIONS)
        self._check_range("weight_bits", 0, MOST_WEIGHT_BITS)
        least = 0 if self.algorithm is Algorithm.MOMENTS else 1
        self._check_range("iterations", least, least and MOST_ITERATIONS)
        if self.algorithm is Algorithm.LOGISTIC and self.degree not in DEGREES:
            raise ParameterError(f"the sigmoid's degree must be one of {DEGREES}")
        if not 0.0 <= self.decay < 1.0:
            raise ParameterError(f"decay must be in [0, 1), not {self.decay!r}")
        if not (math.isfinite(self.step_decay) and self.step_decay >= 0.0):
            raise ParameterError(f"step_decay must be 0 or more, not {self.step_decay!r}")
        if bool(self.validation_rows) != bool(self.validation_every):
            raise ParameterError("validation needs rows and after how many iterations, or neither")
        if self.algorithm is Algorithm.MOMENTS:
            self._check_moments()

    @property
    def width(self) -> int:
        """Slots of one row: a power of two."""
        columns = self.features + 1 + (self.algorithm is Algorithm.MOMENTS)
        return 1 << (max(columns, self.classes, 2) - 1).bit_length()

    @property
    def labelled(self) -> bool:
        """Whether labels are ciphertexts of their own; otherwise rows are multiplied by +-1."""
        return self.algorithm is Algorithm.LINEAR or (
            self.algorithm is Algorithm.LOGISTIC and self.classes > 1
        )

    @property
    def margin_scale(self) -> float:
        """What a stored margin is to be multiplied by."""
        return SIGMOID_RANGE if self.algorithm is Algorithm.LOGISTIC else 1.0

    @property
    def digest(self) -> str:
        """SHA-256 hex of the canonical JSON form."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def validates(self, iteration: int) -> bool:
        """Tell whether margins of the validation rows are computed after this iteration, from 1.

        After the last one the client has the weights, unless they are meant to stay encrypted.
        """
        last = iteration == self.iterations and not self.predictions
        return bool(self.validation_every) and not last and iteration % self.validation_every == 0

    def to_json(self) -> dict[str, object]:
        """Return a JSON-serialisable dict."""
        return asdict(self) | {"algorithm": self.algorithm.value}

    @classmethod
    def from_json(cls, values: dict[str, object]) -> TrainingTask:
        """Rebuild from `to_json`; fields that are not given have their defaults.

        Raises:
            ParameterError: an unknown field, or a value of the wrong type or out of range.
        """
        known = {field.name: field for field in fields(cls)}
        if unknown := set(values) - set(known):
            raise ParameterError(f"a training task has no {sorted(unknown)}: {sorted(known)}")
        try:
            algorithm = Algorithm(values["algorithm"])
        except (KeyError, ValueError) as error:
            names = [a.value for a in Algorithm]
            raise ParameterError(f"a training task needs an algorithm, one of {names}") from error
        given = {name: _number(name, value) for name, value in values.items()} | {
            "algorithm": algorithm
        }
        try:
            return cls(**given)  # type: ignore[arg-type]
        except TypeError as error:
            raise ParameterError("a training task needs at least rows and features") from error

    def _check_range(self, name: str, least: int, most: int) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ParameterError(f"{name} must be {least} to {most}, not {value!r}")

    def _check_moments(self) -> None:
        if self.classes > 1 or self.batch_rows or self.validation_rows or self.predictions:
            raise ParameterError(
                "moments are summed over all rows, for one target: no classes, mini-batches, "
                "validation or predictions"
            )


def _number(name: str, value: object) -> object:
    if name in ("decay", "step_decay"):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ParameterError(f"{name} must be a number")
        return float(value)
    if name == "predictions" and not isinstance(value, bool):
        raise ParameterError("predictions must be true or false")
    return value


class JobState(str, Enum):
    """Where a job is. The last three are ends; resuming leads out of the last two."""

    WAITING_FOR_ROWS = "waiting_for_rows"
    WAITING_FOR_KEYS = "waiting_for_keys"
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more happens by itself."""
        return self in (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True, slots=True)
class JobStatus:
    """What a server says of a job.

    Attributes:
        job: its name.
        plan: name of the training artifact.
        key_id: of the evaluation keys, hexadecimal.
        state: where it is.
        reason: why it failed, was cancelled or waits; "" if there is nothing to say.
        missing: for each upload, the frames that have not arrived.
        done: iterations done.
        of: iterations in all.
        seconds: spent on steps so far.
        seconds_left: predicted, corrected by what was measured; None before it is known.
        validations: iterations whose encrypted margins can be read.
        weights: iterations whose encrypted weights can be read.
    """

    job: str
    plan: str
    key_id: str
    state: JobState
    reason: str
    missing: tuple[tuple[int, ...], ...]
    done: int
    of: int
    seconds: float
    seconds_left: float | None
    validations: tuple[int, ...]
    weights: tuple[int, ...]

    def to_json(self) -> dict[str, object]:
        """Return a JSON-serialisable dict."""
        return asdict(self) | {"state": self.state.value}

    @classmethod
    def from_json(cls, values: dict[str, object]) -> JobStatus:
        """Rebuild from `to_json`; unknown fields are left out.

        Raises:
            ParameterError: a field is missing or of the wrong type.
        """
        try:
            left = values["seconds_left"]
            return cls(
                job=str(values["job"]),
                plan=str(values["plan"]),
                key_id=str(values["key_id"]),
                state=JobState(values["state"]),
                reason=str(values["reason"]),
                missing=tuple(_numbers(part) for part in _list(values["missing"])),
                done=int(str(values["done"])),
                of=int(str(values["of"])),
                seconds=float(str(values["seconds"])),
                seconds_left=None if left is None else float(str(left)),
                validations=_numbers(values["validations"]),
                weights=_numbers(values["weights"]),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise ParameterError(f"not the status of a training job: {error}") from error


def _list(value: object) -> list[object]:
    if not isinstance(value, list | tuple):
        raise ParameterError("a list was expected in the status of a training job")
    return list(value)


def _numbers(value: object) -> tuple[int, ...]:
    return tuple(int(str(number)) for number in _list(value))
