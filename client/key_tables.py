"""OpenFHE's tables of evaluation keys: one per process, so one user of them at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tacit.client.environment import import_openfhe

if TYPE_CHECKING:
    from types import ModuleType

    import openfhe

# A fact about the process: OpenFHE keeps its tables in static variables.
_TABLES = threading.Lock()


@contextmanager
def empty_tables(crypto: openfhe.CryptoContext) -> Iterator[None]:
    """Empty the tables for a while; what others had put there is back afterwards.

    Args:
        crypto: any context: the tables are common to all.
    """
    library = import_openfhe()
    with _TABLES:
        products = dict(crypto.GetAllEvalMultKeys().items())
        automorphisms = dict(crypto.GetAllEvalAutomorphismKeys().items())
        _clear(library, crypto)
        try:
            yield
        finally:
            _clear(library, crypto)
            for tag, keys in products.items():
                crypto.InsertEvalMultKey(keys, tag)
            for tag, keys in automorphisms.items():
                crypto.InsertEvalAutomorphismKey(keys, tag)


def tabled(body: bytes, tag: str) -> bytes:
    """Put serialised keys into a table of one tag, as OpenFHE serialises its tables."""
    name = tag.encode()
    counts = [n.to_bytes(8, "little") for n in (1, len(name))]
    # A serialised object begins with a mark of the byte order.
    return b"".join([body[:1], *counts, name, body[1:]])


def _clear(library: ModuleType, crypto: openfhe.CryptoContext) -> None:
    library.ClearEvalMultKeys()
    crypto.ClearEvalAutomorphismKeys()
