"""Small JSON bodies of the routes that are not infer."""

from starlette.requests import Request

from tacit.runtime.bodies import Body, Memory
from tacit.runtime.v2_json import parse_object

_IDLE_SECONDS = 10.0


async def read_small_json(request: Request, memory: Memory, limit_bytes: int) -> dict[str, object]:
    """Read a JSON object; an empty body is an empty object.

    Raises:
        BadRequestError, OversizedError: see `Body.read` and `parse_object`.
    """
    body = Body(dict(request.scope["headers"]), request.receive, memory, _IDLE_SECONDS)
    try:
        text = await body.read(limit_bytes)
        return parse_object(text, limit_bytes) if len(text) else {}
    finally:
        body.release()
