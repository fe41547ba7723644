"""The native backend in a whole server: no OpenFHE, refusals that name the node, shared workers."""

import dataclasses
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from tacit.artifact import Artifact
from tacit.circuit import Circuit, Steps
from tacit.client.service import Service
from tacit.client.transport import HttpTransport
from tacit.errors import LevelRangeError, OutOfMemoryError, TacitError, UnknownKeyError
from tacit.kernels.build import build_if_stale
from tacit.params import CryptoParams, Security
from tacit.runtime.backends.loading import BackendName
from tacit.runtime.batcher import QueueLimits
from tacit.runtime.isolation import Isolation
from tacit.runtime.listeners import Ports
from tacit.runtime.options import ServerOptions, WorkerLimits
from tacit.runtime.server import ServerHandle
from tests.e2e.customers import BOUND, MODEL, VALUES, Customer
from tests.e2e.processes import children, server_process
from tests.runtime.models import arithmetic_artifact, write_repository


@pytest.fixture(autouse=True)
def _kernels() -> None:
    if not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")


def native(**limits: object) -> ServerOptions:
    return ServerOptions(workers=WorkerLimits(backend=BackendName.NATIVE, **limits))  # type: ignore[arg-type]


def url_of(server: ServerHandle) -> str:
    return f"http://127.0.0.1:{server.ports.http}"


@contextmanager
def server_without_openfhe(repository: Path, blocked: Path) -> Iterator[tuple[int, Ports]]:
    """A server process in which, and in whose workers, every import of openfhe fails."""
    blocked.mkdir()
    (blocked / "openfhe.py").write_text("raise ImportError('openfhe is blocked')\n")
    with server_process("serve_repository.py", repository, first=blocked) as (process, ports):
        yield process.pid, ports


def test_a_native_server_answers_where_openfhe_cannot_be_imported(tmp_path: Path) -> None:
    root = write_repository(tmp_path / "models", arithmetic=MODEL)
    customer = Customer.make(tmp_path / "own")
    with server_without_openfhe(root, tmp_path / "blocked") as (pid, ports):
        url = f"http://127.0.0.1:{ports.http}"
        customer.upload(url)
        reply = HttpTransport(url, None, 60.0).infer(customer.question(customer.encrypt()))
        assert customer.error(reply.frames) < BOUND
        maps = [Path(f"/proc/{p}/maps").read_text() for p in (pid, *children(pid))]
    assert len(maps) == 2
    assert not any("openfhe" in text.lower() for text in maps)


def misled(change: Callable[[Circuit], Circuit]) -> Artifact:
    """The arithmetic model with a circuit that its signature does not announce."""
    circuits = {**MODEL.circuits, "latency": change(MODEL.circuits["latency"])}
    return dataclasses.replace(MODEL, circuits=circuits)


def rotate_further(circuit: Circuit) -> Circuit:
    nodes = [
        dataclasses.replace(node, attribute=Steps(5)) if node.op.value == "rotate" else node
        for node in circuit.nodes
    ]
    return dataclasses.replace(circuit, nodes=tuple(nodes))


def test_a_missing_rotation_key_is_refused_by_node_and_the_next_request_served(
    tmp_path: Path,
) -> None:
    root = write_repository(tmp_path / "models", arithmetic=MODEL, misled=misled(rotate_further))
    customer = Customer.make(tmp_path / "own")
    with ServerHandle(root, native()) as server:
        customer.upload(url_of(server))
        transport = HttpTransport(url_of(server), None, 60.0)
        question = customer.question(customer.encrypt())
        wrong = dataclasses.replace(question, model="misled", model_digest="")
        with pytest.raises(UnknownKeyError, match=r"node 2 \(rotate, shift\).*rotations by 5"):
            transport.infer(wrong)
        pids = server.server.worker_pids()
        assert customer.error(transport.infer(question).frames) < BOUND
        assert server.server.worker_pids() == pids


def test_a_ciphertext_with_too_few_levels_is_refused_and_the_next_request_served(
    tmp_path: Path,
) -> None:
    root = write_repository(tmp_path / "models", arithmetic=MODEL)
    customer = Customer.make(tmp_path / "own")
    with ServerHandle(root, native()) as server:
        customer.upload(url_of(server))
        transport = HttpTransport(url_of(server), None, 60.0)
        answered = transport.infer(customer.question(customer.encrypt())).frames
        with pytest.raises(LevelRangeError):  # an answer has lost a level
            transport.infer(customer.question([[bytes(f) for f in row] for row in answered]))
        reply = transport.infer(customer.question(customer.encrypt()))
        assert customer.error(reply.frames) < BOUND


