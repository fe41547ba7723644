"""What all secrets have in common: they stay in this process, and in the owner's key file."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NoReturn, TypeVar

from tacit.client.context import ClientContext
from tacit.client.environment import import_openfhe
from tacit.errors import KeyFileError

if TYPE_CHECKING:
    import openfhe

Self = TypeVar("Self", bound="HeldSecret")


class HeldSecret:
    """OpenFHE's private key with its context; shows nothing of itself, is not pickled or copied."""

    __slots__ = ("_context", "_key", "_library")

    _UNREADABLE: ClassVar[str]
    """Says that the key file is damaged, and what to do."""

    def __init__(self, context: ClientContext, key: openfhe.PrivateKey) -> None:
        """Wrap OpenFHE's key; use `generate` or `from_bytes`."""
        self._context = context
        self._key = key
        self._library = import_openfhe()

    @classmethod
    def from_bytes(cls: type[Self], context: ClientContext, serialised: bytes) -> Self:
        """Read a secret that `to_bytes` wrote on this machine; the bytes must be trusted.

        Raises:
            KeyFileError: OpenFHE cannot read it.
        """
        library = import_openfhe()
        try:
            return cls(context, library.DeserializePrivateKeyString(serialised, library.BINARY))
        except (RuntimeError, MemoryError) as error:
            raise KeyFileError(cls._UNREADABLE) from error

    def to_bytes(self) -> bytes:
        """Serialise the secret, for a key file. Never send these bytes."""
        return self._serialised(self._key)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(hidden)"

    def __reduce__(self) -> NoReturn:
        raise KeyFileError("secret keys are not pickled or copied: they stay in their key file")

    def _serialised(self, value: object) -> bytes:
        archive: bytes = self._library.Serialize(value, self._library.BINARY)
        return archive
