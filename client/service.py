"""What a client asks the server besides predictions: models, signatures, evaluation keys.

Plain HTTP with httpx. Predictions go through `tacit.client.transport`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx

from tacit.client.answers import error_of_body
from tacit.client.frames import FrameEntry
from tacit.client.http_connection import HttpConnection
from tacit.errors import KeyFileError, ServiceError, UnknownKeyError
from tacit.signature import Signature

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model version the server offers; `state` is "READY" when it can be asked."""

    name: str
    version: str
    state: str


@dataclass(frozen=True, slots=True)
class KeyDeclaration:
    """What is declared before an upload: hex digests, and the frames in order."""

    key_id: str
    params_digest: str
    key_config: str
    frames: tuple[FrameEntry, ...]


class Service(HttpConnection):
    """A connection to one server; a context manager, safe to use from several threads."""

    def models(self) -> tuple[ModelEntry, ...]:
        """List the models.

        Raises:
            ServiceError: the server cannot be reached or refuses.
        """
        entries = self._json("POST", "/v2/repository/index", {})
        if not isinstance(entries, list):
            raise self._not_ours("a list of models")
        return tuple(_model_entry(entry) for entry in entries if isinstance(entry, dict))

    def latest_version(self, name: str) -> str:
        """Return the highest version of a model.

        Raises:
            UnknownModelError: no such model.
            ServiceError: the server cannot be reached or refuses.
        """
        fields = self._json("GET", f"/v2/models/{quote(name, safe='')}")
        versions = fields.get("versions") if isinstance(fields, dict) else None
        if not isinstance(versions, list) or not versions:
            raise self._not_ours("the versions of a model")
        numbers = [str(version) for version in versions]
        return max(numbers, key=lambda v: (int(v) if v.isdecimal() else -1, v))

    def signature(self, name: str, version: str | None = None) -> Signature:
        """Fetch a model's public half; its parameters are recomputed and checked.

        Raises:
            UnknownModelError: no such model or version.
            SecurityError: its parameters are below 128 bits.
            ServiceError: the server cannot be reached or refuses.
        """
        path = f"/v1/models/{quote(name, safe='')}"
        if version:
            path += f"/versions/{quote(version, safe='')}"
        fields = self._json("GET", f"{path}/signature")
        if not isinstance(fields, dict):
            raise self._not_ours("a signature")
        return Signature.from_json(fields)

    def has_key(self, key_id: str) -> bool:
        """Tell whether the server holds a complete key set.

        Raises:
            ExpiredKeyError: the keys' configuration was retired.
        """
        try:
            self._json("GET", f"/v1/keys/{key_id}")
        except UnknownKeyError:
            return False
        return True

    def declare_keys(self, declared: KeyDeclaration) -> frozenset[str]:
        """Declare a key set; returns the SHA-256 of frames the server lacks."""
        frames = [{"sha256": f.sha256, "bytes": f.length} for f in declared.frames]
        body = {
            "params_digest": declared.params_digest,
            "key_config": declared.key_config,
            "frames": frames,
        }
        answer = self._json("POST", f"/v1/keys/{declared.key_id}", body)
        missing = answer.get("missing") if isinstance(answer, dict) else None
        if not isinstance(missing, list):
            raise self._not_ours("a list of missing frames")
        return frozenset(str(sha256) for sha256 in missing)

    def upload_frame(
        self, key_id: str, frame: FrameEntry, path: Path, on_bytes: Callable[[int], None]
    ) -> None:
        """Send one frame from a file, in pieces; `on_bytes` hears how many were sent."""
        with self._reaching():
            answer = self._http.put(
                f"/v1/keys/{key_id}/frames/{frame.sha256}",
                content=_pieces(path, on_bytes),
                headers={"content-length": str(frame.length)},
            )
        self._body(answer)

    def delete_keys(self, key_id: str) -> None:
        """Have the server delete a key set.

        Raises:
            UnknownKeyError: it holds no such keys.
        """
        self._json("DELETE", f"/v1/keys/{key_id}")

    def _json(self, method: str, path: str, body: object = None) -> object:
        with self._reaching():
            answer = self._http.request(method, path, json=body)
        return self._body(answer)

    def _body(self, answer: httpx.Response) -> object:
        try:
            body: object = answer.json()
        except (json.JSONDecodeError, UnicodeDecodeError):
            body = None
        if answer.status_code >= 400:
            raise error_of_body(body, answer.status_code)
        if answer.status_code != 200 or body is None:
            raise self._not_ours("JSON")
        return body

    def _not_ours(self, expected: str) -> ServiceError:
        return ServiceError(f"{self.url} did not answer with {expected}: is it a Tacit server?")


def _model_entry(entry: dict[str, object]) -> ModelEntry:
    name, version, state = (str(entry.get(k, "")) for k in ("name", "version", "state"))
    return ModelEntry(name, version, state)


def _pieces(path: Path, on_bytes: Callable[[int], None]) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while piece := file.read(_CHUNK_BYTES):
                yield piece
                on_bytes(len(piece))
    except OSError as error:
        raise KeyFileError(
            f"cannot read the evaluation-key frame {path}: make new keys (`tacit keys make`)"
        ) from error
