"""Calls into OpenFHE with our errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tacit.errors import InternalError, UnknownKeyError

R = TypeVar("R")

# What OpenFHE 1.6 calls keys when it does not find them.
_KEY_NAMES = ("EvalMultKey", "EvalAutomorphismKeys", "EvalKey for index")


def call(function: Callable[..., R], *operands: object) -> R:
    """Call OpenFHE and turn its exceptions into ours.

    Raises:
        InternalError: OpenFHE failed.
    """
    try:
        return function(*operands)
    except RuntimeError as error:
        raise InternalError(f"OpenFHE failed: {error}") from error


def call_with_key(function: Callable[..., R], *operands: object, key: str) -> R:
    """Call what needs an evaluation key, and say which one is missing if it is.

    Raises:
        UnknownKeyError: OpenFHE does not find the key.
        InternalError: OpenFHE failed otherwise.
    """
    try:
        return call(function, *operands)
    except InternalError as error:
        if not any(name in str(error) for name in _KEY_NAMES):
            raise
        raise UnknownKeyError(
            f"{key} is needed and was not given: upload the keys that the model's signature "
            "asks for"
        ) from error
