"""The key files that workers read: where they lie, and whose are missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tacit.errors import TacitError
from tacit.runtime.requests import Job, Owner, Result
from tacit.runtime.worker_process import KeyPaths

Results = dict[int, Result | TacitError]
"""What became of a job's work, by index."""


class KeyFiles(Protocol):
    """Where an owner's evaluation keys lie; methods may block."""

    def frame_paths(self, tenant: str, key_id: str) -> list[Path]:
        """Return the files of a complete key set.

        Raises:
            UnknownKeyError: not there, or not complete.
        """
        ...

    def drop_damaged(self, tenant: str, key_id: str) -> int:
        """Remove files that are not what was declared; returns how many."""
        ...


def key_paths(keys: KeyFiles, job: Job, indices: Sequence[int]) -> tuple[KeyPaths, Results]:
    """Return where the owners' keys lie, and errors for the work whose keys are not there.

    Args:
        keys: all owners' key files.
        job: what is to be run.
        indices: of the work in it.
    """
    paths: dict[Owner, list[Path]] = {}
    errors: dict[Owner, TacitError] = {}
    owners = {index: job.work[index].owner for index in indices}
    for owner in set(owners.values()):
        try:
            paths[owner] = keys.frame_paths(*owner)
        except TacitError as error:
            errors[owner] = error
    return paths, {i: errors[owner] for i, owner in owners.items() if owner in errors}
