"""How an estimator reaches its server and keeps its keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tacit.client.key_ring import KeyRing, default_directory

_TRAININGS = "trainings"


@dataclass(frozen=True, slots=True)
class Connection:
    """A server, and where keys are kept; estimators take it in the place of a URL.

    Attributes:
        url: `http://host:port` or `https://…`.
        token: bearer token, if the server wants one. Use https with it.
        key_dir: where keys and records of trainings are kept; default `~/.local/share/tacit`.
        passphrase: protects the secret keys in it, and the records.
        timeout: seconds to wait for one answer.
        allow_insecure: accept parameters below 128 bits; for tests only.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    key_dir: Path | str | None = None
    passphrase: str | None = field(default=None, repr=False)
    timeout: float = 600.0
    allow_insecure: bool = False

    @property
    def directory(self) -> Path:
        """Where keys are kept."""
        return Path(self.key_dir) if self.key_dir is not None else default_directory()

    @property
    def trainings(self) -> Path:
        """Where what the owner must know of each training is kept."""
        return self.directory / _TRAININGS

    @property
    def ring(self) -> KeyRing:
        """The key directory."""
        return KeyRing(self.directory, self.passphrase, self.allow_insecure)
