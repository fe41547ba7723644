"""The client's and the server's view of a compiled training: which plan of its signature does what.

    upload        identity; its inputs say how rows (labels, validation rows) are encrypted
    add           the sum of two uploaded ciphertexts of the same place, for several parties
    labels-C      the uploaded labels of class C in the place where iterations read them
    iteration-T   rows (labels) and the state after T - 1 iterations in, the next state out
    refresh-L     bootstraps a state at level L
    weights-L     the weights of a state at level L, made as small as possible for the way home
    validate-L    validation rows and weights of a state at level L in, their margins out
    predict-rows  identity; its input says how rows to be predicted are encrypted
    predict       rows (one ciphertext) and final weights in, their margins out
    moments       rows in, sums of products of columns out; stored values must lie in [-1, 1],
                  and then no sum of as many rows as fit outgrows the first modulus

A state is two ciphertexts: where the next gradient is taken, and the weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tacit.errors import ArtifactError, InputRangeError, InputShapeError, ParameterError
from tacit.signature import Plan, Signature
from tacit.training import Algorithm, TrainingTask

Floats = NDArray[np.float64]

NOTE = "training"
UPLOAD, ADD, REFRESH, MOMENTS = "upload", "add", "refresh", "moments"
PREDICT_ROWS, PREDICT = "predict-rows", "predict"
ROWS, LABELS, VALIDATION = "rows", "labels", "validation"
AHEAD, WEIGHTS, MARGINS, SUMS = "ahead", "weights", "margins", "sums"
SUMS_SHARE = 0.75
"""Of what a ciphertext can hold, the share that sums may fill; the rest is for errors."""
_UNIT = 1.0 + 1e-9


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a training.

    Attributes:
        plan: name of the plan that is run.
        iteration: how many iterations are done after it.
        weights_level: level of the weights after it.
        seconds: predicted, for one class.
    """

    plan: str
    iteration: int
    weights_level: int
    seconds: float

    @property
    def refreshes(self) -> bool:
        """Whether it only bootstraps the state."""
        return self.plan.startswith(REFRESH)


