"""Training jobs on disk: a table in SQLite, ciphertexts in files beside it.

    ROOT/jobs.sqlite            one row per job (write-ahead log, every commit synchronised)
    ROOT/plans/<plan>/          compiled trainings, see `tacit.artifact`
    ROOT/jobs/<job>/            uploaded rows, checkpoints and results, see `JobFiles`

A file appears under its name by an atomic rename after its bytes are on the disk, and a row counts
a unit of work as done only after the unit's files are there. So a job goes on, after whatever
happened, with the first unit that is not counted; work done twice gives the same bytes twice.
"""

from __future__ import annotations

import mmap
import os
import shutil
import sqlite3
import threading
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from tacit import wire
from tacit.directory_lock import DirectoryLock
from tacit.errors import TruncatedError
from tacit.runtime.frame_upload import storing, write_all
from tacit.runtime.refusals import UnknownJobError
from tacit.runtime.requests import Frame
from tacit.training import JobState

_PREFIX = 64
_ENDED = tuple(state for state in JobState if state.ended)


@dataclass(frozen=True, slots=True)
class JobRow:
    """What is kept of a job.

    Attributes:
        job: its name.
        tenant: whose it is.
        plan: name of the training artifact.
        digest: of the artifact's private half, which must not change under a job.
        key_id: of the evaluation keys.
        uploads: parties that upload rows.
        nonce: the client's own name for the request that made it, or "".
        state: see `JobState`.
        reason: why it failed, waits or was cancelled.
        unit: units of work done.
        seconds: measured for them.
        predicted: predicted for them.
        size: bytes set aside for its ciphertexts.
        created: seconds since 1970.
    """

    job: str
    tenant: str
    plan: str
    digest: str
    key_id: str
    uploads: int
    nonce: str
    state: JobState
    reason: str
    unit: int
    seconds: float
    predicted: float
    size: int
    created: float


_COLUMNS = [field.name for field in fields(JobRow)]
_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    job TEXT PRIMARY KEY, tenant TEXT NOT NULL, plan TEXT NOT NULL, digest TEXT NOT NULL,
    key_id TEXT NOT NULL, uploads INTEGER NOT NULL, nonce TEXT NOT NULL, state TEXT NOT NULL,
    reason TEXT NOT NULL, unit INTEGER NOT NULL, seconds REAL NOT NULL, predicted REAL NOT NULL,
    size INTEGER NOT NULL, created REAL NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS nonces ON jobs (tenant, nonce) WHERE nonce <> '';
"""


class TrainingStore:
    """Jobs by name; safe to use from several threads. One process at a time has it open."""

    def __init__(self, root: Path) -> None:
        """Open a store; jobs that ran when the server ended wait for their turn again.

        Raises:
            DirectoryInUseError: another process has it open.
            StorageError: it cannot be opened.
        """
        self.root = root
        self._lock = threading.RLock()
        with storing(f"open the training store {root}"):
            for folder in (root, self.plans, root / "jobs"):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._held = DirectoryLock(root)
        try:
            with storing(f"open the training store {root}"), _translated():
                for leftover in (root / "jobs").rglob("*.part"):
                    leftover.unlink(missing_ok=True)
                self._open()
        except BaseException:
            self._held.release()
            raise

    @property
    def plans(self) -> Path:
        """Where compiled trainings lie."""
        return self.root / "plans"

    def files(self, job: str) -> JobFiles:
        """Return where a job's ciphertexts lie."""
        return JobFiles(self.root / "jobs" / job)

    def add(self, row: JobRow) -> JobRow:
        """Keep a new job; one with the same nonce of the same tenant is returned instead."""
        with self._lock, self._changing() as database:
            if row.nonce:
                query = "SELECT * FROM jobs WHERE tenant = ? AND nonce = ?"
                if found := database.execute(query, (row.tenant, row.nonce)).fetchone():
                    return _row(found)
            marks = ", ".join("?" * len(_COLUMNS))
            database.execute(f"INSERT INTO jobs VALUES ({marks})", _values(row))
        return row

    def find(self, tenant: str, job: str) -> JobRow:
        """Return a tenant's job.

        Raises:
            UnknownJobError: there is none of that name, or it is somebody else's.
        """
        with self._lock, self._changing() as database:
            query = "SELECT * FROM jobs WHERE job = ? AND tenant = ?"
            found = database.execute(query, (job, tenant)).fetchone()
        if found is None:
            raise UnknownJobError("there is no such training job: it was forgotten, or never was")
        return _row(found)

    def of(self, tenant: str) -> list[JobRow]:
        """Return a tenant's jobs, newest first."""
        return self._where("tenant = ? ORDER BY created DESC", (tenant,))

    def with_plan(self, plan: str) -> list[JobRow]:
        """Return all jobs of a plan."""
        return self._where("plan = ?", (plan,))

    def in_states(self, *states: JobState) -> list[JobRow]:
        """Return all jobs in these states, oldest first."""
        marks = ", ".join("?" * len(states))
        values = tuple(state.value for state in states)
        return self._where(f"state IN ({marks}) ORDER BY created", values)

    def move(self, job: str, to: JobState, reason: str, *out_of: JobState) -> bool:
        """Change a job's state if it is in one of these; returns whether it was."""
        marks = ", ".join("?" * len(out_of))
        with self._lock, self._changing() as database:
            changed = database.execute(
                f"UPDATE jobs SET state = ?, reason = ? WHERE job = ? AND state IN ({marks})",
                (to.value, reason, job, *(state.value for state in out_of)),
            )
            return changed.rowcount > 0

    def advance(self, job: str, unit: int, seconds: float, predicted: float) -> None:
        """Count the units before `unit` as done; nothing happens if they were counted already."""
        with self._lock, self._changing() as database:
            database.execute(
                "UPDATE jobs SET unit = ?, seconds = seconds + ?, predicted = predicted + ? "
                "WHERE job = ? AND unit < ?",
                (unit, seconds, predicted, job, unit),
            )

    def forget(self, job: str) -> None:
        """Remove a job and its files."""
        with self._lock:
            with self._changing() as database:
                database.execute("DELETE FROM jobs WHERE job = ?", (job,))
            shutil.rmtree(self.files(job).root, ignore_errors=True)

    def close(self) -> None:
        """Close the table and let the folder go."""
        with self._lock:
            self._database.close()
            self._held.release()

    def _open(self) -> None:
        path = self.root / "jobs.sqlite"
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        os.chmod(path, 0o600)
        with closing(self._database.execute("PRAGMA journal_mode = WAL")):
            pass
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.executescript(_SCHEMA)
        self._database.execute(
            "UPDATE jobs SET state = ? WHERE state = ?",
            (JobState.QUEUED.value, JobState.RUNNING.value),
        )

    def _where(self, condition: str, values: tuple[object, ...]) -> list[JobRow]:
        with self._lock, self._changing() as database:
            found = database.execute(f"SELECT * FROM jobs WHERE {condition}", values).fetchall()
        return [_row(entry) for entry in found]

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with storing("use the training store"), _translated():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")