def test_keys_for_other_parameters_are_refused_and_the_next_request_served(
    tmp_path: Path,
) -> None:
    other = arithmetic_artifact(
        CryptoParams.choose(10, 4, 40, 50, 2, security=Security.UNCHECKED_INSECURE)
    )
    root = write_repository(tmp_path / "models", arithmetic=MODEL, other=other)
    customer = Customer.make(tmp_path / "own")
    with ServerHandle(root, native()) as server:
        customer.upload(url_of(server))
        transport = HttpTransport(url_of(server), None, 60.0)
        question = customer.question(customer.encrypt())
        with pytest.raises(TacitError) as caught:
            transport.infer(dataclasses.replace(question, model="other", model_digest=""))
        assert caught.value.code in ("wire_parameters", "key_unknown")
        assert customer.error(transport.infer(question).frames) < BOUND


def data_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return 1024 * int(line.split()[1])
    raise AssertionError("the process ended")


def test_a_request_that_memory_does_not_hold_is_refused_and_the_next_one_served(
    tmp_path: Path,
) -> None:
    params = CryptoParams.choose(13, 3, 40, 50, 2, security=Security.UNCHECKED_INSECURE)
    model = arithmetic_artifact(params)
    root = write_repository(tmp_path / "models", arithmetic=model)
    customer = Customer.make(tmp_path / "own", model)
    values = np.random.default_rng(5).uniform(-1, 1, (1, 1, params.slots))
    with ServerHandle(root, native(threads=1)) as server:
        customer.upload(url_of(server))
        transport = HttpTransport(url_of(server), None, 60.0)
        small = customer.question(customer.encrypt(values))
        assert customer.error(transport.infer(small).frames, values) < BOUND
        (pid,) = server.server.worker_pids()
        limit = data_bytes(pid) + (12 << 20)  # 48 evaluations take 25 MB before they begin
        resource.prlimit(pid, resource.RLIMIT_DATA, (limit, limit))
        many = customer.question(customer.encrypt(np.repeat(values, 48, axis=0)))
        with pytest.raises(OutOfMemoryError, match="memory"):
            transport.infer(many)
        assert customer.error(transport.infer(small).frames, values) < BOUND
        assert server.server.worker_pids() == [pid]


def test_workers_keep_within_the_memory_they_are_given(tmp_path: Path) -> None:
    root = write_repository(tmp_path / "models", arithmetic=MODEL)
    customer = Customer.make(tmp_path / "own")
    with ServerHandle(root, native(memory_bytes=3 << 30)) as server:
        customer.upload(url_of(server))
        reply = HttpTransport(url_of(server), None, 60.0).infer(
            customer.question(customer.encrypt())
        )
        assert customer.error(reply.frames) < BOUND
        (pid,) = server.server.worker_pids()
        limits = resource.prlimit(pid, resource.RLIMIT_DATA)
    assert limits[0] == 3 << 30


@pytest.mark.parametrize("isolation", list(Isolation), ids=lambda kind: kind.value)
@pytest.mark.parametrize("owners", [1, 3], ids=["apart", "joined"])
def test_owners_who_ask_at_the_same_time_get_their_own_answers(
    tmp_path: Path, isolation: Isolation, owners: int
) -> None:
    root = write_repository(tmp_path / "models", arithmetic=MODEL)
    customers = [Customer.make(tmp_path / name) for name in "abc"]
    errors: list[float] = []
    queue = QueueLimits(owners=owners)
    options = dataclasses.replace(native(isolation=isolation), queue=queue)
    with ServerHandle(root, options) as server:
        for customer in customers:
            customer.upload(url_of(server))

        def ask(seed: int, customer: Customer) -> None:
            transport = HttpTransport(url_of(server), None, 60.0)
            values = np.random.default_rng(seed).uniform(-1, 1, VALUES.shape)
            for _ in range(3):
                reply = transport.infer(customer.question(customer.encrypt(values)))
                errors.append(customer.error(reply.frames, values))

        askers = enumerate([c for c in customers for _ in range(2)])
        threads = [threading.Thread(target=ask, args=pair) for pair in askers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        workers = len(server.server.worker_pids())
    assert len(errors) == 18
    assert max(errors) < BOUND
    assert workers == (3 if isolation is Isolation.OWNER else 1)


def test_deleted_keys_leave_the_shared_worker_and_its_memory(tmp_path: Path) -> None:
    root = write_repository(tmp_path / "models", arithmetic=MODEL)
    first, second = (Customer.make(tmp_path / name) for name in "ab")
    with ServerHandle(root, native()) as server:
        transport = HttpTransport(url_of(server), None, 60.0)
        for customer in (first, second):
            customer.upload(url_of(server))
            transport.infer(customer.question(customer.encrypt()))
        pids = server.server.worker_pids()
        with Service(url_of(server)) as service:
            service.delete_keys(first.keys.key_id)
        with pytest.raises(UnknownKeyError):
            transport.infer(first.question(first.encrypt()))
        reply = transport.infer(second.question(second.encrypt()))
        assert second.error(reply.frames) < BOUND
        status = httpx.get(f"{url_of(server)}/v1/status").json()
        assert [entry["owners"] for entry in status["workers"]] == [1]
        assert server.server.worker_pids() == pids