@dataclass(frozen=True, slots=True, eq=False)
class TrainingPlan:
    """A compiled training.

    Attributes:
        signature: public half of the artifact.
        task: what is trained.
        steps: in order, for every class alike.
        batches: mini-batches; the ciphertexts of rows are dealt out to them in order.
    """

    signature: Signature
    task: TrainingTask
    steps: tuple[Step, ...]
    batches: int

    @classmethod
    def of(cls, signature: Signature) -> TrainingPlan:
        """Read the public half of a training artifact.

        Raises:
            ArtifactError: it is another model's, or of moments that could wrap around.
        """
        try:
            note = json.loads(signature.notes[NOTE])
            steps = tuple(Step(*step) for step in note["steps"])
            task = TrainingTask.from_json(note["task"])
            plan = cls(signature, task, steps, int(note["batches"]))
            plan.check_sums()
        except (KeyError, ValueError, TypeError, ParameterError) as error:
            raise ArtifactError(f"not the signature of a training: {error}") from error
        return plan

    def note(self) -> str:
        """Return what `of` reads, as text for the signature's notes."""
        steps = [[s.plan, s.iteration, s.weights_level, s.seconds] for s in self.steps]
        return json.dumps({"task": self.task.to_json(), "steps": steps, "batches": self.batches})

    @property
    def upload(self) -> Plan:
        """The plan whose inputs are what a party encrypts."""
        return self.signature.plan(UPLOAD)

    @property
    def frames(self) -> int:
        """Ciphertexts of one upload: rows, then labels, then validation rows."""
        return sum(spec.layout.ciphertexts for spec in self.upload.inputs)

    @property
    def capacity(self) -> int:
        """Rows that fit."""
        return self._count(ROWS) * self.rows_per_ciphertext

    @property
    def largest_sum(self) -> float:
        """Of moments: sums up to this magnitude do not wrap around, errors included."""
        (sums,) = self.signature.plan(MOMENTS).outputs
        return SUMS_SHARE * self.signature.params.room(sums.level, sums.degree)

    def check_sums(self) -> None:
        """See that sums over as many rows as fit, of values in [-1, 1], have room.

        Raises:
            ParameterError: they do not.
        """
        if self.task.algorithm is Algorithm.MOMENTS and self.capacity > self.largest_sum:
            raise ParameterError(
                f"the parameters hold sums up to {self.largest_sum:.4g}, and {self.capacity} rows "
                "of values in [-1, 1] may reach as much: a larger first modulus is needed"
            )

    @property
    def rows_per_ciphertext(self) -> int:
        """Rows of one ciphertext."""
        return self.signature.params.slots // self.task.width

    @property
    def batch_capacity(self) -> int:
        """Rows that an iteration reads, unused ones included."""
        return self.capacity // self.batches

    @property
    def seconds(self) -> float:
        """Predicted time of all steps on the reference machine."""
        return self.task.classes * sum(step.seconds for step in self.steps)

    def ciphertexts(self, name: str) -> range:
        """Return which frames of an upload are the rows', the labels' or the validation rows'."""
        first = 0
        for spec in self.upload.inputs:
            if spec.name == name:
                return range(first, first + spec.layout.ciphertexts)
            first += spec.layout.ciphertexts
        return range(first, first)

    def batch(self, iteration: int) -> range:
        """Return which ciphertexts of the rows an iteration, counted from 1, reads."""
        size = self._count(ROWS) // self.batches
        first = (iteration - 1) % self.batches * size
        return range(first, first + size)

    def positions(self, first: int, rows: int) -> NDArray[np.int64]:
        """Return where rows first, first + 1, ... go: dealt out to the mini-batches in turn.

        Parties agree on ranges of row numbers that do not overlap.

        Raises:
            InputShapeError: more rows than fit.
        """
        if first < 0 or first + rows > self.capacity:
            raise InputShapeError(
                f"rows {first} to {first + rows} do not fit: there is room for {self.capacity}"
            )
        numbers = np.arange(first, first + rows, dtype=np.int64)
        return numbers % self.batches * self.batch_capacity + numbers // self.batches

    def packed(
        self,
        rows: Floats,
        labels: Floats | None = None,
        validation: Floats | None = None,
        first: int = 0,
    ) -> Floats:
        """Place what a party encrypts into slots; what is not its own is zero.

        Args:
            rows: shape (rows, features + 1), stored values in [-1, 1] (one column more, the
                target, for moments).
            labels: shape (rows, classes), stored values; only where the task is `labelled`.
            validation: shape (rows, features + 1), stored alike, not signed; one party's only.
            first: number of the first row.

        Returns:
            Shape (1, frames, slots), for `Codec.encrypt(plan.upload, ...)`.

        Raises:
            InputShapeError: too many rows, or of another shape.
            InputRangeError: of moments: a value beyond [-1, 1], with which sums could wrap around.
        """
        if self.task.algorithm is Algorithm.MOMENTS and not np.all(np.abs(rows) <= _UNIT):
            raise InputRangeError(
                "rows whose moments are summed must be stored in [-1, 1]: divide each column by "
                "its greatest magnitude"
            )
        given = {ROWS: rows, LABELS: labels, VALIDATION: validation}
        columns = self.task.features + 1 + (self.task.algorithm is Algorithm.MOMENTS)
        wanted = {ROWS: columns, LABELS: self.task.classes, VALIDATION: columns}
        parts = []
        for spec in self.upload.inputs:
            values = given.pop(spec.name)
            if values is None and spec.name == VALIDATION:
                values = np.zeros((0, columns))
            if values is None or values.ndim != 2 or values.shape[1] != wanted[spec.name]:
                raise InputShapeError(f"{spec.name} of {wanted[spec.name]} columns are needed")
            if spec.name == LABELS and len(values) != len(rows):
                raise InputShapeError(f"{len(rows)} rows, but labels of {len(values)}")
            parts.append(self._placed(values, spec.name, first))
        if surplus := [name for name, values in given.items() if values is not None]:
            raise InputShapeError(f"this training takes no {' and no '.join(surplus)}")
        return np.concatenate(parts)[None]

    def weights_plan(self, iteration: int) -> Plan:
        """Return the plan whose output is the weights after an iteration.

        Raises:
            ParameterError: there is no such iteration.
        """
        return self.signature.plan(f"weights-{self._level(iteration)}")

    def validation_plan(self, iteration: int) -> Plan:
        """Return the plan whose output is the validation rows' margins after an iteration.

        Raises:
            ParameterError: margins are not computed then.
        """
        if not self.task.validates(iteration):
            raise ParameterError(f"nothing is validated after iteration {iteration}")
        return self.signature.plan(f"validate-{self._level(iteration)}")

    def weights(self, vectors: Floats) -> Floats:
        """Read the weights, the constant's first, out of decrypted slots.

        Every block holds them, with errors of its own: their mean is the most precise.

        Args:
            vectors: shape (classes, slots).

        Returns:
            Shape (classes, features + 1), stored values.
        """
        blocks = vectors.reshape(len(vectors), -1, self.task.width)
        return np.asarray(blocks.mean(axis=1)[:, : self.task.features + 1])

    def margins(self, vectors: Floats, rows: int) -> Floats:
        """Read margins out of decrypted slots.

        Args:
            vectors: shape (classes, ciphertexts, slots).
            rows: how many.

        Returns:
            Shape (rows, classes).
        """
        firsts = vectors[..., :: self.task.width].reshape(len(vectors), -1)
        return np.asarray(firsts[:, :rows].T * self.task.margin_scale)

    def moments(self, vectors: Floats) -> Floats:
        """Read the sums of products of columns (1, features, target).

        Args:
            vectors: shape (features + 2, slots), decrypted sums.

        Returns:
            Shape (features + 2, features + 2), symmetric, of stored rows.
        """
        size = self.task.features + 2
        found = np.zeros((size, size))
        for apart in range(size):
            diagonal = vectors[apart, : size - apart]
            found += np.diag(diagonal, apart) + (np.diag(diagonal, -apart) if apart else 0.0)
        return found

    def validated(self) -> Iterator[int]:
        """Yield the iterations after which validation rows' margins are computed."""
        return (t for t in range(1, self.task.iterations + 1) if self.task.validates(t))

    def _count(self, name: str) -> int:
        return len(self.ciphertexts(name))

    def _level(self, iteration: int) -> int:
        for step in self.steps:
            if step.iteration == iteration and not step.refreshes:
                return step.weights_level
        raise ParameterError(f"this training has no iteration {iteration}")

    def _placed(self, values: Floats, name: str, first: int) -> Floats:
        (spec,) = (spec for spec in self.upload.inputs if spec.name == name)
        where: NDArray[np.int64] = np.arange(len(values), dtype=np.int64)
        if name == VALIDATION:
            if len(values) > spec.layout.size:
                raise InputShapeError(f"{len(values)} validation rows, {spec.layout.size} fit")
        else:
            where = self.positions(first, len(values))
        placed = np.zeros((spec.layout.size, values.shape[1]))
        placed[where] = values
        return spec.layout.pack(placed.T)
