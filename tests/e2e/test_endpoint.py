"""The whole endpoint: keys, upload, encryption, KServe over HTTP and gRPC, worker, decryption."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from tacit.client.client import Client
from tacit.client.service import Service
from tacit.client.transport import GrpcTransport, HttpTransport, Transport
from tacit.errors import KeyMismatchError, ReplayError, UnknownKeyError, WorkerCrashError
from tacit.kernels.build import build_if_stale
from tacit.params import CryptoParams
from tacit.runtime.backends.loading import BackendName
from tacit.runtime.options import ServerOptions, WorkerLimits
from tacit.runtime.server import ServerHandle
from tests.e2e.customers import BOUND, MODEL, VALUES, Customer
from tests.runtime.models import arithmetic_artifact, write_repository


@pytest.fixture(scope="module", params=list(BackendName), ids=lambda name: name.value)
def handle(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[ServerHandle]:
    root = write_repository(tmp_path_factory.mktemp("models"), arithmetic=MODEL)
    with ServerHandle(root, options_for(request.param)) as running:
        yield running


def options_for(backend: BackendName) -> ServerOptions:
    if backend is BackendName.NATIVE and not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")
    return ServerOptions(workers=WorkerLimits(backend=backend))


@pytest.fixture(scope="module")
def url(handle: ServerHandle) -> str:
    return f"http://127.0.0.1:{handle.ports.http}"


@pytest.fixture(scope="module")
def customer(tmp_path_factory: pytest.TempPathFactory, url: str) -> Customer:
    customer = Customer.make(tmp_path_factory.mktemp("keys"))
    customer.upload(url)
    return customer


@pytest.fixture(params=["http", "grpc"])
def transport(request: pytest.FixtureRequest, handle: ServerHandle, url: str) -> Transport:
    if request.param == "http":
        return HttpTransport(url, None, 60.0)
    return GrpcTransport(f"127.0.0.1:{handle.ports.grpc}", None, 60.0)


def test_encrypted_answers_equal_the_clear_ones(customer: Customer, transport: Transport) -> None:
    reply = transport.infer(customer.question(customer.encrypt()))
    assert customer.error(reply.frames) < BOUND
    assert reply.server_ms["evaluate"] > 0


def test_two_customers_get_their_own_answers_at_the_same_time(
    customer: Customer, transport: Transport, url: str, tmp_path: Path
) -> None:
    other = Customer.make(tmp_path)
    other.upload(url)
    errors: dict[int, float] = {}

    def ask(index: int, who: Customer) -> None:
        values = VALUES / (index + 1)
        reply = transport.infer(who.question(who.encrypt(values)))
        errors[index] = who.error(reply.frames, values)

    threads = [
        threading.Thread(target=ask, args=(index, who))
        for index, who in enumerate([customer, other, customer, other])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 4
    assert max(errors.values()) < BOUND


def test_keys_that_were_not_uploaded_are_unknown(transport: Transport, tmp_path: Path) -> None:
    stranger = Customer.make(tmp_path)
    with pytest.raises(UnknownKeyError):
        transport.infer(stranger.question(stranger.encrypt()))


def test_ciphertexts_of_another_key_are_refused(
    customer: Customer, transport: Transport, tmp_path: Path
) -> None:
    stranger = Customer.make(tmp_path)
    with pytest.raises(KeyMismatchError):
        transport.infer(customer.question(stranger.encrypt()))


def test_a_killed_worker_costs_one_request(
    customer: Customer, transport: Transport, handle: ServerHandle
) -> None:
    many = np.repeat(VALUES, 32, axis=0)
    question = customer.question(customer.encrypt(many))
    transport.infer(customer.question(customer.encrypt()))  # the worker is there and warm
    begun = time.monotonic()
    transport.infer(question)
    taken = time.monotonic() - begun
    pids = set(handle.server.worker_pids())
    assert len(pids) >= 1
    crashed: list[BaseException] = []

    def ask() -> None:
        try:
            transport.infer(question)
        except WorkerCrashError as error:
            crashed.append(error)

    for attempt in range(80):  # until a kill falls into the time of the answer
        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(taken * (0.45 + 0.09 * (attempt % 7)))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        asking.join()
        reply = transport.infer(customer.question(customer.encrypt()))
        assert customer.error(reply.frames) < BOUND
        pids = set(handle.server.worker_pids())
        if crashed:
            break
    assert "died while it answered this request" in str(crashed[0])


def test_a_repeated_nonce_is_refused(customer: Customer, transport: Transport) -> None:
    question = customer.question(customer.encrypt())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tacit.client.transport.secrets.token_hex", lambda count: f"{transport}")
        transport.infer(question)
        with pytest.raises(ReplayError):
            transport.infer(question)


def test_keys_survive_a_restart_and_are_gone_once_deleted(tmp_path: Path) -> None:
    root = write_repository(tmp_path / "models", arithmetic=MODEL)
    customer = Customer.make(tmp_path / "keys")
    with ServerHandle(root) as first:
        customer.upload(f"http://127.0.0.1:{first.ports.http}")
    with ServerHandle(root) as second:
        url = f"http://127.0.0.1:{second.ports.http}"
        transport = HttpTransport(url, None, 60.0)
        reply = transport.infer(customer.question(customer.encrypt()))
        assert customer.error(reply.frames) < BOUND
        with Service(url) as service:
            service.delete_keys(customer.keys.key_id)
            assert not service.has_key(customer.keys.key_id)
        with pytest.raises(UnknownKeyError):
            transport.infer(customer.question(customer.encrypt()))
    assert not list((root / ".tacit-keys").glob("*/*"))


def test_metrics_count_what_happened(
    customer: Customer, handle: ServerHandle, transport: Transport
) -> None:
    transport.infer(customer.question(customer.encrypt()))
    text = httpx.get(f"http://127.0.0.1:{handle.ports.metrics}/metrics").text
    samples = {
        line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if not line.startswith("#")
    }
    labels = '{model="arithmetic",version="1"}'
    assert samples[f"nv_inference_count{labels}"] >= 2
    assert samples[f"nv_inference_compute_infer_duration_us{labels}"] > 0
    assert samples["tacit_keys"] >= 1
    assert samples["tacit_workers"] >= 1


def test_the_sdk_predicts_in_one_call_over_both_protocols(
    handle: ServerHandle, url: str, tmp_path: Path
) -> None:
    rows = np.linspace(-1, 1, 2 * MODEL.signature.params.slots)[:, None]
    with Client(url, key_dir=tmp_path, allow_insecure=True) as over_http:
        assert np.max(np.abs(over_http.predict("arithmetic", rows) - rows - 0.5)) < BOUND
    address = f"127.0.0.1:{handle.ports.grpc}"
    with Client(
        url, transport="grpc", grpc_url=address, key_dir=tmp_path, allow_insecure=True
    ) as over_grpc:
        assert np.max(np.abs(over_grpc.predict("arithmetic", rows) - rows - 0.5)) < BOUND


@pytest.mark.slow
def test_encrypted_answers_at_128_bit_security(tmp_path: Path) -> None:
    params = CryptoParams.choose(14, 4, 40, 50, 3)
    model = arithmetic_artifact(params)
    root = write_repository(tmp_path / "models", arithmetic=model)
    customer = Customer.make(tmp_path / "keys", model)
    values = np.random.default_rng(3).uniform(-1, 1, (4, 1, params.slots))
    with ServerHandle(root) as handle:
        url = f"http://127.0.0.1:{handle.ports.http}"
        customer.upload(url)
        for transport in (
            HttpTransport(url, None, 60.0),
            GrpcTransport(f"127.0.0.1:{handle.ports.grpc}", None, 60.0),
        ):
            reply = transport.infer(customer.question(customer.encrypt(values)))
            assert customer.error(reply.frames, values) < BOUND


def test_the_default_computes_natively_and_says_so(tmp_path: Path) -> None:
    if not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")
    root = write_repository(tmp_path / "models", arithmetic=MODEL)
    customers = [Customer.make(tmp_path / name) for name in "ab"]
    with ServerHandle(root) as handle:
        url = f"http://127.0.0.1:{handle.ports.http}"
        transport = HttpTransport(url, None, 60.0)
        for customer in customers:
            customer.upload(url)
            reply = transport.infer(customer.question(customer.encrypt()))
            assert customer.error(reply.frames) < BOUND
        status = httpx.get(f"{url}/v1/status").json()
        counters = httpx.get(f"http://127.0.0.1:{handle.ports.metrics}/metrics").text
    assert (status["backend"], status["backend_warning"]) == ("native", "")
    assert status["isolation"] == "tenant"
    (worker,) = status["workers"]
    assert worker["owners"] == 2
    params = MODEL.signature.params
    residues = (len(params.moduli) + len(params.special_moduli)) * params.n
    assert worker["keys"] == 2 * 2 * 2 * params.dnum * residues * 8
    for name, value in (("key", worker["keys"]), ("constant", worker["constants"])):
        assert f"\ntacit_worker_{name}_bytes {value:g}\n" in counters
    assert "\ntacit_backend_native 1\n" in counters
