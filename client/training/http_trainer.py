"""Training at a server: rows leave encrypted, weights and margins come back encrypted.

A server that is killed and started again goes on with its jobs, so a client that cannot reach it
tries again for a while before it gives up.
"""

from __future__ import annotations

import secrets
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tacit.client.codec import Codec
from tacit.client.frames import Progress, no_progress
from tacit.client.keys import KeyPair
from tacit.client.training.connection import Connection
from tacit.client.training.requests import Memory, Remember, RemoteModel, TrainingRequest
from tacit.client.training.service import PlannedTraining, TrainingService, is_unreachable
from tacit.client.training.stored import StoredUnits
from tacit.client.upload import upload_keys
from tacit.errors import ExpiredKeyError, ServiceError
from tacit.signature import Signature
from tacit.training import Algorithm, JobStatus, TrainingTask
from tacit.training_plan import MOMENTS, PREDICT, PREDICT_ROWS, TrainingPlan

Floats = NDArray[np.float64]
Answer = TypeVar("Answer")

_GIVE_UP_SECONDS = 120.0
_PAUSE_SECONDS, _LONGEST_PAUSE = 0.2, 2.0
_PREDICT_CIPHERTEXTS = 8


class HttpTrainer:
    """Starts and finds trainings at one server."""

    def __init__(self, connection: Connection, progress: Progress | None = None) -> None:
        """Prepare; nothing is sent yet. `progress` hears of keys, uploads and rows."""
        self._connection = connection
        self._progress = progress or no_progress

    def start(self, request: TrainingRequest, remember: Remember) -> RemoteModel:
        """Have it compiled, make keys, encrypt and send the rows.

        Args:
            request: what is trained on.
            remember: is told the job's name, and what must be kept to read its weights, before
                the rows are sent.

        Raises:
            ParameterError: no secure parameters fit.
            ServiceError: the server cannot be reached or refuses.
        """
        task = request.task
        units = StoredUnits.of(request)
        held = 0 if request.validation is None else len(request.validation)
        with service_of(self._connection) as service:
            plan, signature, keys = self._ready(service, task)
            nonce = secrets.token_hex(16)
            status = patiently(lambda: service.begin(plan, keys.key_id, nonce))
            memory = {"plan": plan, "held": held, "units": units.to_json()}
            remember(status.job, memory)
            model = HttpModel(self._connection, status.job, memory)
            model.reading(signature, keys)
            self._send(service, model, request, units)
        return model

    def planned(self, task: TrainingTask) -> PlannedTraining:
        """Ask what a training would take, before keys are made and rows are sent.

        Raises:
            ParameterError: no secure parameters fit.
            ServiceError: the server cannot be reached or refuses.
        """
        with service_of(self._connection) as service:
            return patiently(lambda: service.planned(task))

    def make_ready(self, task: TrainingTask) -> None:
        """Have it compiled, make keys and upload them; `start` would do it, too."""
        with service_of(self._connection) as service:
            self._ready(service, task)

    def attach(self, job_id: str, memory: Memory) -> RemoteModel:
        """Find a training again; `memory` is what was to be remembered."""
        return HttpModel(self._connection, job_id, memory)

    def _send(
        self,
        service: TrainingService,
        model: HttpModel,
        request: TrainingRequest,
        units: StoredUnits,
    ) -> None:
        plan, codec = model.plan, model.codec
        back = request.validation
        held = None if back is None else units.queries(back)
        vectors = plan.packed(units.rows(request), units.labels(request), held)
        (frames,) = codec.encrypt(plan.upload, vectors)
        for number, frame in enumerate(frames):
            self._progress("rows", number, len(frames))
            _sent(service, model.job_id, number, frame)
        self._progress("rows", len(frames), len(frames))

    def _ready(
        self, service: TrainingService, task: TrainingTask
    ) -> tuple[str, Signature, KeyPair]:
        planned = patiently(lambda: service.planned(task))
        signature = patiently(lambda: service.signature(planned.plan))
        keys = self._keys(signature)
        patiently(lambda: upload_keys(service, keys, signature.key_config, self._progress))
        return planned.plan, signature, keys

    def _keys(self, signature: Signature) -> KeyPair:
        ring = self._connection.ring
        with ring.alone():
            keys = ring.find(signature)
            try:
                if keys is not None:
                    keys.check(signature)
                    return keys
            except ExpiredKeyError:
                pass
            return ring.make(signature, progress=self._progress)


