"""Who is asking: bearer tokens, one per tenant.

A token file has one `<tenant> <token>` per line; `#` starts a comment. Without a token file
everyone is the tenant `public`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path

from tacit.errors import KeyFileError
from tacit.runtime.refusals import UnauthorizedError

PUBLIC = "public"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHORTEST_TOKEN = 16


class Tenants:
    """Tokens by tenant; only their hashes are kept."""

    def __init__(self, tokens: dict[str, str]) -> None:
        self._digests = {name: _digest(token) for name, token in tokens.items()}

    @classmethod
    def read(cls, path: Path) -> Tenants:
        """Read a token file.

        Raises:
            KeyFileError: unreadable, readable by others, a malformed line, or a short token.
        """
        try:
            mode, text = path.stat().st_mode, path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise KeyFileError(f"cannot read the token file {path}: {error}") from error
        if mode & 0o077:
            raise KeyFileError(f"the token file {path} is open to others: chmod 600 it")
        tokens: dict[str, str] = {}
        for number, line in enumerate(text.splitlines(), start=1):
            words = line.split("#", 1)[0].split()
            if words:
                name, token = _entry(words, number)
                tokens[name] = token
        if not tokens:
            raise KeyFileError(f"the token file {path} holds no token")
        return cls(tokens)

    def authenticate(self, authorization: str) -> str:
        """Return the tenant of an `Authorization` header.

        Raises:
            UnauthorizedError: tokens are required, and this is none of them.
        """
        if not self._digests:
            return PUBLIC
        scheme, _, token = authorization.partition(" ")
        given = _digest(token.strip())
        found = ""
        for name, digest in self._digests.items():
            if hmac.compare_digest(digest, given):
                found = name
        if scheme.lower() != "bearer" or not found:
            raise UnauthorizedError("send `Authorization: Bearer <token>` with a valid token")
        return found


def _entry(words: list[str], number: int) -> tuple[str, str]:
    if len(words) != 2 or not _NAME.fullmatch(words[0]):
        raise KeyFileError(f"token file line {number}: `<tenant> <token>` expected")
    if len(words[1]) < _SHORTEST_TOKEN:
        raise KeyFileError(f"token file line {number}: tokens have {_SHORTEST_TOKEN}+ characters")
    return words[0], words[1]


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
