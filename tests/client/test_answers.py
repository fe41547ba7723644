"""Errors of a server come back as the contract's exceptions."""

import pytest

from tacit import errors
from tacit.client.answers import error_of, error_of_body
from tacit.runtime import refusals
from tacit.runtime.statuses import TABLE, body_of, message_of


@pytest.mark.parametrize("cls", list(TABLE), ids=lambda cls: cls.__name__)
def test_every_error_of_the_server_arrives_as_its_class(cls: type[errors.TacitError]) -> None:
    if cls is errors.UnsupportedModelError:
        return
    sent = cls("what was expected: what came")
    for found in (
        error_of_body(body_of(sent), TABLE[cls].http),
        error_of(message_of(sent), None, "StatusCode.X"),
    ):
        if cls.__module__ == refusals.__name__:
            assert type(found) is errors.ServiceError
            assert cls.code in str(found)
        else:
            assert type(found) is cls
            assert str(found) == "what was expected: what came"
        assert "what was expected: what came" in str(found)


@pytest.mark.parametrize("body", [None, [], "text", {}, {"error": 3}, {"error": None, "code": 1}])
def test_bodies_that_are_not_ours_become_service_errors(body: object) -> None:
    found = error_of_body(body, 502)
    assert type(found) is errors.ServiceError
    assert "HTTP 502" in str(found)


def test_words_before_a_colon_that_are_no_code_are_kept() -> None:
    found = error_of("some_thing: failed", None, "404")
    assert type(found) is errors.ServiceError
    assert "failed" in str(found)
    assert "some_thing" in str(found)


def test_long_messages_are_cut() -> None:
    assert len(str(error_of("x" * 100_000, "internal"))) <= 2000
