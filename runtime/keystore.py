"""Evaluation keys on disk, by tenant and content.

    ROOT/<tenant>/<key id>/manifest.json      what was declared
    ROOT/<tenant>/<key id>/frames/<sha256>    frames that arrived whole and were checked
    ROOT/<tenant>/<key id>/complete           there once every frame is, and they make one key set

A key id is the hash of the parameters and of all frames, so nobody can store other keys under it. A
frame enters `frames/` by an atomic rename after its residues were checked; an upload that broke off
goes on with the frames that are missing. Files are 0600. Everything survives a restart; frames that
did not survive it whole are asked for again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tacit.errors import (
    ExpiredKeyError,
    KeyMismatchError,
    ParameterMismatchError,
    TacitError,
    UnknownKeyError,
)
from tacit.runtime.frame_upload import FrameUpload, check_length, holds, storing, write_private
from tacit.runtime.key_declarations import FrameDeclaration, KeyDeclaration
from tacit.runtime.refusals import ConflictError, StorageError
from tacit.signature import Signature

_LOG = logging.getLogger("tacit.runtime.keystore")


class KeyRules(Protocol):
    """What a key set must be; the wire format behind it is not the store's business."""

    def signature_for(self, key_config: str) -> Signature | None:
        """Return the signature of some served model with this key configuration."""
        ...

    def check_declaration(self, key_id: str, declared: KeyDeclaration, to: Signature) -> None:
        """Refuse a declaration whose id, sizes or number of frames are wrong."""
        ...

    def check_frame(self, path: Path, to: Signature) -> int:
        """Read a frame and check every residue; returns its purpose."""
        ...

    def purpose(self, path: Path) -> int:
        """Read what a frame that was checked before is for."""
        ...

    def purposes(self, signature: Signature) -> frozenset[int]:
        """Return the purposes of a complete key set."""
        ...


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """Bounds of the store.

    Attributes:
        tenant_bytes: of all keys of one tenant, declared ones included.
        seconds_to_live: keys not used for so long are removed; 0 keeps them.
    """

    tenant_bytes: int = 16 << 30
    seconds_to_live: float = 0.0


@dataclass(slots=True)
class _Entry:
    declared: KeyDeclaration
    complete: bool
    busy: set[str] = field(default_factory=set)


