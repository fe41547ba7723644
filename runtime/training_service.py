"""What clients may ask of training: plans, jobs, rows, results. Methods may block, unless async."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tacit import wire
from tacit.errors import UnknownKeyError
from tacit.runtime.audit import AuditLog
from tacit.runtime.batcher import Batcher
from tacit.runtime.endpoint import KeyFinder
from tacit.runtime.refusals import (
    BadRequestError,
    BusyError,
    ConflictError,
    JobStateError,
    StorageError,
)
from tacit.runtime.repository import ModelVersion, Repository
from tacit.runtime.requests import Executor, Frame, Lane
from tacit.runtime.training_plans import PlanTraining, TrainingPlans
from tacit.runtime.training_runner import Outside, RunnerLimits, TrainingRunner
from tacit.runtime.training_sizes import job_bytes, upload_bytes, upload_expectation
from tacit.runtime.training_store import (
    JobRow,
    TrainingStore,
    read_frames,
    write_durably,
)
from tacit.runtime.training_units import units_of
from tacit.training import JobState, JobStatus
from tacit.training_plan import PREDICT, TrainingPlan

_LOG = logging.getLogger("tacit.runtime.training")
_KEY_ID = re.compile(r"[0-9a-f]{64}")
_LONGEST_NONCE = 128
_MOST_UPLOADS = 64


@dataclass(frozen=True, slots=True)
class TrainingLimits:
    """Bounds of training.

    Attributes:
        tenant_bytes: set aside for the ciphertexts of one tenant's jobs.
        tenant_jobs: jobs of one tenant that have not ended.
        kept_jobs: jobs of one tenant in all, until it forgets some.
        plans: compiled trainings that are kept.
        runner: see `RunnerLimits`.
    """

    tenant_bytes: int = 64 << 30
    tenant_jobs: int = 8
    kept_jobs: int = 256
    plans: int = 256
    runner: RunnerLimits = field(default_factory=RunnerLimits)


@dataclass(frozen=True, slots=True)
class TrainingParts:
    """Parts of the server that training works with."""

    repository: Repository
    keys: KeyFinder
    executor: Executor
    batcher: Batcher
    audit: AuditLog | None
    compile_plan: PlanTraining | None


class TrainingService:
    """Answers clients, and owns the runner."""

    def __init__(self, store: TrainingStore, parts: TrainingParts, limits: TrainingLimits) -> None:
        """Take up the plans that are kept; nothing runs yet."""
        self._store = store
        self._parts = parts
        self._limits = limits
        self._writing = threading.Lock()
        self._plans = TrainingPlans(
            store.plans,
            parts.repository,
            parts.compile_plan,
            limits.plans,
            lambda name: bool(store.with_plan(name)),
        )
        outside = Outside(parts.executor, self._plans.of, self._keys_complete, self.record)
        self.runner = TrainingRunner(store, outside, limits.runner)

    async def close(self) -> None:
        """Stop the runner and close the store."""
        await self.runner.stop()
        await asyncio.to_thread(self._store.close)

    def plan(self, tenant: str, fields: dict[str, object]) -> dict[str, object]:
        """Describe the compiled training of a task; see `TrainingPlans.ask`."""
        found = self._plans.ask(fields)
        if self._parts.audit is not None:
            self._parts.audit.record("training_plan", {"tenant": tenant, "plan": found["plan"]})
        return found

    def create(self, tenant: str, fields: Mapping[str, object]) -> JobRow:
        """Make a job.

        Raises:
            BadRequestError: a field is missing or malformed.
            UnknownModelError: no such plan.
            ParameterMismatchError: the keys are complete, and for another plan.
            BusyError: too many jobs.
            StorageError: the tenant's quota is used up.
        """
        name, key_id, nonce = (_text(fields, key) for key in ("plan", "key_id", "nonce"))
        uploads = fields.get("uploads", 1)
        if isinstance(uploads, bool) or not isinstance(uploads, int):
            raise BadRequestError("`uploads` must be a number")
        if not 1 <= uploads <= _MOST_UPLOADS or not _KEY_ID.fullmatch(key_id):
            raise BadRequestError(
                f"`uploads` must be 1 to {_MOST_UPLOADS}, `key_id` 64 hexadecimal digits"
            )
        view = self._plans.view(name)
        size = job_bytes(view, uploads)
        row = JobRow(
            job=uuid.uuid4().hex,
            tenant=tenant,
            plan=name,
            digest=view.signature.private_digest,
            key_id=key_id,
            uploads=uploads,
            nonce=nonce[:_LONGEST_NONCE],
            state=JobState.WAITING_FOR_ROWS,
            reason="",
            unit=0,
            seconds=0.0,
            predicted=0.0,
            size=size,
            created=time.time(),
        )
        self._keys_complete(row, self._plans.of(row)[0])
        with self._writing:
            self._check_quota(row)
            made = self._store.add(row)
        if made.job == row.job:
            self.record("training_created", row, "")
        return made

    def find(self, tenant: str, job: str) -> JobRow:
        """Return a tenant's job.

        Raises:
            UnknownJobError: there is none.
        """
        return self._store.find(tenant, job)

    def status(self, row: JobRow) -> JobStatus:
        """Describe a job."""
        if not self._plans.known(row.plan):
            return _status(row, (), 0, None, (), ())
        view, files = self._plans.view(row.plan), self._store.files(row.job)
        units = units_of(view, row.uploads)
        classes = view.task.classes
        missing: tuple[tuple[int, ...], ...] = ()
        if row.state is JobState.WAITING_FOR_ROWS:
            missing = files.missing(row.uploads, view.frames)
        ahead = sum(unit.seconds for unit in units[row.unit :])
        left = ahead * row.seconds / row.predicted if row.predicted else None
        done = units[row.unit - 1].iterations if row.unit else 0
        weights = [t for t in files.numbers("weights", classes) if t <= done]
        margins = [t for t in files.numbers("margins", classes) if t <= done]
        of = max(1, view.task.iterations)
        return _status(row, missing, done, left, tuple(margins), tuple(weights), of)

    def statuses(self, tenant: str) -> list[JobStatus]:
        """Describe all jobs of a tenant, newest first."""
        return [self.status(row) for row in self._store.of(tenant)]

    def upload_bytes(self, row: JobRow) -> int:
        """Return how long a frame may be, at most."""
        return max(upload_bytes(self._plans.view(row.plan)))

    def upload(self, tenant: str, job: str, upload: int, place: int, frame: Frame) -> JobRow:
        """Take one ciphertext of an upload; it is on the disk when this returns.

        Raises:
            UnknownJobError: no such job.
            BadRequestError: no such place.
            JobStateError: the job has begun.
            ConflictError: something else is there already.
            WireError: damaged, or made for other parameters or keys.
            StorageError: the disk is full.
        """
        row = self._store.find(tenant, job)
        view = self._plans.view(row.plan)
        if not (0 <= upload < row.uploads and 0 <= place < view.frames):
            raise BadRequestError(
                f"uploads 0 to {row.uploads - 1} of frames 0 to {view.frames - 1} were expected"
            )
        files = self._store.files(job)
        path = files.upload(upload, place)
        if not path.exists():
            if row.state is not JobState.WAITING_FOR_ROWS:
                raise JobStateError(f"the job is {row.state.value}: rows are not taken any more")
            wire.decode_ciphertext(frame, upload_expectation(view, place, row.key_id))
        with self._writing:
            if path.exists():
                if path.read_bytes() != bytes(frame):
                    raise ConflictError("another ciphertext was uploaded to this place before")
            elif self._store.find(tenant, job).state is JobState.WAITING_FOR_ROWS:
                write_durably(path, [frame])
            else:
                raise JobStateError("the job was cancelled while rows were on their way")
            if not any(files.missing(row.uploads, view.frames)):
                states = (JobState.WAITING_FOR_KEYS, "", JobState.WAITING_FOR_ROWS)
                self._store.move(job, *states)
        return self._store.find(tenant, job)

    def cancel(self, tenant: str, job: str) -> JobRow:
        """Cancel a job; one that has ended stays as it is."""
        row = self._store.find(tenant, job)
        going = tuple(state for state in JobState if not state.ended)
        if self._store.move(job, JobState.CANCELLED, "cancelled by its owner", *going):
            self.record("training_cancelled", row, "")
        return self._store.find(tenant, job)

    def resume(self, tenant: str, job: str) -> JobRow:
        """Let a cancelled or failed job go on from its last checkpoint.

        Raises:
            JobStateError: it is neither.
        """
        row = self._store.find(tenant, job)
        view = self._plans.of(row)[1]
        whole = not any(self._store.files(job).missing(row.uploads, view.frames))
        to = JobState.WAITING_FOR_KEYS if whole else JobState.WAITING_FOR_ROWS
        with self._writing:
            self._check_active(row)
            if not self._store.move(job, to, "", JobState.CANCELLED, JobState.FAILED):
                raise JobStateError(f"a job that is {row.state.value} cannot be resumed")
        self.record("training_resumed", row, "")
        return self._store.find(tenant, job)

    def forget(self, tenant: str, job: str) -> None:
        """Remove a job that does not run, with all its ciphertexts."""
        row = self._store.find(tenant, job)
        self._store.forget(job)
        self.record("training_forgotten", row, "")

    def weights(self, tenant: str, job: str, iteration: int | None) -> tuple[int, list[Frame]]:
        """Return the encrypted weights after an iteration; the last one done by default.

        Raises:
            UnknownJobError, JobStateError: there is nothing to read.
        """
        row = self._store.find(tenant, job)
        return self._read(row, "weights", self.status(row).weights, iteration)

    def margins(self, tenant: str, job: str, iteration: int) -> tuple[int, list[Frame]]:
        """Return the encrypted margins of the validation rows after an iteration."""
        row = self._store.find(tenant, job)
        return self._read(row, "margins", self.status(row).validations, iteration)

    def _read(
        self, row: JobRow, folder: str, there: Sequence[int], iteration: int | None
    ) -> tuple[int, list[Frame]]:
        if not there or (iteration is not None and iteration not in there):
            raise JobStateError(
                f"no {folder} of iteration {'any' if iteration is None else iteration}: there are "
                f"those of {list(there)}; the job is {row.state.value}"
            )
        number = there[-1] if iteration is None else iteration
        files, classes = self._store.files(row.job), self._plans.view(row.plan).task.classes
        paths = [files.of_class(folder, chosen, number) for chosen in range(classes)]
        self.record(f"training_{folder}_read", row, str(number))
        return number, [frame for path in paths for frame in read_frames(path)]

    async def predict(
        self, tenant: str, job: str, frames: Sequence[Frame], seconds: float
    ) -> list[Frame]:
        """Multiply encrypted rows by the encrypted weights of a job that is done.

        Raises:
            JobStateError: it is not done, or its task did not ask for predictions.
            TacitError: from the worker, for frames that are not such rows.
        """
        row = await asyncio.to_thread(self._store.find, tenant, job)
        model, view = self._plans.of(row)
        if row.state is not JobState.DONE or not view.task.predictions:
            raise JobStateError(
                f"the job is {row.state.value}: predictions need one that is done, of a task with "
                "`predictions`"
            )
        if not frames:
            raise BadRequestError("one ciphertext of rows is needed, or more")
        self._parts.keys.require(tenant, row.key_id, model.signature)
        weights = await asyncio.to_thread(self._final_weights, row, view)
        pairs = [part for frame in frames for weight in weights for part in (frame, weight)]
        digest = model.signature.private_digest
        lane = Lane(model.name, model.version, digest, PREDICT, tenant, row.key_id)
        result, _ = await self._parts.batcher.submit(lane, model, pairs, seconds)
        self.record("training_predicted", row, str(len(frames)))
        return list(result.frames)

    def _final_weights(self, row: JobRow, view: TrainingPlan) -> list[Frame]:
        files, last = self._store.files(row.job), len(view.steps) - 1
        classes = range(view.task.classes)
        return [read_frames(files.of_class("states", chosen, last))[-1] for chosen in classes]

    def record(self, event: str, row: JobRow, detail: str) -> None:
        """Note in log and audit log what happened to a job."""
        fields = {"tenant": row.tenant, "job": row.job, "plan": row.plan, "detail": detail}
        _LOG.info("%s %s", event, fields)
        if self._parts.audit is not None:
            self._parts.audit.record(event, fields)

    def counts(self) -> dict[str, int]:
        """Count jobs by state."""
        rows = self._store.in_states(*JobState)
        return {state.value: sum(row.state is state for row in rows) for state in JobState}

    def _keys_complete(self, row: JobRow, model: ModelVersion) -> bool:
        """Tell whether a job's keys can be used.

        Raises:
            ParameterMismatchError, ExpiredKeyError: they never can.
        """
        try:
            self._parts.keys.require(row.tenant, row.key_id, model.signature)
        except UnknownKeyError:
            return False
        return True

    def _check_quota(self, row: JobRow) -> None:
        rows = self._store.of(row.tenant)
        if row.nonce and any(other.nonce == row.nonce for other in rows):
            return
        if len(rows) >= self._limits.kept_jobs:
            raise BusyError(f"{len(rows)} training jobs are kept: forget some of them")
        self._check_active(row)
        used = sum(other.size for other in rows)
        if used + row.size > self._limits.tenant_bytes:
            raise StorageError(
                f"the job needs {row.size} bytes, {self._limits.tenant_bytes - used} of the quota "
                f"of {self._limits.tenant_bytes} are left: forget jobs that have ended"
            )

    def _check_active(self, row: JobRow) -> None:
        active = sum(not other.state.ended for other in self._store.of(row.tenant))
        if active >= self._limits.tenant_jobs:
            raise BusyError(f"{active} training jobs have not ended: wait for one, or cancel it")


def _status(
    row: JobRow,
    missing: tuple[tuple[int, ...], ...],
    done: int,
    left: float | None,
    validations: tuple[int, ...],
    weights: tuple[int, ...],
    of: int = 0,
) -> JobStatus:
    return JobStatus(
        job=row.job,
        plan=row.plan,
        key_id=row.key_id,
        state=row.state,
        reason=row.reason,
        missing=missing,
        done=done,
        of=of,
        seconds=round(row.seconds, 3),
        seconds_left=0.0 if row.state is JobState.DONE else left,
        validations=validations,
        weights=weights,
    )


def _text(fields: Mapping[str, object], name: str) -> str:
    value = fields.get(name, "")
    if not isinstance(value, str):
        raise BadRequestError(f"`{name}` must be a text")
    return value
