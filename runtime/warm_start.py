"""Workers that start ahead of their first request: while the client still encrypts or sends."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tacit.errors import TacitError
from tacit.runtime.keystore import KeyStore
from tacit.runtime.repository import ModelVersion, Repository

# Other models of the same keys are loaded with their first request.
_MOST_MODELS = 4
Warm = Callable[[str, str, Sequence[ModelVersion]], None]


class WarmStart:
    """Hears of keys that will be used soon; lives on the server's event loop.

    Nothing here can fail a request: what is wrong with keys or model is said when it runs.
    """

    def __init__(self, repository: Repository, keys: KeyStore, warm: Warm | None) -> None:
        """Prepare for nothing yet.

        Args:
            repository: the models.
            keys: the key store.
            warm: starts a worker, given tenant, key id and models; None starts none.
        """
        self._repository = repository
        self._keys = keys
        self._warm = warm

    def keys_seen(self, tenant: str, key_id: str) -> None:
        """Note that a client asked for its keys or completed them: a request will follow."""
        try:
            if self._warm is None or not self._keys.state(tenant, key_id):
                return
            config = self._keys.key_config(tenant, key_id)
        except TacitError:
            return
        if models := self._repository.latest_with_key_config(config):
            self._warm(tenant, key_id, models[:_MOST_MODELS])

    def request_begun(self, tenant: str, key_id: str, model: ModelVersion) -> None:
        """Note that a request's header has come; its ciphertexts are on their way."""
        try:
            if self._warm is None or not key_id:
                return
            self._keys.require(tenant, key_id, model.signature)
        except TacitError:
            return
        self._warm(tenant, key_id, [model])
