"""An HTTP connection to one server, and what goes wrong with it as our own errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx

from tacit.client.answers import timed_out, unreachable
from tacit.client.closing import Closing
from tacit.errors import UserError

_CONNECT_SECONDS = 10.0


class HttpConnection(Closing):
    """A connection to one server; a context manager, safe to use from several threads.

    Attributes:
        url: without a trailing slash.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout: float = 60.0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare the connection; nothing is sent yet.

        Args:
            url: `http://host:port` or `https://…`.
            token: bearer token, if the server wants one.
            timeout: seconds to wait for any one answer.
            headers: sent with every request, besides the token.

        Raises:
            UserError: not such a URL.
        """
        self.url = checked_url(url)
        self._timeout = timeout
        bearer = {"authorization": f"Bearer {token}"} if token else {}
        limits = httpx.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS))
        self._http = httpx.Client(
            base_url=self.url, headers={**bearer, **(headers or {})}, timeout=limits
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectTimeout as error:
            raise unreachable(self.url, error) from error
        except httpx.TimeoutException as error:
            raise timed_out(self.url, self._timeout) from error
        except httpx.TransportError as error:
            raise unreachable(self.url, error) from error


def checked_url(url: str) -> str:
    """Return the URL without a trailing slash.

    Raises:
        UserError: not `http://host[:port][/path]` or `https://…`.
    """
    parts = urlsplit(url)
    try:
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or parts.username:
        raise UserError(f"{url!r} is not a server's URL: expected http://HOST:PORT or https://…")
    return url.rstrip("/")