class KeyStore:
    """Keys by (tenant, key id); safe to use from several threads."""

    def __init__(
        self,
        root: Path,
        rules: KeyRules,
        limits: KeyLimits,
        on_removal: Callable[[str, str], None] = lambda tenant, key_id: None,
    ) -> None:
        """Open a store and pick up what is there; unfinished temporary files are removed."""
        self._root = root
        self._rules = rules
        self._limits = limits
        self.on_removal = on_removal
        self._lock = threading.RLock()
        self._entries: dict[tuple[str, str], _Entry] = {}
        with storing(f"open the key store {root}"):
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            for manifest in root.glob("*/*/manifest.json"):
                self._adopt(manifest)

    @property
    def stored_bytes(self) -> int:
        """Declared bytes of all keys."""
        with self._lock:
            return sum(entry.declared.total_bytes for entry in self._entries.values())

    @property
    def complete_keys(self) -> int:
        """Number of complete key sets."""
        with self._lock:
            return sum(entry.complete for entry in self._entries.values())

    def announce(self, tenant: str, key_id: str, declared: KeyDeclaration) -> list[str]:
        """Declare a key set; returns the SHA-256 of frames still to be uploaded.

        Raises:
            ExpiredKeyError: no model served here takes such keys.
            KeyMismatchError, ParameterMismatchError, OversizedError, TruncatedError: see the rules.
            StorageError: the tenant's quota or the disk is full.
        """
        signature = self._signature(declared)
        self._rules.check_declaration(key_id, declared, signature)
        with self._lock:
            entry = self._entries.get((tenant, key_id))
            if entry is None or (entry.declared != declared and not entry.complete):
                self._check_quota(tenant, key_id, declared.total_bytes)
                self._write_manifest(tenant, key_id, declared)
                entry = self._entries[tenant, key_id] = _Entry(declared, False)
            missing = self._missing(tenant, key_id, entry)
        if missing or entry.complete:
            return missing
        return self._complete_stored(tenant, key_id, entry, signature)

    def drop_damaged(self, tenant: str, key_id: str) -> int:
        """Remove frames that are not what was declared, so that they are asked for again.

        Returns:
            How many were removed; the key set is not complete any more if there were some.
        """
        with self._lock:
            entry = self._entries.get((tenant, key_id))
        if entry is None:
            return 0
        damaged = self._damaged(tenant, key_id, entry)
        with self._lock:
            if damaged and self._entries.get((tenant, key_id)) is entry:
                self._drop(tenant, key_id, entry, damaged)
        return len(damaged)

    def key_config(self, tenant: str, key_id: str) -> str:
        """Return the configuration a key set was declared for.

        Raises:
            UnknownKeyError.
        """
        return self._entry(tenant, key_id).declared.key_config

    def require(self, tenant: str, key_id: str, signature: Signature) -> None:
        """Return if a complete key set of the tenant fits the model, and note its use.

        Raises:
            UnknownKeyError: not there, or not complete.
            ExpiredKeyError: made for a configuration no model here has any more.
            ParameterMismatchError: made for another model's configuration.
        """
        entry = self._entry(tenant, key_id)
        if not entry.complete:
            raise UnknownKeyError("the evaluation keys are not complete: finish their upload")
        if entry.declared.key_config == signature.key_config:
            self._touch(tenant, key_id)
            return
        self._signature(entry.declared)
        raise ParameterMismatchError(
            f"these keys were made for another configuration than {signature.model!r} uses"
        )

    def state(self, tenant: str, key_id: str) -> bool:
        """Tell whether a known key set is complete.

        Raises:
            UnknownKeyError, ExpiredKeyError.
        """
        entry = self._entry(tenant, key_id)
        self._signature(entry.declared)
        return entry.complete

    def frame_paths(self, tenant: str, key_id: str) -> list[Path]:
        """Return the files of a complete key set, in declared order.

        Raises:
            UnknownKeyError.
        """
        entry = self._entry(tenant, key_id)
        if not entry.complete:
            raise UnknownKeyError("the evaluation keys are not complete: finish their upload")
        return [self._frame(tenant, key_id, f.sha256) for f in entry.declared.frames]

    def open_frame(self, tenant: str, key_id: str, sha256: str, length: int | None) -> FrameUpload:
        """Begin the upload of one declared frame.

        Raises:
            UnknownKeyError: the key or the frame was not declared.
            OversizedError, TruncatedError: `length` is not the declared one.
            ConflictError: this frame is being uploaded already.
        """
        entry = self._entry(tenant, key_id)
        declared = entry.declared.frame(sha256)
        if declared is None:
            raise UnknownKeyError("this frame was not declared for this key")
        check_length(length, declared)
        with self._lock:
            if sha256 in entry.busy:
                raise ConflictError("this frame is being uploaded already")
            entry.busy.add(sha256)
        temporary = self._folder(tenant, key_id) / f"{sha256}.{uuid.uuid4().hex}.part"
        return FrameUpload(
            declared,
            temporary,
            finish=lambda path: self._finish_frame(tenant, key_id, declared, path),
            release=lambda: self._release_frame(tenant, key_id, sha256),
        )

    def _finish_frame(
        self, tenant: str, key_id: str, declared: FrameDeclaration, path: Path
    ) -> bool:
        """Check an uploaded frame and take it in; returns whether the key set is complete now."""
        entry = self._entry(tenant, key_id)
        signature = self._signature(entry.declared)
        self._rules.check_frame(path, signature)
        with storing("store a key frame"), self._lock:
            target = self._frame(tenant, key_id, declared.sha256)
            target.parent.mkdir(mode=0o700, exist_ok=True)
            os.replace(path, target)
            if not self._missing(tenant, key_id, entry) and not entry.complete:
                self._complete(tenant, key_id, entry, signature)
            return entry.complete

    def _release_frame(self, tenant: str, key_id: str, sha256: str) -> None:
        with self._lock:
            entry = self._entries.get((tenant, key_id))
            if entry is not None:
                entry.busy.discard(sha256)

    def delete(self, tenant: str, key_id: str) -> None:
        """Remove a key set.

        Raises:
            UnknownKeyError.
        """
        with self._lock:
            self._entry(tenant, key_id)
            del self._entries[tenant, key_id]
            shutil.rmtree(self._folder(tenant, key_id), ignore_errors=True)
        self.on_removal(tenant, key_id)

    def expire(self, now: float) -> int:
        """Remove key sets not used for longer than they may live; returns how many."""
        if not self._limits.seconds_to_live:
            return 0
        old = [
            (tenant, key_id)
            for (tenant, key_id), entry in list(self._entries.items())
            if not entry.busy and now - self._used_at(tenant, key_id) > self._limits.seconds_to_live
        ]
        for tenant, key_id in old:
            self.delete(tenant, key_id)
        return len(old)

    def _adopt(self, manifest: Path) -> None:
        folder = manifest.parent
        for leftover in folder.glob("*.part"):
            leftover.unlink()
        try:
            declared = KeyDeclaration.from_json(json.loads(manifest.read_bytes()))
        except (ValueError, TacitError) as error:
            _LOG.warning("ignoring damaged keys in %s: %s", folder, error)
            return
        tenant, key_id = folder.parent.name, folder.name
        entry = _Entry(declared, (folder / "complete").exists())
        self._entries[tenant, key_id] = entry
        sizes = {sha256: path.stat().st_size for sha256, path in self._stored(tenant, key_id)}
        whole = [f for f in declared.frames if sizes.get(f.sha256) == f.length]
        if entry.complete and len(whole) < len(declared.frames):
            self._drop(tenant, key_id, entry, [f for f in declared.frames if f not in whole])

    def _stored(self, tenant: str, key_id: str) -> list[tuple[str, Path]]:
        frames = self._folder(tenant, key_id) / "frames"
        return [(path.name, path) for path in frames.iterdir()] if frames.is_dir() else []

    def _damaged(self, tenant: str, key_id: str, entry: _Entry) -> list[FrameDeclaration]:
        return [
            frame
            for frame in entry.declared.frames
            if not holds(self._frame(tenant, key_id, frame.sha256), frame)
        ]

    def _drop(
        self, tenant: str, key_id: str, entry: _Entry, damaged: Sequence[FrameDeclaration]
    ) -> None:
        _LOG.warning("%d damaged frames of key %s removed", len(damaged), key_id)
        entry.complete = False
        (self._folder(tenant, key_id) / "complete").unlink(missing_ok=True)
        for frame in damaged:
            with contextlib.suppress(OSError):
                self._frame(tenant, key_id, frame.sha256).unlink()

    def _complete_stored(
        self, tenant: str, key_id: str, entry: _Entry, signature: Signature
    ) -> list[str]:
        """Take frames that are all there already, from before a crash; returns what is missing."""
        self.drop_damaged(tenant, key_id)
        with self._lock:
            missing = self._missing(tenant, key_id, entry)
            if not missing and not entry.complete:
                self._complete(tenant, key_id, entry, signature)
            return missing

    def _complete(self, tenant: str, key_id: str, entry: _Entry, signature: Signature) -> None:
        paths = [self._frame(tenant, key_id, f.sha256) for f in entry.declared.frames]
        purposes = [self._rules.purpose(path) for path in paths]
        if len(set(purposes)) != len(purposes) or set(purposes) != self._rules.purposes(signature):
            self.delete(tenant, key_id)
            raise KeyMismatchError("the frames are not the keys this configuration needs")
        (self._folder(tenant, key_id) / "complete").touch(mode=0o600)
        entry.complete = True

    def _entry(self, tenant: str, key_id: str) -> _Entry:
        with self._lock:
            entry = self._entries.get((tenant, key_id))
        if entry is None:
            raise UnknownKeyError("the server does not hold these evaluation keys: upload them")
        return entry

    def _signature(self, declared: KeyDeclaration) -> Signature:
        signature = self._rules.signature_for(declared.key_config)
        if signature is None:
            raise ExpiredKeyError(
                "no model served here takes keys of this configuration: read the model's signature "
                "again and make new keys"
            )
        return signature

    def _check_quota(self, tenant: str, key_id: str, wanted: int) -> None:
        used = sum(
            entry.declared.total_bytes
            for (owner, other), entry in self._entries.items()
            if owner == tenant and other != key_id
        )
        if used + wanted > self._limits.tenant_bytes:
            raise StorageError(
                f"the keys need {wanted} bytes, {self._limits.tenant_bytes - used} of the quota of "
                f"{self._limits.tenant_bytes} are left: delete keys that are not used any more"
            )

    def _write_manifest(self, tenant: str, key_id: str, declared: KeyDeclaration) -> None:
        folder = self._folder(tenant, key_id)
        with storing("store a key declaration"):
            folder.parent.mkdir(exist_ok=True, mode=0o700)
            folder.mkdir(exist_ok=True, mode=0o700)
            temporary = folder / "manifest.json.part"
            write_private(temporary, json.dumps(declared.to_json()).encode())
            os.replace(temporary, folder / "manifest.json")

    def _missing(self, tenant: str, key_id: str, entry: _Entry) -> list[str]:
        frames = entry.declared.frames
        return [f.sha256 for f in frames if not self._frame(tenant, key_id, f.sha256).exists()]

    def _folder(self, tenant: str, key_id: str) -> Path:
        return self._root / tenant / key_id

    def _frame(self, tenant: str, key_id: str, sha256: str) -> Path:
        return self._folder(tenant, key_id) / "frames" / sha256

    def _touch(self, tenant: str, key_id: str) -> None:
        if self._limits.seconds_to_live:
            with contextlib.suppress(OSError):  # deleted in between
                os.utime(self._folder(tenant, key_id) / "manifest.json")

    def _used_at(self, tenant: str, key_id: str) -> float:
        try:
            return (self._folder(tenant, key_id) / "manifest.json").stat().st_mtime
        except OSError:
            return time.time()
