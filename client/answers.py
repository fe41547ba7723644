"""Errors a server reports, as our own exceptions.

A server's body is `{"error": "<code>: <message>", "code": "<code>"}`; gRPC carries the same text.
Codes of the contract's errors give those classes back, every other code a `ServiceError`.
"""

from __future__ import annotations

import re

from tacit import errors

_CODED = re.compile(r"\s*([a-z_]{2,40}): (.*)", re.DOTALL)
_LONGEST_MESSAGE = 2000
_ADVICE = {
    "unauthorized": "pass the access token (token=…, or --token-file at the command line)",
    "busy": "try again in a moment",
    "storage_full": "delete keys you do not use any more (`tacit keys delete --server URL`)",
}


def error_of(text: str, code: str | None = None, status: str = "") -> errors.TacitError:
    """Rebuild the error a server reported.

    Args:
        text: the message, usually "<code>: <message>".
        code: the code, where the answer carries it on its own.
        status: the HTTP or gRPC status, named where the code is unknown.
    """
    found = _CODED.fullmatch(text)
    if found and (code is None or found[1] == code):
        code, text = found[1], found[2]
    text = text.strip()[:_LONGEST_MESSAGE]
    cls = _by_code().get(code or "")
    if cls is not None:
        return cls(text)
    message = f"the server refused ({code or status or 'no code'}): {text or 'no reason given'}"
    return errors.ServiceError(message + (f"; {_ADVICE[code]}" if code in _ADVICE else ""))


def error_of_body(body: object, status: int) -> errors.TacitError:
    """Rebuild the error of an HTTP answer from its decoded JSON body (None if it had none)."""
    fields = body if isinstance(body, dict) else {}
    text, code = fields.get("error"), fields.get("code")
    return error_of(
        text if isinstance(text, str) else "",
        code if isinstance(code, str) else None,
        f"HTTP {status}",
    )


def unreachable(url: str, cause: BaseException) -> errors.ServiceError:
    """Say that nobody answers."""
    reason = str(cause).strip().splitlines()
    detail = f" ({reason[0]})" if reason else ""
    return errors.ServiceError(
        f"cannot reach {url}{detail}: is the server running (`tacit serve`), and is the URL right?"
    )


def timed_out(url: str, seconds: float) -> errors.ServiceError:
    """Say that the answer took too long."""
    return errors.ServiceError(
        f"no answer from {url} within {seconds:g} s: pass a longer timeout, or fewer rows"
    )


def _by_code() -> dict[str, type[errors.TacitError]]:
    return {cls.code: cls for cls in _classes(errors.TacitError)}


def _classes(root: type[errors.TacitError]) -> list[type[errors.TacitError]]:
    """List the contract's classes that a message alone can build."""
    below = [cls for child in root.__subclasses__() for cls in _classes(child)]
    own = root.__module__ == errors.__name__ and root is not errors.UnsupportedModelError
    return [root, *below] if own else below
