"""Long runs: memory and file descriptors stay where they are."""

from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.grpc

from tacit.client.transport import HttpTransport
from tacit.kernels.build import build_if_stale
from tacit.runtime.backends.loading import BackendName
from tests.e2e.customers import BOUND, MODEL, Customer
from tests.e2e.processes import children, open_files, resident_bytes, server_process, tensor_body
from tests.runtime.echo import HEADERS
from tests.runtime.models import TINY_INSECURE, echo_artifact, write_repository

pytestmark = pytest.mark.slow

WARM_UP, REQUESTS = 400, 2000
# Requests of encrypted rows; OpenFHE's take longer, and it is not the default.
ENCRYPTED = {BackendName.NATIVE: 10_000, BackendName.OPENFHE: 500}
# Leaked bodies would be 2000 x 60 kB = 120 MB, and 500 x 128 kB = 64 MB or more.
SERVER_BYTES, WORKER_BYTES = 8 << 20, 4 << 20
FRAMES = [np.random.default_rng(index).bytes(20_000) for index in range(3)]


def test_two_thousand_requests_leave_nothing_behind(tmp_path: Path) -> None:
    root = write_repository(tmp_path, wide=echo_artifact(TINY_INSECURE, 3))
    body, length = tensor_body(FRAMES)
    fields = HEADERS | {"inference-header-content-length": str(length)}
    tensor = tritonclient.grpc.InferInput("ciphertexts", [1, 3], "BYTES")
    tensor.set_data_from_numpy(np.array([FRAMES], dtype=np.object_))
    with server_process("serve_echo.py", root) as (server, ports):
        address = f"127.0.0.1:{ports.grpc}"
        with (
            httpx.Client(base_url=f"http://127.0.0.1:{ports.http}", timeout=120) as client,
            tritonclient.grpc.InferenceServerClient(address) as triton,
        ):

            def ask(requests: int) -> None:
                for _ in range(requests // 2):
                    answer = client.post("/v2/models/wide/infer", content=body, headers=fields)
                    assert answer.content.endswith(body[length:])
                    answered = triton.infer("wide", [tensor], headers=HEADERS)
                    assert answered.as_numpy("ciphertexts").tolist() == [FRAMES]

            ask(WARM_UP)
            memory, files = resident_bytes(server.pid), open_files(server.pid)
            ask(REQUESTS)
            drift = resident_bytes(server.pid) - memory
            assert open_files(server.pid) <= files
    assert drift < SERVER_BYTES


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("backend", list(BackendName), ids=lambda name: name.value)
def test_thousands_of_encrypted_requests_leave_nothing_behind(
    tmp_path: Path, backend: BackendName
) -> None:
    if backend is BackendName.NATIVE and not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")
    root = write_repository(tmp_path / "models", arithmetic=MODEL)
    customer = Customer.make(tmp_path / "own")
    with server_process("serve_repository.py", root, backend.value) as (server, ports):
        url = f"http://127.0.0.1:{ports.http}"
        customer.upload(url)
        transport = HttpTransport(url, None, 60.0)
        question = customer.encrypt()

        def ask(requests: int) -> None:
            for _ in range(requests):
                reply = transport.infer(customer.question(question))
            assert customer.error(reply.frames) < BOUND

        ask(WARM_UP // 4)
        (worker,) = children(server.pid)
        memory = {p: resident_bytes(p) for p in (server.pid, worker)}
        files = {p: open_files(p) for p in (server.pid, worker)}
        ask(ENCRYPTED[backend])
        assert children(server.pid) == [worker]
        drift = {p: resident_bytes(p) - memory[p] for p in memory}
        assert {p: open_files(p) <= files[p] + 1 for p in files} == {server.pid: True, worker: True}
    assert drift[server.pid] < SERVER_BYTES
    assert drift[worker] < WORKER_BYTES
