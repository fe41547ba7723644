"""Nonces that were used: a request is answered once.

Memory is bounded: the latest nonces of each key, and the keys used last. A nonce older than that
window is not recognised, so the window must be longer than the time a recorded request stays
interesting.
"""

from __future__ import annotations

from collections import OrderedDict

from tacit.errors import ReplayError
from tacit.runtime.refusals import BadRequestError

_LONGEST_NONCE = 128


class Replays:
    """Nonces by (tenant, key id); lives on one event loop."""

    def __init__(self, nonces_per_key: int = 10_000, keys: int = 1_000) -> None:
        self._nonces_per_key = nonces_per_key
        self._keys = keys
        self._seen: OrderedDict[tuple[str, str], OrderedDict[str, None]] = OrderedDict()

    def claim(self, tenant: str, key_id: str, nonce: str) -> None:
        """Mark a nonce as used.

        Raises:
            ReplayError: it was used before.
            BadRequestError: empty or too long.
        """
        if not 1 <= len(nonce) <= _LONGEST_NONCE:
            raise BadRequestError(f"a nonce of 1 to {_LONGEST_NONCE} characters expected")
        seen = self._seen.setdefault((tenant, key_id), OrderedDict())
        if nonce in seen:
            raise ReplayError("a request with this nonce was answered before: use a new nonce")
        self._seen.move_to_end((tenant, key_id))
        seen[nonce] = None
        if len(seen) > self._nonces_per_key:
            seen.popitem(last=False)
        if len(self._seen) > self._keys:
            self._seen.popitem(last=False)

    def forget(self, tenant: str, key_id: str, nonce: str) -> None:
        """Free a nonce whose request failed, so that it can be sent again."""
        self._seen.get((tenant, key_id), OrderedDict()).pop(nonce, None)