@dataclass(frozen=True, slots=True)
class JobFiles:
    """A job's ciphertexts.

    rows/K-I        frame I of upload K
    sums/I          the sum of the uploads' frames I, where there are several
    labels/C-I      labels of class C
    states/C-S      the state of class C after step S
    weights/C-T     what is given out after iteration T
    margins/C-T     validation rows' margins after iteration T
    """

    root: Path

    def upload(self, upload: int, place: int) -> Path:
        """Return where an uploaded frame lies."""
        return self.root / "rows" / f"{upload}-{place}"

    def place(self, place: int, uploads: int) -> Path:
        """Return where a frame lies that iterations read."""
        return self.upload(0, place) if uploads == 1 else self.root / "sums" / str(place)

    def of_class(self, folder: str, chosen: int, number: int) -> Path:
        """Return where something of a class lies."""
        return self.root / folder / f"{chosen}-{number}"

    def missing(self, uploads: int, frames: int) -> tuple[tuple[int, ...], ...]:
        """Return, for each upload, the frames that have not arrived."""
        folder = self.root / "rows"
        there = set(os.listdir(folder)) if folder.is_dir() else set()
        return tuple(
            tuple(i for i in range(frames) if f"{upload}-{i}" not in there)
            for upload in range(uploads)
        )

    def numbers(self, folder: str, classes: int) -> tuple[int, ...]:
        """Return the numbers under which a folder has something of every class."""
        path = self.root / folder
        names = [n for n in os.listdir(path) if not n.endswith(".part")] if path.is_dir() else []
        last = [int(name.split("-")[1]) for name in names if name.startswith(f"{classes - 1}-")]
        return tuple(sorted(last))


def write_durably(path: Path, frames: Iterable[Frame]) -> None:
    """Write frames, one after the other, so that the file is whole or not there.

    Raises:
        StorageError: the disk is full.
    """
    with storing("store ciphertexts of a training"):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            for frame in frames:
                write_all(descriptor, frame)
            os.fsync(descriptor)
            os.replace(temporary, path)
        finally:
            os.close(descriptor)
            temporary.unlink(missing_ok=True)
        _synchronise(path.parent)


def read_frames(path: Path) -> list[memoryview]:
    """Map a file and split it into its frames.

    Raises:
        StorageError: it cannot be read.
        WireError: it is damaged.
    """
    with storing("read ciphertexts of a training"), path.open("rb") as file:
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return split_frames(content)


def split_frames(content: memoryview) -> list[memoryview]:
    """Split bytes into frames by the lengths they declare.

    Raises:
        TruncatedError: the last one is cut off.
        HeaderError: not frames.
    """
    found = []
    while len(content):
        length = wire.frame_length(content[:_PREFIX])
        if length > len(content):
            raise TruncatedError(f"a frame declares {length} bytes, {len(content)} are left")
        found.append(content[:length])
        content = content[length:]
    return found


def _synchronise(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _values(row: JobRow) -> tuple[object, ...]:
    return tuple(value.value if isinstance(value, JobState) else value for value in astuple(row))


def _row(values: Sequence[object]) -> JobRow:
    given = dict(zip(_COLUMNS, values, strict=True))
    return JobRow(**given | {"state": JobState(given["state"])})  # type: ignore[arg-type]


@contextmanager
def _translated() -> Iterator[None]:
    """Let SQLite's errors be disk errors."""
    try:
        yield
    except sqlite3.Error as error:
        raise OSError(0, f"the table of jobs: {error}") from error
