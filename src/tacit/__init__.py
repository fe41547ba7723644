"""Tacit: machine-learning models served over encrypted data.

`tacit.Client` and `tacit.AsyncClient` are loaded on first use, so that `import tacit` needs numpy
at most and never loads OpenFHE.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tacit.client.async_client import AsyncClient
    from tacit.client.client import Client

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Client", "__version__"]


_LAZY = {"Client": "tacit.client.client", "AsyncClient": "tacit.client.async_client"}


def __getattr__(name: str) -> object:
    """Load the client's classes on first use."""
    if name not in _LAZY:
        raise AttributeError(f"module 'tacit' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
