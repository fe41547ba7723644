"""Compiled trainings: compiled when a task is first asked for, kept on disk, served like models."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

from tacit.errors import TacitError, UnknownModelError
from tacit.runtime.refusals import BadRequestError, JobStateError, StorageError
from tacit.runtime.repository import ModelVersion, Repository
from tacit.runtime.training_sizes import upload_bytes
from tacit.runtime.training_store import JobRow
from tacit.training import TrainingTask
from tacit.training_plan import TrainingPlan

_LOG = logging.getLogger("tacit.runtime.training")
PlanTraining = Callable[[TrainingTask, Path], object]


class TrainingPlans:
    """Compiled trainings by name; safe to use from several threads."""

    def __init__(
        self,
        folder: Path,
        repository: Repository,
        compile_plan: PlanTraining | None,
        most: int,
        in_use: Callable[[str], bool],
    ) -> None:
        """Take up what is kept.

        Args:
            folder: holds one artifact each.
            repository: offers them to clients, and to the key store, like models.
            compile_plan: compiles a task into a folder; None refuses new tasks.
            most: how many are kept; the one asked for longest ago makes room.
            in_use: tells whether some job needs one, by name.
        """
        self._folder = folder
        self._repository = repository
        self._compile_plan = compile_plan
        self._most = most
        self._in_use = in_use
        self._compiling = threading.Lock()
        self._views: dict[str, TrainingPlan] = {}
        for path in sorted(folder.iterdir()):
            self._adopt(path)

    def ask(self, fields: dict[str, object]) -> dict[str, object]:
        """Describe the compiled training of a task, compiled now if need be.

        Raises:
            ParameterError: not a task, or no parameters fit it.
            BadRequestError: this server does not compile trainings.
            StorageError: too many are kept, and jobs need all of them.
        """
        task = TrainingTask.from_json(fields)
        name = f"training-{task.digest[:16]}"
        with self._compiling:
            if name not in self._views:
                self._compile(name, task)
            view = self._views[name]
            with contextlib.suppress(OSError):
                os.utime(self._folder / name)
        return {
            "plan": name,
            "signature_digest": view.signature.digest,
            "seconds": view.seconds,
            "key_bytes": view.signature.key_bytes,
            "upload_bytes": sum(upload_bytes(view)),
            "frames": view.frames,
        }

    def known(self, name: str) -> bool:
        """Tell whether there is one of this name."""
        return name in self._views

    def view(self, name: str) -> TrainingPlan:
        """Return one by name.

        Raises:
            UnknownModelError: there is none.
        """
        if name not in self._views:
            raise UnknownModelError(f"no compiled training {name[:64]!r}: ask for a plan first")
        return self._views[name]

    def of(self, row: JobRow) -> tuple[ModelVersion, TrainingPlan]:
        """Return a job's model and plan.

        Raises:
            UnknownModelError: they are gone.
            JobStateError: the task was compiled anew since the job began.
        """
        view = self.view(row.plan)
        model = self._repository.find(row.plan)
        if model.signature.private_digest != row.digest:
            raise JobStateError("the training was compiled anew since the job began: start again")
        return model, view

    def _compile(self, name: str, task: TrainingTask) -> None:
        if self._compile_plan is None:
            raise BadRequestError("this server does not compile trainings")
        if len(self._views) >= self._most:
            self._make_room()
        folder = self._folder / f".{uuid.uuid4().hex}.part"
        try:
            self._compile_plan(task, folder)
            folder.rename(self._folder / name)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self._adopt(self._folder / name)

    def _make_room(self) -> None:
        """Drop the training asked for longest ago that no job needs."""
        free = [name for name in self._views if not self._in_use(name)]
        if not free:
            raise StorageError(
                f"{self._most} compiled trainings are kept, and jobs need all of them: forget jobs"
            )
        oldest = min(free, key=lambda name: (self._folder / name).stat().st_mtime)
        with contextlib.suppress(UnknownModelError):
            self._repository.unload(oldest)
        del self._views[oldest]
        shutil.rmtree(self._folder / oldest, ignore_errors=True)

    def _adopt(self, folder: Path) -> None:
        """Offer a compiled training like a model; an unusable one is compiled again when asked."""
        if folder.name.startswith("."):
            shutil.rmtree(folder, ignore_errors=True)
            return
        try:
            model = self._repository.adopt(folder.name, folder)
            self._views[folder.name] = TrainingPlan.of(model.signature)
        except TacitError as error:
            _LOG.error("the compiled training %s cannot be used: %s", folder.name, error)
            with contextlib.suppress(UnknownModelError):
                self._repository.unload(folder.name)
            shutil.rmtree(folder, ignore_errors=True)
