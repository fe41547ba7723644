"""A whole server whose workers compute on a CUDA device of fibres: answers, failures, health."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tacit.client.cli import build_parser
from tacit.client.cli_serve import on_device, server_options
from tacit.client.transport import HttpTransport
from tacit.errors import TacitError, UnusableEnvironmentError
from tacit.kernels.build import build_if_stale
from tacit.kernels.devices import Device
from tacit.runtime.backends.loading import BackendName
from tacit.runtime.batcher import QueueLimits
from tacit.runtime.options import ServerOptions, WorkerLimits
from tacit.runtime.server import ServerHandle
from tacit.runtime.server_process import Replacements, Server
from tests.conformance.cuda_backend import fibres
from tests.e2e.customers import BOUND, MODEL, Customer
from tests.runtime.models import write_repository


@pytest.fixture(scope="module")
def customer(tmp_path_factory: pytest.TempPathFactory) -> Customer:
    if not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")
    fibres().driver()
    fibres().image(MODEL.signature.params.log_n)  # compiled once, not by every worker
    return Customer.make(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with one line per worker that is to lose its device."""
    path = tmp_path / "faults"
    path.write_text("")
    monkeypatch.setenv("TACIT_TEST_FAULT", str(path))
    return path


def options(device: Device) -> ServerOptions:
    workers = WorkerLimits(backend=BackendName.NATIVE, device=device, warm_start=False)
    return ServerOptions(workers=workers, queue=QueueLimits(owners=64, joined=64))


@contextmanager
def served(
    tmp_path: Path, device: Device, works: list[str] | None = None
) -> Iterator[tuple[ServerHandle, HttpTransport]]:
    root = write_repository(tmp_path / "models", arithmetic=MODEL)
    wrong = [""] if works is None else works
    replacements = Replacements(
        worker_module="tests.e2e.shim_worker",
        look_for_cuda=lambda: "a driver of fibres",
        device_works=lambda: wrong[-1],
    )
    with ServerHandle(root, options(device), replacements) as server:
        yield server, HttpTransport(url_of(server), None, 120.0)


def url_of(server: ServerHandle) -> str:
    return f"http://127.0.0.1:{server.ports.http}"


def status_of(server: ServerHandle) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{url_of(server)}/v1/status").json()
    return found


def is_ready(server: ServerHandle) -> bool:
    return httpx.get(f"{url_of(server)}/v2/health/ready").status_code == 200


def test_answers_come_from_the_device_and_the_status_says_so(
    tmp_path: Path, customer: Customer
) -> None:
    with served(tmp_path, Device.CUDA) as (server, transport):
        customer.upload(url_of(server))
        for _ in range(3):
            reply = transport.infer(customer.question(customer.encrypt()))
            assert customer.error(reply.frames) < BOUND
        status = status_of(server)
        assert (status["device"], status["device_error"]) == ("cuda", "")
        assert "fibres" in str(status["device_reason"])
        (worker,) = status["workers"]
        assert worker["device"] == "cuda: fibres on a processor"
        assert worker["device_keys"] > 0
        metrics = httpx.get(f"http://127.0.0.1:{server.ports.metrics}/metrics").text
        assert f"tacit_device_key_bytes {worker['device_keys']}" in metrics
        assert "tacit_device_failing 0" in metrics
        assert is_ready(server)


def test_a_request_whose_device_is_lost_is_answered_by_a_new_process(
    tmp_path: Path, customer: Customer, faults: Path
) -> None:
    faults.write_text("one worker")
    with served(tmp_path, Device.CUDA) as (server, transport):
        customer.upload(url_of(server))
        reply = transport.infer(customer.question(customer.encrypt()))
        assert customer.error(reply.frames) < BOUND
        assert faults.read_text() == ""
        assert status_of(server)["device_error"] == ""
        assert is_ready(server)


def test_a_device_that_stays_lost_is_told_and_the_server_is_not_ready_until_it_works(
    tmp_path: Path, customer: Customer, faults: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tacit.runtime.server_process._HOUSEKEEPING_SECONDS", 0.2)
    faults.write_text("one worker\nand the next")
    wrong = ["it is still broken"]
    with served(tmp_path, Device.CUDA, wrong) as (server, transport):
        customer.upload(url_of(server))
        with pytest.raises(TacitError, match="restart the process") as refused:
            transport.infer(customer.question(customer.encrypt()))
        assert refused.value.code == "device_lost"
        assert not is_ready(server)
        assert status_of(server)["device_error"]
        wrong.append("")
        until = time.monotonic() + 60.0
        while not is_ready(server) and time.monotonic() < until:
            time.sleep(0.05)
        assert is_ready(server)
        reply = transport.infer(customer.question(customer.encrypt()))
        assert customer.error(reply.frames) < BOUND


def test_where_the_processor_may_take_over_the_status_tells_that_it_did(
    tmp_path: Path, customer: Customer, faults: Path
) -> None:
    faults.write_text("one worker")
    with served(tmp_path, Device.AUTO) as (server, transport):
        customer.upload(url_of(server))
        for _ in range(2):
            reply = transport.infer(customer.question(customer.encrypt()))
            assert customer.error(reply.frames) < BOUND
        (worker,) = status_of(server)["workers"]
        assert worker["device"] == "cpu"
        assert worker["moved"] == 1
        assert worker["device_error"].startswith("device_lost")
        assert is_ready(server)


def test_a_server_without_the_device_it_was_told_to_use_does_not_start(tmp_path: Path) -> None:
    def nothing() -> str:
        raise UnusableEnvironmentError("no CUDA driver (libcuda.so.1): install NVIDIA's driver")

    root = write_repository(tmp_path / "models", arithmetic=MODEL)
    found = Replacements(look_for_cuda=nothing)
    with pytest.raises(UnusableEnvironmentError, match="was asked for: no CUDA driver"):
        ServerHandle(root, options(Device.CUDA), found)
    server: Server = ServerHandle(root, options(Device.AUTO), found).server
    assert server.device.device is Device.CPU
    assert "install NVIDIA's driver" in server.device.warning


def test_the_command_line_chooses_the_device_and_its_memory() -> None:
    words = ["serve", "models", "--device", "auto", "--device-memory-gb", "20"]
    parsed = build_parser().parse_args([*words, "--device-key-gb", "5"])
    chosen = server_options(parsed)
    assert chosen.workers.device is Device.AUTO
    assert chosen.workers.device_bytes == 20_000_000_000
    assert chosen.workers.device_key_bytes == 5_000_000_000
    larger = on_device(chosen, parsed)
    assert (larger.queue.owners, larger.queue.joined, larger.workers.joined) == (64, 64, 64)
    asked = build_parser().parse_args([*words, "--join-owners", "3"])
    assert on_device(server_options(asked), asked).queue.owners == 3
