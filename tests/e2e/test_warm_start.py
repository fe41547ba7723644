"""Workers that start before their first request, and evaluations on several threads."""

import time
from pathlib import Path

import numpy as np
import pytest

from tacit.client.service import Service
from tacit.client.transport import HttpTransport
from tacit.runtime.options import ServerOptions, WorkerLimits
from tacit.runtime.server import ServerHandle
from tests.e2e.customers import BOUND, MODEL, VALUES, Customer
from tests.runtime.models import write_repository


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(tmp_path_factory.mktemp("models"), arithmetic=MODEL)


def url_of(server: ServerHandle) -> str:
    return f"http://127.0.0.1:{server.ports.http}"


def wait_for_worker(server: ServerHandle) -> list[int]:
    end = time.monotonic() + 120
    while not server.server.worker_pids():
        assert time.monotonic() < end
        time.sleep(0.01)
    return server.server.worker_pids()


def test_a_complete_upload_starts_the_worker_that_answers(root: Path, tmp_path: Path) -> None:
    customer = Customer.make(tmp_path)
    with ServerHandle(root) as server:
        customer.upload(url_of(server))
        pids = wait_for_worker(server)
        transport = HttpTransport(url_of(server), None, 60.0)
        assert customer.error(transport.infer(customer.question(customer.encrypt())).frames) < BOUND
        assert server.server.worker_pids() == pids


def test_after_a_restart_asking_for_the_keys_starts_the_worker(root: Path, tmp_path: Path) -> None:
    customer = Customer.make(tmp_path)
    cold = ServerOptions(workers=WorkerLimits(warm_start=False))
    with ServerHandle(root, cold) as server:
        customer.upload(url_of(server))
        with Service(url_of(server)) as service:
            assert service.has_key(customer.keys.key_id)
        time.sleep(0.3)
        assert server.server.worker_pids() == []
    with ServerHandle(root) as server, Service(url_of(server)) as service:
        assert service.has_key(customer.keys.key_id)
        wait_for_worker(server)


def test_a_server_stops_while_a_worker_starts(root: Path, tmp_path: Path) -> None:
    customer = Customer.make(tmp_path)
    with ServerHandle(root) as server:
        customer.upload(url_of(server))
    assert server.server.worker_pids() == []


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_evaluation_gets_its_own_answer_on_any_number_of_threads(
    root: Path, tmp_path: Path, threads: int
) -> None:
    customer = Customer.make(tmp_path)
    many = np.random.default_rng(threads).uniform(-1, 1, (24, *VALUES.shape[1:]))
    with ServerHandle(root, ServerOptions(workers=WorkerLimits(threads=threads))) as server:
        customer.upload(url_of(server))
        transport = HttpTransport(url_of(server), None, 60.0)
        for _ in range(3):
            reply = transport.infer(customer.question(customer.encrypt(many)))
            assert customer.error(reply.frames, many) < BOUND


def test_threads_share_the_cores_with_parallel_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(12)))
    assert [WorkerLimits().threads_for(parallel) for parallel in (1, 2, 5, 30)] == [12, 6, 2, 1]
    assert WorkerLimits(threads=3).threads_for(1) == 3
