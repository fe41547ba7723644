"""A server that dies at any point of a job: what it computes afterwards is the same."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tacit.errors import TacitError
from tacit.model_compiler.training import compile_training
from tacit.runtime import training_runner, training_store
from tacit.runtime.refusals import StorageError
from tacit.runtime.repository import ModelVersion, Repository
from tacit.runtime.requests import Frame, Job, Result, Timing
from tacit.runtime.training_runner import Outside, RunnerLimits, TrainingRunner
from tacit.runtime.training_store import JobRow, TrainingStore, write_durably
from tacit.training import Algorithm, JobState, TrainingTask
from tacit.training_plan import TrainingPlan
from tests.model_compiler.trainings import insecure
from tests.runtime.training_servers import KEY, zeros

TASK = TrainingTask(
    Algorithm.LOGISTIC, 40, 2, 2, classes=2, validation_rows=5, validation_every=1, predictions=True
)
UPLOADS = 2


class Death(BaseException):
    """The end of the server."""


@dataclass
class HashExecutor:
    """Answers with ciphertexts that depend on all inputs; dies before its call `dies_at`."""

    dies_at: int = -1
    calls: int = 0
    ran: list[str] = field(default_factory=list)

    async def run(self, job: Job) -> Sequence[Result | TacitError]:
        if self.calls == self.dies_at:
            raise Death
        self.calls += 1
        self.ran.append(job.lane.plan)
        await asyncio.sleep(0)
        (work,) = job.work
        digest = hashlib.sha256(job.lane.plan.encode())
        for frame in work.frames:
            digest.update(frame)
        signature = job.model.signature
        outputs = [
            s for s in signature.plan(job.lane.plan).outputs for _ in range(s.layout.ciphertexts)
        ]
        seed = int.from_bytes(digest.digest()[:4], "little") >> 8
        return [
            Result([zeros(signature, s, KEY, seed + i) for i, s in enumerate(outputs)], Timing())
        ]

    async def close(self) -> None:
        return None


@dataclass
class Server:
    """A runner on a folder, and one job in it."""

    root: Path
    model: ModelVersion

    def store(self) -> TrainingStore:
        return TrainingStore(self.root)

    def run(self, store: TrainingStore, executor: HashExecutor, job: str) -> None:
        """Run until the job has ended; what kills the server comes out."""
        model, view = self.model, TrainingPlan.of(self.model.signature)
        outside = Outside(
            executor, lambda row: (model, view), lambda row, model: True, lambda *_: None
        )
        asyncio.run(_run(TrainingRunner(store, outside, RunnerLimits()), store, job))


async def _run(runner: TrainingRunner, store: TrainingStore, job: str) -> None:
    runner.start()
    tasks = list(runner._tasks)
    try:
        while not store.find("clinic", job).state.ended:
            await asyncio.sleep(0.001)
            for task in tasks:
                if task.done():
                    task.result()
    finally:
        await runner.stop()


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    folder = tmp_path_factory.mktemp("models") / "training"
    compile_training(TASK, folder, insecure(TASK))
    return Repository(folder.parent).find(folder.name)


def begin(server: Server, store: TrainingStore) -> str:
    """Make a job whose rows are there."""
    model, view = server.model, TrainingPlan.of(server.model.signature)
    row = JobRow(
        "job", "clinic", model.name, model.signature.private_digest, KEY, UPLOADS, "",
        JobState.QUEUED, "", 0, 0.0, 0.0, 0, 1.0,
    )  # fmt: skip
    store.add(row)
    specs = [s for s in view.upload.inputs for _ in range(s.layout.ciphertexts)]
    for upload in range(UPLOADS):
        for place, spec in enumerate(specs):
            frame = zeros(view.signature, spec, KEY, 10 * upload + place)
            write_durably(store.files("job").upload(upload, place), [frame])
    return "job"


def results(store: TrainingStore) -> dict[str, bytes]:
    """What a client can read of the job, and the final state."""
    root = store.files("job").root
    folders = ("weights", "margins", "states")
    return {
        f"{folder}/{path.name}": path.read_bytes()
        for folder in folders
        for path in sorted((root / folder).iterdir())
    }


def undisturbed(server: Server) -> tuple[dict[str, bytes], HashExecutor]:
    store, executor = server.store(), HashExecutor()
    job = begin(server, store)
    server.run(store, executor, job)
    assert store.find("clinic", job).state is JobState.DONE
    found = results(store)
    store.close()
    return found, executor


EVERY = pytest.mark.parametrize(
    "every", [4, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "all"]
)


@EVERY
def test_dying_before_any_operation_changes_nothing(
    plan: ModelVersion, tmp_path: Path, every: int
) -> None:
    expected, executor = undisturbed(Server(tmp_path / "peace", plan))
    assert executor.calls > 15
    for point in range(0, executor.calls, every):
        server = Server(tmp_path / str(point), plan)
        store = server.store()
        job = begin(server, store)
        with pytest.raises(Death):
            server.run(store, HashExecutor(point), job)
        store.close()
        after = server.store()
        server.run(after, HashExecutor(), job)
        assert results(after) == expected, f"killed before operation {point}"
        after.close()


@EVERY
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_dying_at_any_write_changes_nothing(
    plan: ModelVersion, tmp_path: Path, late: bool, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = undisturbed(Server(tmp_path / "peace", plan))
    for point in range(0, len(_writes(plan, tmp_path, monkeypatch)), every):
        server = Server(tmp_path / str(point), plan)
        store = server.store()
        job = begin(server, store)
        with monkeypatch.context() as patched:
            patched.setattr(training_runner, "write_durably", _dying(point, late))
            with pytest.raises(Death):
                server.run(store, HashExecutor(), job)
        store.close()
        after = server.store()
        server.run(after, HashExecutor(), job)
        assert results(after) == expected, f"killed at write {point}"
        after.close()


def _writes(plan: ModelVersion, root: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []

    def noted(path: Path, frames: Sequence[Frame]) -> None:
        names.append(path.name)
        write_durably(path, frames)

    with monkeypatch.context() as patched:
        patched.setattr(training_runner, "write_durably", noted)
        undisturbed(Server(root / "counted", plan))
    return names


def _dying(point: int, late: bool) -> Callable[[Path, Sequence[Frame]], None]:
    count = iter(range(1000))

    def write(path: Path, frames: Sequence[Frame]) -> None:
        last = next(count) == point
        if last and not late:
            half = path.with_name(f"{path.name}.half.part")
            half.parent.mkdir(parents=True, exist_ok=True)
            half.write_bytes(bytes(frames[0])[:100])
        else:
            write_durably(path, frames)
        if last:
            raise Death

    return write


def test_a_full_disk_fails_the_job_which_goes_on_later(
    plan: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(tmp_path / "full", plan)
    store = server.store()
    job = begin(server, store)

    def full(path: Path, frames: Sequence[Frame]) -> None:
        raise StorageError("cannot store ciphertexts of a training: the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(training_runner, "write_durably", full)
        server.run(store, HashExecutor(), job)
    row = store.find("clinic", job)
    assert row.state is JobState.FAILED
    assert row.reason.endswith("the disk is full")
    store.move(job, JobState.QUEUED, "", JobState.FAILED)
    server.run(store, HashExecutor(), job)
    assert store.find("clinic", job).state is JobState.DONE
    store.close()


def test_a_damaged_checkpoint_is_noticed(plan: ModelVersion, tmp_path: Path) -> None:
    server = Server(tmp_path / "damaged", plan)
    store = server.store()
    job = begin(server, store)
    path = store.files(job).upload(0, 0)
    path.write_bytes(path.read_bytes()[:-5])
    server.run(store, HashExecutor(), job)
    row = store.find("clinic", job)
    assert row.state is JobState.FAILED
    assert row.reason.startswith("wire_")
    store.close()


def test_files_are_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "folder" / "name"
    write_durably(path, [b"old"])

    def broken(descriptor: int, chunk: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(training_store, "write_all", broken)
        with pytest.raises(StorageError, match="disk is full"):
            write_durably(path, [b"new"])
    assert path.read_bytes() == b"old"
    assert [p.name for p in path.parent.iterdir()] == ["name"]
    assert path.stat().st_mode & 0o077 == 0