class HttpModel:
    """A training at a server. What it needs to decrypt is read when it is first needed."""

    def __init__(self, connection: Connection, job_id: str, memory: Mapping[str, Any]) -> None:
        self._connection = connection
        self._id = job_id
        self._memory = dict(memory)
        self._units = StoredUnits.from_json(memory["units"])
        self._read: tuple[TrainingPlan, Codec] | None = None
        self._open: TrainingService | None = None

    def __getstate__(self) -> dict[str, object]:
        """Leave out keys and connections: a pickled model reads them anew."""
        return {"connection": self._connection, "job_id": self._id, "memory": self._memory}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        HttpModel.__init__(self, state["connection"], state["job_id"], state["memory"])

    @property
    def job_id(self) -> str:
        """Name of the job."""
        return self._id

    @property
    def task(self) -> TrainingTask:
        """What is trained."""
        return self.plan.task

    @property
    def plan(self) -> TrainingPlan:
        """The compiled training."""
        return self._reading()[0]

    @property
    def codec(self) -> Codec:
        """Encrypts and decrypts under the training's keys."""
        return self._reading()[1]

    @property
    def key_id(self) -> str:
        """Name of the keys it is encrypted under."""
        return self.codec.keys.key_id

    def reading(self, signature: Signature, keys: KeyPair) -> None:
        """Take over signature and keys that are known already."""
        self._read = TrainingPlan.of(signature), Codec(signature, keys)

    def status(self) -> JobStatus:
        """Ask how far it is."""
        return self._asked(lambda service: service.status(self._id))

    def validation(self, iteration: int) -> Floats:
        """Fetch and decrypt the margins of the validation rows."""
        frames = self._asked(lambda service: service.validation(self._id, iteration))
        per_class = len(frames) // self.task.classes
        cut = [frames[at : at + per_class] for at in range(0, len(frames), max(per_class, 1))]
        vectors = self.codec.decrypt(self.plan.validation_plan(iteration), cut)
        return self._units.margins(self.plan.margins(vectors, int(self._memory["held"])))

    def cancel(self) -> None:
        """Stop it."""
        self._asked(lambda service: service.cancel(self._id))

    def resume(self) -> None:
        """Go on."""
        self._asked(lambda service: service.resume(self._id))

    def forget(self) -> None:
        """Have the server delete the job and its ciphertexts."""
        self._asked(lambda service: service.forget(self._id))

    def weights(self, iteration: int | None = None) -> Floats:
        """Fetch and decrypt weights or moments."""
        frames = self._asked(lambda service: service.weights(self._id, iteration))
        plan = self.plan
        if self.task.algorithm is Algorithm.MOMENTS:
            vectors = self.codec.decrypt(plan.signature.plan(MOMENTS), [frames])[0]
            return self._units.moments(plan.moments(vectors))
        which = plan.weights_plan(self.task.iterations if iteration is None else iteration)
        vectors = self.codec.decrypt(which, [[frame] for frame in frames])[:, 0]
        return self._units.weights(self.task, plan.weights(vectors))

    def error(self, iteration: int | None = None) -> float:
        """Measure the deviation of the errors in the weights, in units of `weights()`."""
        frames = self._asked(lambda service: service.weights(self._id, iteration))
        if self.task.algorithm is Algorithm.MOMENTS:
            which = self.plan.signature.plan(MOMENTS)
            stored = self.codec.measured_error(which, [frames])
            return stored * float(self._units.per_sum.max())
        which = self.plan.weights_plan(self.task.iterations if iteration is None else iteration)
        stored = self.codec.measured_error(which, [[frame] for frame in frames])
        ones = np.ones((self.task.classes, self.task.features + 1))
        return stored * float(np.abs(self._units.weights(self.task, ones)).max())

    def margins(self, rows: Floats) -> Floats:
        """Multiply encrypted weights by encrypted rows."""
        plan, codec = self.plan, self.codec
        size = plan.rows_per_ciphertext * _PREDICT_CIPHERTEXTS
        parts = [rows[at : at + size] for at in range(0, len(rows), size)]
        return np.concatenate([self._predicted(plan, codec, part) for part in parts])

    def _predicted(self, plan: TrainingPlan, codec: Codec, rows: Floats) -> Floats:
        asked, size = plan.signature.plan(PREDICT_ROWS), plan.rows_per_ciphertext
        spec = asked.inputs[0]
        stored, counts, vectors = self._units.queries(rows), [], []
        for at in range(0, len(stored), size):
            part = stored[at : at + size]
            placed = np.zeros((spec.layout.size, part.shape[1]))
            placed[: len(part)] = part
            counts.append(len(part))
            vectors.append(spec.layout.pack(placed.T))
        frames = [frames[0] for frames in codec.encrypt(asked, np.stack(vectors))]
        answers = self._asked(lambda service: service.predict(self._id, frames))
        classes = self.task.classes
        if len(answers) != len(frames) * classes:
            raise ServiceError(f"{len(frames) * classes} ciphertexts expected, {len(answers)} came")
        slots = codec.decrypt(plan.signature.plan(PREDICT), [[answer] for answer in answers])
        found = [
            plan.margins(slots[number * classes : (number + 1) * classes], count)
            for number, count in enumerate(counts)
        ]
        return self._units.margins(np.concatenate(found))

    def _reading(self) -> tuple[TrainingPlan, Codec]:
        if self._read is None:
            name = str(self._memory["plan"])
            signature = self._asked(lambda service: service.signature(name))
            keys = self._connection.ring.find(signature)
            if keys is None:
                raise ServiceError(
                    f"the keys of job {self._id} are not in {self._connection.directory}: without "
                    "them nobody can read its weights"
                )
            self.reading(signature, keys)
        assert self._read is not None
        return self._read

    def _asked(self, ask: Callable[[TrainingService], Answer]) -> Answer:
        if self._open is None:
            self._open = service_of(self._connection)
            weakref.finalize(self, self._open.close)
        service = self._open
        return patiently(lambda: ask(service))


def service_of(connection: Connection) -> TrainingService:
    """Open a connection."""
    return TrainingService(connection.url, token=connection.token, timeout=connection.timeout)


def _sent(service: TrainingService, job: str, number: int, frame: bytes) -> None:
    patiently(lambda: service.send_rows(job, number, frame))


def patiently(ask: Callable[[], Answer], give_up_seconds: float = _GIVE_UP_SECONDS) -> Answer:
    """Ask, and ask again while nobody answers; every request here may be repeated.

    Raises:
        ServiceError: nobody answered in time, or the server refuses.
    """
    start, pause = time.monotonic(), _PAUSE_SECONDS
    while True:
        try:
            return ask()
        except ServiceError as error:
            late = time.monotonic() - start > give_up_seconds
            if late or not is_unreachable(error):
                raise
        time.sleep(pause)
        pause = min(2.0 * pause, _LONGEST_PAUSE)
