"""The one table of statuses."""

import grpc
import pytest

from tacit import errors
from tacit.runtime import refusals, statuses


def all_errors(root: type[errors.TacitError] = errors.TacitError) -> list[type[errors.TacitError]]:
    children = [sub for child in root.__subclasses__() for sub in all_errors(child)]
    return [root, *children]


@pytest.mark.parametrize("cls", all_errors(), ids=lambda cls: cls.__name__)
def test_every_error_is_listed_with_statuses_clients_understand(
    cls: type[errors.TacitError],
) -> None:
    if not cls.__module__.startswith("tacit"):
        pytest.skip("defined by a test")
    if cls.__module__.startswith("tacit.client"):
        pytest.skip("never leaves the client")
    assert cls in statuses.TABLE
    status = statuses.TABLE[cls]
    assert 400 <= status.http < 600
    assert grpc.StatusCode[status.grpc] is not grpc.StatusCode.OK


def test_codes_are_unique() -> None:
    codes = [cls.code for cls in statuses.TABLE]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize(
    ("cls", "http", "grpc_name"),
    [
        (errors.KeyMismatchError, 409, "FAILED_PRECONDITION"),
        (errors.ParameterMismatchError, 409, "FAILED_PRECONDITION"),
        (errors.UnknownModelError, 404, "NOT_FOUND"),
        (errors.ModelChangedError, 409, "FAILED_PRECONDITION"),
        (errors.UnknownKeyError, 404, "NOT_FOUND"),
        (errors.ExpiredKeyError, 410, "FAILED_PRECONDITION"),
        (errors.TruncatedError, 400, "INVALID_ARGUMENT"),
        (errors.OversizedError, 413, "RESOURCE_EXHAUSTED"),
        (errors.ReplayError, 409, "ALREADY_EXISTS"),
        (errors.ResidueError, 422, "INVALID_ARGUMENT"),
        (errors.LevelRangeError, 422, "OUT_OF_RANGE"),
        (errors.WorkerCrashError, 500, "INTERNAL"),
        (refusals.BusyError, 429, "RESOURCE_EXHAUSTED"),
        (refusals.UnauthorizedError, 401, "UNAUTHENTICATED"),
        (refusals.DeadlineError, 504, "DEADLINE_EXCEEDED"),
        (refusals.StorageError, 507, "RESOURCE_EXHAUSTED"),
    ],
)
def test_named_mistakes_keep_their_status(
    cls: type[errors.TacitError], http: int, grpc_name: str
) -> None:
    assert statuses.status_of(cls("message")) == statuses.Status(http, grpc_name)


def test_foreign_exceptions_say_nothing_of_their_cause() -> None:
    error = ZeroDivisionError("secret path /home/x")
    assert statuses.status_of(error).http == 500
    assert "secret" not in statuses.message_of(error)
    assert statuses.body_of(error)["code"] == "internal"


def test_errors_cross_a_process_border() -> None:
    rebuilt = statuses.error_from("wire_residue", "a residue is not below its modulus")
    assert type(rebuilt) is errors.ResidueError
    assert type(statuses.error_from("no such code", "x")) is errors.InternalError
