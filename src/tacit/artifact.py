"""A compiled model on disk: a public half for clients, a private half that never leaves the server.

    DIR/manifest.json            format version, name, version, SHA-256 of every other file
    DIR/public.json              the Signature; holds no weight
    DIR/private/circuits.json    one circuit per plan
    DIR/private/constants.npz    the weights, diagonals and coefficients
    DIR/private/report.json      what the compiler measured and predicted

The manifest is written last and atomically, so a half-written artifact does not load.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tacit import __version__
from tacit.circuit import Circuit
from tacit.circuit_json import circuit_from_json, circuit_to_json
from tacit.constant_file import constants_from_bytes, constants_to_bytes
from tacit.errors import ArtifactError
from tacit.signature import Signature

FORMAT = 2
_PUBLIC = "public.json"
_CIRCUITS = "private/circuits.json"
_CONSTANTS = "private/constants.npz"
_REPORT = "private/report.json"
_PRIVATE = (_CIRCUITS, _CONSTANTS, _REPORT)


@dataclass(frozen=True, slots=True, eq=False)
class Artifact:
    """Both halves of a compiled model.

    Attributes:
        signature: the public half.
        circuits: one per plan of the signature, by plan name.
        report: JSON-serialisable facts for `tacit inspect`.
    """

    signature: Signature
    circuits: Mapping[str, Circuit]
    report: Mapping[str, object]


def save(artifact: Artifact, directory: Path) -> Artifact:
    """Write both halves; returns the artifact with its private digest filled in.

    Raises:
        ArtifactError: the directory cannot be written.
    """
    try:
        (directory / "private").mkdir(parents=True, exist_ok=True)
        files = _private_files(artifact)
        digest = _digest_of(files)
        signed = replace(artifact, signature=replace(artifact.signature, private_digest=digest))
        files[_PUBLIC] = _json_bytes(signed.signature.to_json())
        for name, content in files.items():
            _write(directory / name, content)
        _write(directory / "manifest.json", _json_bytes(_manifest(signed.signature, files)))
    except OSError as error:
        raise ArtifactError(f"cannot write the artifact to {directory}: {error}") from error
    return signed


def load_public(directory: Path) -> Signature:
    """Read and check the public half.

    Raises:
        ArtifactError: missing, damaged, or of an unknown format version.
    """
    manifest = _read_manifest(directory)
    content = _read(directory, _PUBLIC, manifest)
    return Signature.from_json(_parse(content, _PUBLIC))


def load(directory: Path) -> Artifact:
    """Read and check both halves.

    Raises:
        ArtifactError: missing, damaged, or of an unknown format version.
    """
    manifest = _read_manifest(directory)
    signature = Signature.from_json(_parse(_read(directory, _PUBLIC, manifest), _PUBLIC))
    files = {name: _read(directory, name, manifest) for name in _PRIVATE}
    if _digest_of(files) != signature.private_digest:
        raise ArtifactError("the private half belongs to another version of the public half")
    constants = constants_from_bytes(files[_CONSTANTS], _CONSTANTS)
    circuits = {
        plan: circuit_from_json(fields, _of_plan(constants, plan))  # type: ignore[arg-type]
        for plan, fields in _parse(files[_CIRCUITS], _CIRCUITS).items()
    }
    if set(circuits) != {plan.name for plan in signature.plans}:
        raise ArtifactError("the circuits are not the plans the signature lists")
    return Artifact(signature, circuits, _parse(files[_REPORT], _REPORT))


def _private_files(artifact: Artifact) -> dict[str, bytes]:
    circuits = {name: circuit_to_json(c) for name, c in artifact.circuits.items()}
    arrays = {
        f"{plan}:{name}": values
        for plan, circuit in artifact.circuits.items()
        for name, values in circuit.constants.items()
    }
    return {
        _CIRCUITS: _json_bytes(circuits),
        _CONSTANTS: constants_to_bytes(arrays),
        _REPORT: _json_bytes(dict(artifact.report)),
    }


def _of_plan(
    constants: Mapping[str, NDArray[np.float64]], plan: str
) -> dict[str, NDArray[np.float64]]:
    prefix = f"{plan}:"
    return {n[len(prefix) :]: values for n, values in constants.items() if n.startswith(prefix)}


def _manifest(signature: Signature, files: Mapping[str, bytes]) -> dict[str, object]:
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    identity = {"name": signature.model, "version": signature.version, "written_by": __version__}
    return {"format": FORMAT, **identity, "files": digests}


def _digest_of(files: Mapping[str, bytes]) -> str:
    digests = [hashlib.sha256(files[name]).hexdigest() for name in _PRIVATE]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _read_manifest(directory: Path) -> dict[str, object]:
    path = directory / "manifest.json"
    try:
        manifest = _parse(path.read_bytes(), "manifest.json")
    except OSError as error:
        raise ArtifactError(f"{directory} holds no compiled model: {error}") from error
    if manifest.get("format") != FORMAT:
        raise ArtifactError(
            f"artifact format {manifest.get('format')!r}, this version reads {FORMAT}: "
            "compile the model again"
        )
    if not isinstance(manifest.get("files"), dict):
        raise ArtifactError("manifest.json lists no files")
    return manifest


def _read(directory: Path, name: str, manifest: Mapping[str, object]) -> bytes:
    digests: Mapping[str, str] = manifest["files"]  # type: ignore[assignment]
    try:
        content = (directory / name).read_bytes()
    except OSError as error:
        raise ArtifactError(f"cannot read {name} of the artifact: {error}") from error
    if hashlib.sha256(content).hexdigest() != digests.get(name):
        raise ArtifactError(f"{name} does not match its checksum: compile the model again")
    return content


def _parse(content: bytes, name: str) -> dict[str, object]:
    try:
        fields = json.loads(content)
    except ValueError as error:
        raise ArtifactError(f"{name} is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ArtifactError(f"{name} is not a JSON object")
    return fields


def _json_bytes(fields: object) -> bytes:
    return json.dumps(fields, sort_keys=True).encode()


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(content)
    os.replace(temporary, path)
