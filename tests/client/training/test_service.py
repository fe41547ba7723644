"""What the client makes of a server's answers about trainings."""

from __future__ import annotations

import httpx
import pytest

from tacit.client.training.http_trainer import patiently
from tacit.client.training.service import TrainingService
from tacit.errors import ParameterError, ServiceError, TacitError, TruncatedError
from tacit.training import Algorithm, TrainingTask

TASK = TrainingTask(Algorithm.LOGISTIC, 100, 5)


def answering(status: int, **content: object) -> TrainingService:
    service = TrainingService("http://localhost:1")
    service._http.close()
    transport = httpx.MockTransport(lambda request: httpx.Response(status, **content))  # type: ignore[arg-type]
    service._http = httpx.Client(base_url=service.url, transport=transport)
    return service


@pytest.mark.parametrize("body", [[], {}, {"plan": "p", "seconds": "soon"}, {"jobs": 3}])
def test_answers_that_are_not_ours_are_named(body: object) -> None:
    with answering(200, json=body) as service:
        with pytest.raises(ServiceError, match="is it a Tacit server"):
            service.planned(TASK)
        with pytest.raises(ServiceError, match="is it a Tacit server"):
            service.status("a")
        with pytest.raises(ServiceError, match="is it a Tacit server"):
            service.jobs()


def test_refusals_are_our_own_errors() -> None:
    body = {"error": "parameters: no 128-bit parameters", "code": "parameters"}
    with answering(422, json=body) as service, pytest.raises(ParameterError, match="128-bit"):
        service.planned(TASK)
    with answering(404, json={"error": "job_unknown: no job", "code": "job_unknown"}) as service:
        for ask in (service.status, service.weights, service.cancel, service.resume):
            with pytest.raises(ServiceError, match="no job"):
                ask("a")


@pytest.mark.parametrize("content", [b"x", b"TACT" + bytes(100)])
def test_answers_that_are_no_frames_are_refused(content: bytes) -> None:
    with answering(200, content=content) as service, pytest.raises(TacitError):
        service.weights("a")


def test_a_frame_that_is_cut_off_is_refused() -> None:
    from tacit.client.training import service as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "frame_length", lambda prefix: 100)
        with answering(200, content=bytes(150)) as service, pytest.raises(TruncatedError):
            service.weights("a")


def test_a_server_that_comes_back_is_asked_again_and_one_that_refuses_is_not() -> None:
    asked: list[int] = []

    def ask() -> str:
        asked.append(1)
        if len(asked) < 3:
            raise ServiceError("cannot reach it") from httpx.ConnectError("refused")
        return "answer"

    assert patiently(ask) == "answer"
    assert len(asked) == 3

    def refuse() -> str:
        asked.append(1)
        raise ServiceError("no")

    with pytest.raises(ServiceError, match="no"):
        patiently(refuse)
    assert len(asked) == 4

    def away() -> str:
        raise ServiceError("cannot reach it") from httpx.ConnectError("refused")

    with pytest.raises(ServiceError, match="cannot reach"):
        patiently(away, give_up_seconds=0.0)
