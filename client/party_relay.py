"""What a party asks the relay: sessions, entries, payloads. Nothing it answers is trusted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from tacit.client.answers import error_of_body
from tacit.client.http_connection import HttpConnection
from tacit.errors import ChecksumError, OversizedError, ServiceError
from tacit.party_entry import LARGEST_ENTRY, Blob, SignedEntry
from tacit.party_terms import SessionTerms

TOKEN_HEADER = "tacit-party-token"
_CHUNK_BYTES = 1 << 20


@dataclass(slots=True)
class Traffic:
    """Bytes of entries and payloads that went each way."""

    sent: int = 0
    received: int = 0


class Relay(HttpConnection):
    """A connection to the relay for one session; a context manager."""

    def __init__(
        self,
        url: str,
        session: str = "",
        *,
        party_token: str = "",
        token: str | None = None,
        timeout: float = 600.0,
    ) -> None:
        """Prepare the connection; nothing is sent yet.

        Args:
            url: of the server.
            session: the session's id.
            party_token: given to this party when the session was created.
            token: bearer token, if the server wants one.
            timeout: seconds to wait for any one answer.
        """
        headers = {TOKEN_HEADER: party_token} if party_token else None
        super().__init__(url, token=token, timeout=timeout, headers=headers)
        self.session = session
        self.traffic = Traffic()

    def create(self, terms: SessionTerms) -> dict[str, str]:
        """Create a session; returns each party's token, shown once.

        Raises:
            ServiceError: the server cannot be reached or refuses.
        """
        answer = self._json("POST", "/v1/parties", terms.to_json())
        tokens = answer.get("tokens")
        if answer.get("session") != terms.session or not isinstance(tokens, dict):
            raise ServiceError(f"{self.url} did not answer with a session: is it a Tacit server?")
        return {str(name): str(token) for name, token in tokens.items()}

    def terms(self) -> SessionTerms:
        """Fetch the terms; their digest must be the session's id.

        Raises:
            ServiceError: not the terms of this session, or the server refuses.
        """
        fields = self.state()["terms"]
        terms = SessionTerms.from_json(fields if isinstance(fields, dict) else {})
        if terms.session != self.session:
            raise ServiceError("the relay answered with the terms of another session")
        return terms

    def state(self) -> dict[str, object]:
        """Fetch what the relay knows: terms, and the entries there are."""
        return self._json("GET", f"/v1/parties/{self.session}")

    def entry(self, step: str, party: int) -> SignedEntry:
        """Fetch one entry; it is not checked here.

        Raises:
            WireError: not an entry.
            ServiceError: the server cannot be reached or refuses.
        """
        path = f"/v1/parties/{self.session}/entries/{step}/{party}"
        return SignedEntry.from_bytes(self._bytes(path, LARGEST_ENTRY))

    def send_entry(self, signed: SignedEntry) -> None:
        """Send one entry; the same one may be sent again.

        Raises:
            WriteOnceError: another entry is there.
        """
        entry = signed.entry
        path = f"/v1/parties/{self.session}/entries/{entry.step}/{entry.party}"
        content = signed.to_bytes()
        self._checked(lambda: self._http.put(path, content=content))
        self.traffic.sent += len(content)

    def send_blob(self, blob: Blob, path: Path) -> None:
        """Send one payload from a file, unless it is there."""
        if blob.sha256 in self._present([blob]):
            return
        headers = {"content-length": str(blob.length)}
        url = f"/v1/parties/{self.session}/blobs/{blob.sha256}"
        self._checked(lambda: self._http.put(url, content=_pieces(path), headers=headers))
        self.traffic.sent += blob.length

    def blob(self, blob: Blob) -> bytes:
        """Fetch one payload.

        Raises:
            ChecksumError, OversizedError: the relay sent something else.
        """
        content = self._bytes(f"/v1/parties/{self.session}/blobs/{blob.sha256}", blob.length)
        if hashlib.sha256(content).hexdigest() != blob.sha256:
            raise ChecksumError("the relay sent another payload than was signed")
        return content

    def delete(self) -> None:
        """Have the relay forget the session."""
        self._json("DELETE", f"/v1/parties/{self.session}")

    def _present(self, blobs: list[Blob]) -> set[str]:
        body = {"sha256": [blob.sha256 for blob in blobs]}
        answer = self._json("POST", f"/v1/parties/{self.session}/blobs", body)
        found = answer.get("present")
        return {str(sha256) for sha256 in found} if isinstance(found, list) else set()

    def _json(
        self, method: str, path: str, body: Mapping[str, object] | None = None
    ) -> dict[str, object]:
        answer = self._checked(lambda: self._http.request(method, path, json=body))
        try:
            fields = answer.json()
        except ValueError as error:
            raise ServiceError(f"{self.url} did not answer with JSON") from error
        if not isinstance(fields, dict):
            raise ServiceError(f"{self.url} did not answer with a JSON object")
        return fields

    def _bytes(self, path: str, limit: int) -> bytes:
        gathered = bytearray()
        with self._reaching(), self._http.stream("GET", path) as answer:
            if answer.status_code >= 400:
                answer.read()
                _refuse(answer)
            for chunk in answer.iter_bytes():
                gathered += chunk
                if len(gathered) > limit:
                    raise OversizedError(f"the relay sent more than the {limit} bytes expected")
        self.traffic.received += len(gathered)
        return bytes(gathered)

    def _checked(self, ask: Callable[[], httpx.Response]) -> httpx.Response:
        with self._reaching():
            answer = ask()
        if answer.status_code >= 400:
            _refuse(answer)
        return answer


def _refuse(answer: httpx.Response) -> None:
    try:
        body: object = answer.json()
    except ValueError:
        body = None
    raise error_of_body(body, answer.status_code)


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_CHUNK_BYTES):
            yield piece
