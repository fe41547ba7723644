"""Tacit: machine-learning models served over encrypted data.

Everything is loaded on first use, so that `import tacit` needs numpy at most and never loads
OpenFHE, scikit-learn or PyTorch. `tacit.compile` and `tacit.finetune` take PyTorch modules (extra:
torch).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tacit.client.async_client import AsyncClient
    from tacit.client.client import Client
    from tacit.client.party import Party
    from tacit.client.training.connection import Connection
    from tacit.client.training.linear_models import LinearRegression, Ridge
    from tacit.client.training.logistic_regression import LogisticRegression
    from tacit.client.training.release import ReleasePolicy
    from tacit.model_compiler.torch_export import compile
    from tacit.model_compiler.torch_finetune import finetune

__version__ = "0.1.0"
__all__ = [
    "AsyncClient",
    "Client",
    "Connection",
    "LinearRegression",
    "LogisticRegression",
    "Party",
    "ReleasePolicy",
    "Ridge",
    "__version__",
    "compile",
    "finetune",
]


_LAZY = {
    "AsyncClient": "tacit.client.async_client",
    "Client": "tacit.client.client",
    "Connection": "tacit.client.training.connection",
    "LinearRegression": "tacit.client.training.linear_models",
    "LogisticRegression": "tacit.client.training.logistic_regression",
    "Party": "tacit.client.party",
    "ReleasePolicy": "tacit.client.training.release",
    "Ridge": "tacit.client.training.linear_models",
    "compile": "tacit.model_compiler.torch_export",
    "finetune": "tacit.model_compiler.torch_finetune",
}


def __getattr__(name: str) -> object:
    """Load a name on first use."""
    if name not in _LAZY:
        raise AttributeError(f"module 'tacit' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
