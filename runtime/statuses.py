"""The one table from error classes to HTTP statuses and gRPC codes, and error bodies.

A body is `{"error": "<code>: <message>", "code": "<code>"}` with a status other than 200, which is
what KServe clients decode. Errors that are not Tacit's become a 500 that says nothing of their
cause.
"""

from __future__ import annotations

from dataclasses import dataclass

from tacit import errors
from tacit.runtime import refusals


@dataclass(frozen=True, slots=True)
class Status:
    """An HTTP status and the name of a gRPC status code."""

    http: int
    grpc: str


TABLE: dict[type[errors.TacitError], Status] = {
    errors.TacitError: Status(500, "INTERNAL"),
    errors.UserError: Status(400, "INVALID_ARGUMENT"),
    errors.UnsupportedModelError: Status(422, "INVALID_ARGUMENT"),
    errors.ModelError: Status(422, "INVALID_ARGUMENT"),
    errors.InputShapeError: Status(400, "INVALID_ARGUMENT"),
    errors.InputRangeError: Status(422, "OUT_OF_RANGE"),
    errors.ParameterError: Status(422, "INVALID_ARGUMENT"),
    errors.SecurityError: Status(422, "INVALID_ARGUMENT"),
    errors.UnknownModelError: Status(404, "NOT_FOUND"),
    errors.ModelChangedError: Status(409, "FAILED_PRECONDITION"),
    errors.UnknownKeyError: Status(404, "NOT_FOUND"),
    errors.ExpiredKeyError: Status(410, "FAILED_PRECONDITION"),
    errors.KeyFileError: Status(400, "INVALID_ARGUMENT"),
    errors.TrainingRowsError: Status(422, "INVALID_ARGUMENT"),
    errors.LabelError: Status(422, "INVALID_ARGUMENT"),
    errors.NotTrainedError: Status(409, "FAILED_PRECONDITION"),
    errors.ReleaseError: Status(409, "FAILED_PRECONDITION"),
    errors.UnusableEnvironmentError: Status(503, "UNAVAILABLE"),
    errors.DirectoryInUseError: Status(503, "UNAVAILABLE"),
    errors.ServiceError: Status(503, "UNAVAILABLE"),
    errors.PartyError: Status(409, "FAILED_PRECONDITION"),
    errors.WriteOnceError: Status(409, "ALREADY_EXISTS"),
    errors.MissingPartyError: Status(409, "FAILED_PRECONDITION"),
    errors.WrongShareError: Status(422, "DATA_LOSS"),
    errors.SchemaMismatchError: Status(409, "FAILED_PRECONDITION"),
    errors.TranscriptError: Status(409, "FAILED_PRECONDITION"),
    errors.UnsupportedKeysError: Status(422, "UNIMPLEMENTED"),
    errors.DamagedInputError: Status(400, "INVALID_ARGUMENT"),
    errors.WireError: Status(400, "INVALID_ARGUMENT"),
    errors.TruncatedError: Status(400, "INVALID_ARGUMENT"),
    errors.OversizedError: Status(413, "RESOURCE_EXHAUSTED"),
    errors.HeaderError: Status(400, "INVALID_ARGUMENT"),
    errors.ChecksumError: Status(422, "DATA_LOSS"),
    errors.ResidueError: Status(422, "INVALID_ARGUMENT"),
    errors.LevelRangeError: Status(422, "OUT_OF_RANGE"),
    errors.ParameterMismatchError: Status(409, "FAILED_PRECONDITION"),
    errors.KeyMismatchError: Status(409, "FAILED_PRECONDITION"),
    errors.ReplayError: Status(409, "ALREADY_EXISTS"),
    errors.ForeignBytesError: Status(400, "INVALID_ARGUMENT"),
    errors.AnswerError: Status(502, "DATA_LOSS"),
    errors.OverflowedAnswerError: Status(502, "DATA_LOSS"),
    errors.WrongAnswerError: Status(502, "DATA_LOSS"),
    errors.ArtifactError: Status(503, "UNAVAILABLE"),
    errors.InternalError: Status(500, "INTERNAL"),
    errors.LevelError: Status(500, "INTERNAL"),
    errors.CircuitError: Status(500, "INTERNAL"),
    errors.OutOfMemoryError: Status(503, "RESOURCE_EXHAUSTED"),
    errors.DeviceLostError: Status(503, "UNAVAILABLE"),
    errors.WorkerCrashError: Status(500, "INTERNAL"),
    refusals.BadRequestError: Status(400, "INVALID_ARGUMENT"),
    refusals.UnauthorizedError: Status(401, "UNAUTHENTICATED"),
    refusals.ForbiddenError: Status(403, "PERMISSION_DENIED"),
    refusals.NotFoundError: Status(404, "UNIMPLEMENTED"),
    refusals.MethodError: Status(405, "UNIMPLEMENTED"),
    refusals.SlowBodyError: Status(408, "DEADLINE_EXCEEDED"),
    refusals.DamagedKeysError: Status(404, "NOT_FOUND"),
    refusals.ConflictError: Status(409, "ABORTED"),
    refusals.EncodingError: Status(415, "INVALID_ARGUMENT"),
    refusals.BusyError: Status(429, "RESOURCE_EXHAUSTED"),
    refusals.AbandonedError: Status(499, "CANCELLED"),
    refusals.DeadlineError: Status(504, "DEADLINE_EXCEEDED"),
    refusals.StoppingError: Status(503, "UNAVAILABLE"),
    refusals.StorageError: Status(507, "RESOURCE_EXHAUSTED"),
    refusals.UnknownSessionError: Status(404, "NOT_FOUND"),
    refusals.UnknownJobError: Status(404, "NOT_FOUND"),
    refusals.JobStateError: Status(409, "FAILED_PRECONDITION"),
}

_BY_CODE = {cls.code: cls for cls in TABLE if cls is not errors.UnsupportedModelError}


def status_of(error: BaseException) -> Status:
    """Look up the status of an error; the nearest listed class counts."""
    for cls in type(error).__mro__:
        if cls in TABLE:
            return TABLE[cls]
    return TABLE[errors.InternalError]


def code_of(error: BaseException) -> str:
    """Return the stable code of an error; "internal" for what is not ours."""
    return error.code if isinstance(error, errors.TacitError) else errors.InternalError.code


def message_of(error: BaseException) -> str:
    """Return "<code>: <message>", without details for errors that are not ours."""
    if isinstance(error, errors.TacitError):
        return f"{error.code}: {error}"
    return f"{errors.InternalError.code}: the server failed; its log has the cause"


def body_of(error: BaseException) -> dict[str, str]:
    """Return the JSON error body."""
    return {"error": message_of(error), "code": code_of(error)}


def error_from(code: str, message: str) -> errors.TacitError:
    """Rebuild an error that crossed a process border; unknown codes become `InternalError`."""
    return _BY_CODE.get(code, errors.InternalError)(message)
