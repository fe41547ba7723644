"""The models a server offers, read from a Triton-style repository.

    REPOSITORY/<name>/<version>/   numeric versions; the highest answers by default
    REPOSITORY/<name>/             an artifact itself: version 1
    REPOSITORY/                    an artifact itself: version 1, named as its manifest says

A damaged artifact is reported in the index and does not stop the others. Only the public half is
kept in memory here; the private half is checked once and then read again by the worker processes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tacit import artifact
from tacit.errors import ArtifactError, TacitError, UnknownModelError
from tacit.params import Security
from tacit.signature import Signature

_LOG = logging.getLogger("tacit.runtime.repository")


@dataclass(frozen=True, slots=True, eq=False)
class ModelVersion:
    """One loaded version of a model."""

    name: str
    version: str
    directory: Path
    signature: Signature


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One line of the repository index; `state` is READY or UNAVAILABLE."""

    name: str
    version: str
    state: str
    reason: str = ""


class Repository:
    """Loaded models by name and version; safe to use from several threads."""

    def __init__(self, root: Path) -> None:
        """Load everything below `root`.

        Raises:
            ArtifactError: `root` is not a directory.
        """
        if not root.is_dir():
            raise ArtifactError(f"{root} is not a directory: give a model repository to serve")
        self.root = root
        self._lock = threading.Lock()
        self._models: dict[str, dict[str, ModelVersion]] = {}
        self._reasons: dict[tuple[str, str], str] = {}
        for name in self._names_on_disk():
            self._load(name)

    def find(self, name: str, version: str = "") -> ModelVersion:
        """Return a loaded version, the latest by default.

        Raises:
            UnknownModelError: no such model or version; the message lists what there is.
            ArtifactError: it exists but is damaged.
        """
        with self._lock:
            versions = self._models.get(name, {})
            if version in versions:
                return versions[version]
            if not version and versions:
                return versions[max(versions, key=int)]
            raise self._why_not(name, version, sorted(versions, key=int))

    def loaded(self) -> list[ModelVersion]:
        """Return every loaded version."""
        with self._lock:
            return [m for versions in self._models.values() for m in versions.values()]

    def with_key_config(self, key_config: str) -> ModelVersion | None:
        """Return some loaded version whose keys have this configuration."""
        matching = (m for m in self.loaded() if m.signature.key_config == key_config)
        return next(matching, None)

    def latest_with_key_config(self, key_config: str) -> list[ModelVersion]:
        """Return the models whose latest version takes keys of this configuration."""
        with self._lock:
            latest = [versions[max(versions, key=int)] for versions in self._models.values()]
        return [model for model in latest if model.signature.key_config == key_config]

    def versions(self, name: str) -> list[str]:
        """Return the loaded versions of a model, lowest first."""
        with self._lock:
            return sorted(self._models.get(name, {}), key=int)

    def index(self) -> list[IndexEntry]:
        """List every model version, loaded or not."""
        ready = [IndexEntry(m.name, m.version, "READY") for m in self.loaded()]
        with self._lock:
            broken = [IndexEntry(n, v, "UNAVAILABLE", why) for (n, v), why in self._reasons.items()]
        known = {entry.name for entry in ready + broken}
        idle = [
            IndexEntry(name, "", "UNAVAILABLE", "unloaded")
            for name in self._names_on_disk()
            if name not in known
        ]
        return sorted(ready + broken + idle, key=lambda entry: (entry.name, entry.version))

    def load(self, name: str) -> None:
        """Load a model again from disk; versions that are gone are dropped.

        Raises:
            UnknownModelError: nothing of that name on disk.
            ArtifactError: no version of it could be loaded.
        """
        if name not in self._names_on_disk():
            raise UnknownModelError(f"no model {name!r} in the repository on disk")
        self._load(name)
        if not self.versions(name):
            raise ArtifactError(f"model {name!r} has no version that can be loaded; see the index")

    def adopt(self, name: str, directory: Path) -> ModelVersion:
        """Offer an artifact that lies elsewhere, as version 1 of a model.

        Raises:
            ArtifactError: it is damaged.
        """
        model = ModelVersion(name, "1", directory, artifact.load(directory).signature)
        with self._lock:
            self._models[name] = {model.version: model}
        return model

    def unload(self, name: str) -> None:
        """Stop offering a model.

        Raises:
            UnknownModelError: it is not loaded.
        """
        with self._lock:
            if self._models.pop(name, None) is None:
                raise UnknownModelError(f"model {name!r} is not loaded")
            self._reasons = {k: why for k, why in self._reasons.items() if k[0] != name}

    def _load(self, name: str) -> None:
        loaded: dict[str, ModelVersion] = {}
        reasons: dict[tuple[str, str], str] = {}
        for version, directory in self._versions_on_disk(name):
            try:
                signature = artifact.load(directory).signature
                loaded[version] = ModelVersion(name, version, directory, signature)
                if signature.params.security is not Security.CLASSICAL_128:
                    _LOG.warning("%s %s has insecure parameters, for tests only", name, version)
            except TacitError as error:
                reasons[name, version] = str(error)
        with self._lock:
            kept = {k: why for k, why in self._reasons.items() if k[0] != name}
            self._reasons = kept | reasons
            self._models.pop(name, None)
            if loaded:
                self._models[name] = loaded

    def _names_on_disk(self) -> list[str]:
        if _is_artifact(self.root):
            return [_root_name(self.root)]
        visible = (p for p in self.root.iterdir() if p.is_dir() and not p.name.startswith("."))
        return sorted(p.name for p in visible if _is_artifact(p) or any(_numeric(p)))

    def _versions_on_disk(self, name: str) -> Iterator[tuple[str, Path]]:
        directory = self.root if _is_artifact(self.root) else self.root / name
        if _is_artifact(directory):
            yield "1", directory
            return
        for path in sorted(_numeric(directory)):
            yield str(int(path.name)), path

    def _why_not(self, name: str, version: str, versions: list[str]) -> TacitError:
        broken = [why for (n, v), why in self._reasons.items() if n == name and version in ("", v)]
        if broken:
            return ArtifactError(f"model {name!r} could not be loaded: {broken[0]}")
        if versions:
            return UnknownModelError(
                f"model {name!r} has no version {version!r}: it has {versions}"
            )
        return UnknownModelError(f"no model {name!r}; this server has {sorted(self._models)}")


def _is_artifact(directory: Path) -> bool:
    return (directory / "manifest.json").is_file()


def _numeric(directory: Path) -> Iterator[Path]:
    return (p for p in directory.iterdir() if p.is_dir() and p.name.isascii() and p.name.isdigit())


def _root_name(root: Path) -> str:
    try:
        return artifact.load_public(root).model or root.resolve().name
    except TacitError:
        return root.resolve().name
