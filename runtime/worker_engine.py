"""What a worker process computes on: one backend, key sets of several owners, models.

Owners share the backend and with it the encoded constants of a model. A request is run with the
keys of its own owner, whom the server names, and its ciphertexts are checked to be of these keys.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tacit import artifact
from tacit.artifact import Artifact
from tacit.errors import ArtifactError, InputShapeError, WireError
from tacit.kernels.cuda.shared_device import SharedDevice
from tacit.runtime.backends.loading import LoadedKeys, open_backend
from tacit.runtime.key_rules import mapped
from tacit.runtime.refusals import DamagedKeysError
from tacit.runtime.requests import Owner
from tacit.runtime.session import Asked, LoadedModel, load_session_keys
from tacit.runtime.worker import Answer, Begin, KeyPlace, ModelPlace, Request
from tacit.runtime.worker_settings import WorkerMemory, WorkerSettings

_MOST_MODELS = 8


class LoadedOwners:
    """Key sets in memory, within a limit; may be used by several threads.

    The owner unused longest goes first. Keys that a request works with stay until it is done.

    Args:
        limit_bytes: of all key sets together; one is kept even if it is larger.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._loaded: OrderedDict[Owner, LoadedKeys] = OrderedDict()
        self._loading: dict[Owner, threading.Lock] = {}
        self._lock = threading.Lock()

    @property
    def used_bytes(self) -> int:
        """Bytes of all key sets held."""
        with self._lock:
            return sum(keys.size_bytes for keys in self._loaded.values())

    def __len__(self) -> int:
        return len(self._loaded)

    def find(self, owner: Owner, load: Callable[[], LoadedKeys]) -> LoadedKeys:
        """Return an owner's keys, loaded if need be, by one thread while others wait for it."""
        with self._lock:
            loading = self._loading.setdefault(owner, threading.Lock())
        with loading:
            with self._lock:
                if owner in self._loaded:
                    self._loaded.move_to_end(owner)
                    return self._loaded[owner]
            keys = load()
            with self._lock:
                self._loaded[owner] = keys
                self._make_room()
        return keys

    def drop(self, owner: Owner) -> None:
        """Forget an owner's keys."""
        with self._lock:
            self._loaded.pop(owner, None)
            self._loading.pop(owner, None)

    def _make_room(self) -> None:
        used = sum(keys.size_bytes for keys in self._loaded.values())
        while used > self._limit and len(self._loaded) > 1:
            owner, keys = self._loaded.popitem(last=False)
            self._loading.pop(owner, None)
            used -= keys.size_bytes


class WorkerEngine:
    """An `Engine` on a backend; may be used by several threads."""

    def __init__(self, settings: WorkerSettings, cuda: SharedDevice | None = None) -> None:
        """Load the backend.

        Args:
            settings: of the worker.
            cuda: the device to compute on; None for the processor, whatever the settings say.

        Raises:
            UnusableEnvironmentError: it cannot be used here.
        """
        threads = settings.threads
        self._backend = open_backend(
            settings.backend,
            threads=threads,
            constant_bytes=settings.constant_bytes,
            cuda=cuda,
        )
        self._pool = ThreadPoolExecutor(threads, "tacit-evaluate") if threads > 1 else None
        self._settings = settings
        self._owners = LoadedOwners(settings.key_bytes)
        self._models: OrderedDict[ModelPlace, LoadedModel] = OrderedDict()
        self._lock = threading.Lock()

    def prepare(self, model: ModelPlace, keys: KeyPlace) -> None:
        """Load keys and a model; see `Engine`."""
        self._keys(keys, self._model(model).model)

    def run(
        self,
        model: ModelPlace,
        plan: str,
        requests: Sequence[Request],
        begin: Begin,
        answer: Answer,
    ) -> None:
        """Answer requests, as many together as make full batches; see `Engine`."""
        loaded: LoadedModel | None = None
        for indices in self._sets(model, plan, requests):
            begin(indices)
            try:
                loaded = loaded or self._model(model)
            except Exception as error:
                for index in indices:
                    answer(index, error)
                continue
            asked = {}
            for index in indices:
                found = self._asked(requests[index], loaded.model)
                if isinstance(found, Asked):
                    asked[index] = found
                else:
                    answer(index, found)
            results = loaded.run(plan, list(asked.values()), self._pool)
            for index, result in zip(asked, results, strict=True):
                answer(index, result)

    def forget(self, owner: Owner) -> None:
        """Drop the keys of an owner."""
        self._owners.drop(owner)

    def memory(self) -> WorkerMemory:
        """Count keys, constants and pooled arrays."""
        held = self._backend.memory()
        return WorkerMemory(self._owners.used_bytes, held.constants, held.pool, len(self._owners))

    def _sets(
        self, model: ModelPlace, plan: str, requests: Sequence[Request]
    ) -> Iterator[list[int]]:
        """Group requests, in order, so that each group gives every thread one full batch."""
        with self._lock:
            loaded = self._models.get(model)
        threads = self._settings.threads if self._backend.spreads else 1
        room = threads * (loaded.most_in_batch(plan) if loaded else 1)
        group: list[int] = []
        evaluations = 0
        for index, request in enumerate(requests):
            try:
                count = loaded.evaluations(plan, request.frames) if loaded else 1
            except InputShapeError:
                count = 1  # it is refused when it runs
            if group and evaluations + count > room:
                yield group
                group, evaluations = [], 0
            group.append(index)
            evaluations += count
        if group:
            yield group

    def _asked(self, request: Request, model: Artifact) -> Asked | Exception:
        try:
            request.observe(0, 0)
            return Asked(self._keys(request.keys, model), request.frames, request.observe)
        except Exception as error:
            return error

    def _model(self, place: ModelPlace) -> LoadedModel:
        with self._lock:
            if place not in self._models:
                self._models[place] = self._load_model(place)
                if len(self._models) > _MOST_MODELS:
                    self._models.popitem(last=False)
            self._models.move_to_end(place)
            return self._models[place]

    def _load_model(self, place: ModelPlace) -> LoadedModel:
        model = artifact.load(place.directory)
        if model.signature.private_digest != place.digest:
            raise ArtifactError("the model changed on disk: load it again in the repository")
        joined, limit = self._settings.joined, self._settings.batch_bytes
        return LoadedModel(model, self._backend, joined, limit)

    def _keys(self, place: KeyPlace, model: Artifact) -> LoadedKeys:
        return self._owners.find(place.owner, lambda: self._load_keys(place, model))

    def _load_keys(self, place: KeyPlace, model: Artifact) -> LoadedKeys:
        try:
            frames = [_mapped(path) for path in place.frames]
            keys = load_session_keys(self._backend, model, frames, self._pool)
        except WireError as error:  # they were checked when they came
            raise DamagedKeysError("a stored evaluation key is damaged") from error
        if keys.key_id.hex() != place.owner.key_id:
            raise DamagedKeysError("the stored evaluation keys are not those of this key id")
        return keys


def _mapped(path: Path) -> memoryview:
    try:
        return mapped(path)
    except (OSError, ValueError) as error:  # gone, unreadable or empty
        raise DamagedKeysError("a stored evaluation key cannot be read") from error
