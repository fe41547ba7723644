"""Refusals only a server can give: the `ServiceError` branch, with one code each.

The contract's `ServiceError` is what a client raises when a server refuses. These subclasses give
each refusal its own stable code and, through `tacit.runtime.statuses`, its own HTTP and gRPC
status.
"""

from tacit.errors import ServiceError


class BadRequestError(ServiceError):
    """The request is not well-formed KServe v2, or asks for something this server does not do."""

    code = "bad_request"


class UnauthorizedError(ServiceError):
    """No bearer token, or one that is not in the token file."""

    code = "unauthorized"


class ForbiddenError(ServiceError):
    """The tenant may not do this."""

    code = "forbidden"


class NotFoundError(ServiceError):
    """No such route."""

    code = "not_found"


class MethodError(ServiceError):
    """The route exists, the method does not."""

    code = "method_not_allowed"


class SlowBodyError(ServiceError):
    """The client stopped sending in the middle of a body."""

    code = "body_timeout"


class DamagedKeysError(ServiceError):
    """A worker's word for stored keys it cannot read; the client hears `UnknownKeyError`."""

    code = "key_damaged"


class ConflictError(ServiceError):
    """The same thing is being uploaded already, or was declared differently before."""

    code = "conflict"


class EncodingError(ServiceError):
    """A content encoding the server does not read."""

    code = "content_encoding"


class BusyError(ServiceError):
    """A queue or the memory for requests in flight is full."""

    code = "busy"


class AbandonedError(ServiceError):
    """The client went away before its answer was ready."""

    code = "abandoned"


class DeadlineError(ServiceError):
    """No answer within the request's deadline."""

    code = "deadline"


class StoppingError(ServiceError):
    """The server is shutting down."""

    code = "stopping"


class StorageError(ServiceError):
    """No room for keys or rows: the quota is used up, or the disk is full."""

    code = "storage_full"


class UnknownSessionError(ServiceError):
    """No such session of several parties."""

    code = "session_unknown"


class UnknownJobError(ServiceError):
    """There is no such training job, or it is another tenant's."""

    code = "job_unknown"


class JobStateError(ServiceError):
    """A training job cannot do this in the state it is in."""

    code = "job_state"
