"""Which key owners share a worker process."""

from __future__ import annotations

from enum import Enum

from tacit.errors import UserError
from tacit.runtime.backends.loading import BackendName
from tacit.runtime.requests import Owner

# What owners of one group have in common.
Group = tuple[str, ...]


class Isolation(str, Enum):
    """How far owners are kept apart: each alone, each tenant apart, or not at all."""

    OWNER = "owner"
    TENANT = "tenant"
    NONE = "none"


def group_of(isolation: Isolation, owner: Owner) -> Group:
    """Return what owners that share a process have in common."""
    match isolation:
        case Isolation.OWNER:
            return owner
        case Isolation.TENANT:
            return (owner.tenant,)
        case Isolation.NONE:
            return ()


def choose_isolation(wanted: Isolation | None, backend: BackendName) -> Isolation:
    """Return the isolation wanted, or the backend's own.

    OpenFHE keeps evaluation keys in maps of the whole process, so its owners never share one. The
    native backend's keys are objects; its owners share a process within a tenant.

    Raises:
        UserError: OpenFHE's owners cannot share a process.
    """
    if backend is BackendName.NATIVE:
        return wanted or Isolation.TENANT
    if wanted not in (None, Isolation.OWNER):
        raise UserError(
            f"isolation {wanted.value!r} needs the native backend: OpenFHE keeps evaluation keys "
            "in maps of the whole process, so each owner needs a process"
        )
    return Isolation.OWNER
