"""What the owner must know of a training to use its weights, kept beside the keys.

A record says how rows are prepared and which classes there are, so it says something about the
rows. It is a file of mode 0600, under the key directory's passphrase if there is one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tacit.client.key_files import KeyFile, read_key_file, write_key_file
from tacit.client.training.connection import Connection
from tacit.client.training.preprocessing import Preprocessing
from tacit.errors import KeyFileError

Floats = NDArray[np.float64]

_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")


@dataclass(frozen=True, slots=True, eq=False)
class TrainingRecord:
    """One training, as its owner remembers it.

    Attributes:
        job_id: its name at the server.
        model: class of the estimator.
        params: its parameters, without those of the connection.
        preprocessing: what happens to rows before encryption.
        learnt: what the estimator learnt about targets.
        memory: what the trainer needs to read weights.
        names: of the columns, if they had any.
        held_targets: of the validation rows, shape (rows, classes), or None.
    """

    job_id: str
    model: str
    params: Mapping[str, Any]
    preprocessing: Preprocessing = field(repr=False)
    learnt: Mapping[str, Any] = field(repr=False)
    memory: Mapping[str, Any] = field(repr=False)
    names: tuple[str, ...] | None = None
    held_targets: Floats | None = field(default=None, repr=False)


def write_record(connection: Connection, record: TrainingRecord) -> None:
    """Keep a record.

    Raises:
        KeyFileError: the key directory cannot be written.
    """
    body = {
        "params": dict(record.params),
        "preprocessing": record.preprocessing.to_json(),
        "learnt": dict(record.learnt),
        "memory": dict(record.memory),
        "names": record.names,
        "held_targets": None if record.held_targets is None else record.held_targets.tolist(),
    }
    folder = connection.trainings
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise KeyFileError(f"cannot write to {folder}: {error.strerror}") from error
    facts = {"job": record.job_id, "model": record.model, "url": connection.url}
    content = KeyFile(facts, json.dumps(body, default=_plain).encode())
    write_key_file(folder / f"{_checked(record.job_id)}.training", content, connection.passphrase)


def read_record(connection: Connection, job_id: str) -> TrainingRecord:
    """Find a record.

    Raises:
        KeyFileError: there is none, or it cannot be read.
    """
    path = connection.trainings / f"{_checked(job_id)}.training"
    if not path.exists():
        raise KeyFileError(
            f"{connection.trainings} holds no record of job {job_id!r}: it was begun elsewhere, "
            "or with another key directory"
        )
    content = read_key_file(path, connection.passphrase)
    try:
        body = json.loads(content.secret)
        held = body["held_targets"]
        return TrainingRecord(
            job_id,
            str(content.facts["model"]),
            dict(body["params"]),
            Preprocessing.from_json(body["preprocessing"]),
            dict(body["learnt"]),
            dict(body["memory"]),
            None if body["names"] is None else tuple(body["names"]),
            None if held is None else np.array(held, dtype=np.float64),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise KeyFileError(f"{path} is damaged") from error


def _plain(value: object) -> object:
    """Return a scalar of numpy's, as searches over grids set them, as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"parameters are numbers and words, not {type(value).__name__}")


def _checked(job_id: str) -> str:
    if not _NAME.fullmatch(job_id):
        raise KeyFileError(f"{job_id!r} is not the name of a job")
    return job_id
