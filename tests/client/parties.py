"""Several parties in threads of one process, around a real relay; for tests only.

Outside tests every party is a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tacit.client.party import Party
from tacit.params import CryptoParams, Security
from tacit.party_terms import Column, SessionTerms
from tacit.runtime.server import ServerHandle
from tests.runtime.models import arithmetic_artifact, write_repository

# A scale that leaves room for OpenFHE's noise of 2^20 in shares, and for ours.
PARAMS = CryptoParams.choose(10, 3, 50, 60, 2, security=Security.UNCHECKED_INSECURE)
MODEL = arithmetic_artifact(PARAMS)
NAMES = ("north", "south", "west")
COLUMNS = (Column("age", 0, 120), Column("pressure", 50, 250), Column("constant", 0, 10))
PATIENCE = 120.0
Result = TypeVar("Result")


def terms(nonce: int = 0, names: Sequence[str] = NAMES, **changes: object) -> SessionTerms:
    """The terms of a session for the small model."""
    signature = MODEL.signature
    fields: dict[str, object] = {
        "name": "hearts",
        "parties": tuple(names),
        "params": PARAMS,
        "rotations": signature.rotations,
        "relinearization": True,
        "columns": COLUMNS,
        "most_rows": 1000,
        "nonce": f"{nonce:032x}",
        "smudging_bits": 6,
        "least_smudging_bits": 6,
        "precision_bits": 8,
        "key_config": signature.key_config,
        "key_levels": None
        if "params" in changes or "rotations" in changes
        else signature.key_levels,
        **changes,
    }
    return SessionTerms(**fields)  # type: ignore[arg-type]


@contextmanager
def relay(root: Path) -> Iterator[str]:
    """A server that offers the small model and relays; gives its URL."""
    with ServerHandle(write_repository(root, arithmetic=MODEL)) as handle:
        yield f"http://127.0.0.1:{handle.ports.http}"


@contextmanager
def parties(url: str, root: Path, agreed: SessionTerms) -> Iterator[list[Party]]:
    """Create a session and have everybody join it."""
    first, invitations = Party.create(url, agreed, root / agreed.parties[0], allow_insecure=True)
    joined = [first]
    try:
        for name, token in invitations.items():
            joined.append(
                Party.join(url, agreed.session, name, token, root / name, allow_insecure=True)
            )
        yield joined
    finally:
        for party in joined:
            party.close()


def together(members: Sequence[Party], act: Callable[[Party], Result]) -> list[Result]:
    """Run one act of every party at the same time; raises the first failure after all ended."""
    with ThreadPoolExecutor(len(members)) as pool:
        waiting = [pool.submit(act, member) for member in members]
        return [future.result() for future in waiting]


def failures(
    members: Sequence[Party], act: Callable[[Party], object]
) -> list[BaseException | None]:
    """Run one act of every party; return how each failed, None where it did not."""
    with ThreadPoolExecutor(len(members)) as pool:
        waiting = [pool.submit(act, member) for member in members]
        return [future.exception() for future in waiting]
