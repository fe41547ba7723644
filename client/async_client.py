"""The client for asyncio: the same methods, awaited.

Encryption and decryption are long computations outside the interpreter lock, so each call runs in a
thread; the event loop stays free. Cancelling a call stops waiting for it; a request already sent is
answered to nobody.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Literal

from tacit.client.client import Client
from tacit.client.frames import Progress
from tacit.client.keys import KeyPair
from tacit.client.rows import Array, Inputs
from tacit.client.service import ModelEntry
from tacit.client.timings import Timings
from tacit.signature import Signature


class AsyncClient:
    """Asks one server; an asynchronous context manager. Arguments as for `Client`."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        keys: KeyPair | None = None,
        key_dir: Path | str | None = None,
        passphrase: str | None = None,
        transport: Literal["http", "grpc"] = "http",
        grpc_url: str | None = None,
        timeout: float = 600.0,
        clip: bool = False,
        probe_every: int = 0,
        allow_insecure: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Prepare a client; see `Client`. `progress` is called from another thread."""
        self._client = Client(
            url,
            token=token,
            keys=keys,
            key_dir=key_dir,
            passphrase=passphrase,
            transport=transport,
            grpc_url=grpc_url,
            timeout=timeout,
            clip=clip,
            probe_every=probe_every,
            allow_insecure=allow_insecure,
            progress=progress,
        )

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient({self._client.url!r})"

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.to_thread(self._client.close)

    @property
    def last_timings(self) -> Timings:
        """Timings of the prediction that finished last.

        Raises:
            UserError: there was none yet.
        """
        return self._client.last_timings

    async def models(self) -> tuple[ModelEntry, ...]:
        """List the models the server offers; see `Client.models`."""
        return await asyncio.to_thread(self._client.models)

    async def signature(self, name: str, version: str | None = None) -> Signature:
        """Fetch a model's public half; see `Client.signature`."""
        return await asyncio.to_thread(self._client.signature, name, version)

    async def keys_for(self, name: str, version: str | None = None) -> KeyPair:
        """Return the keys for a model; see `Client.keys_for`."""
        return await asyncio.to_thread(self._client.keys_for, name, version)

    async def upload_keys(self, name: str, version: str | None = None) -> int:
        """Upload the evaluation keys for a model; see `Client.upload_keys`."""
        return await asyncio.to_thread(self._client.upload_keys, name, version)

    async def check(
        self, name: str, *, version: str | None = None, plan: str | None = None
    ) -> float:
        """Ask for one evaluation whose answer is known; see `Client.check`."""
        return await asyncio.to_thread(self._client.check, name, version=version, plan=plan)

    async def predict(
        self,
        name: str,
        inputs: Inputs,
        *,
        version: str | None = None,
        plan: str | None = None,
    ) -> Array:
        """Predict on encrypted rows; see `Client.predict`."""
        return await asyncio.to_thread(
            self._client.predict, name, inputs, version=version, plan=plan
        )

    async def predict_all(
        self,
        name: str,
        inputs: Inputs,
        *,
        version: str | None = None,
        plan: str | None = None,
    ) -> dict[str, Array]:
        """Predict on encrypted rows; see `Client.predict_all`."""
        return await asyncio.to_thread(
            self._client.predict_all, name, inputs, version=version, plan=plan
        )
