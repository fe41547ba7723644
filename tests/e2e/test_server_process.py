"""Whole server processes: shutdown, ports, TLS, tokens."""

import datetime
import ipaddress
import json
import signal
import ssl
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tritonclient.utils import InferenceServerException

from tacit.client.transport import GrpcTransport, HttpTransport, Reply
from tacit.errors import TacitError, UserError
from tacit.runtime.options import ServerOptions
from tacit.runtime.server import ServerHandle, serve
from tests.e2e.customers import BOUND, MODEL, VALUES, Customer
from tests.e2e.processes import children, server_process
from tests.runtime.models import write_repository

TOKEN = "clinic-token-0123456789"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(tmp_path_factory.mktemp("models"), arithmetic=MODEL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_server_finishes_accepted_requests_and_its_workers(
    repository: Path, tmp_path: Path, number: signal.Signals
) -> None:
    customer = Customer.make(tmp_path)
    replies: list[Reply] = []
    many = np.repeat(VALUES, 32, axis=0)
    with server_process("serve_repository.py", repository) as (process, ports):
        url = f"http://127.0.0.1:{ports.http}"
        customer.upload(url)
        transport = HttpTransport(url, None, 60.0)
        transport.infer(customer.question(customer.encrypt()))
        workers = children(process.pid)
        question = customer.question(customer.encrypt(many))
        asking = threading.Thread(target=lambda: replies.append(transport.infer(question)))
        asking.start()
        time.sleep(0.15)
        process.send_signal(number)
        asking.join()
        assert process.wait(120) == 0
    assert customer.error(replies[0].frames, many) < BOUND
    assert workers
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    with pytest.raises(TacitError):
        transport.infer(question)


def test_a_port_that_is_taken_is_named(repository: Path, tmp_path: Path) -> None:
    with ServerHandle(repository) as handle:
        http, grpc, metrics = handle.ports.http, handle.ports.grpc, handle.ports.metrics
        for ports in ((http, 0, 0), (0, grpc, 0), (0, 0, metrics)):
            with pytest.raises(UserError, match=str(max(ports))):
                serve(tmp_path, http_port=ports[0], grpc_port=ports[1], metrics_port=ports[2])


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tacit test")])
    now = datetime.datetime.now(datetime.timezone.utc)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(built.public_bytes(pem))
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(private)
    return folder / "cert.pem", folder / "key.pem"


def test_tls_protects_both_protocols(repository: Path, certificate: tuple[Path, Path]) -> None:
    chain, key = certificate
    options = ServerOptions(tls_certificate=chain, tls_key=key)
    trusted = ssl.create_default_context(cafile=chain)
    with ServerHandle(repository, options) as handle:
        url = f"https://127.0.0.1:{handle.ports.http}/v2/health/live"
        assert httpx.get(url, verify=trusted).status_code == 200
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)
        address = f"127.0.0.1:{handle.ports.grpc}"
        with tritonclient.grpc.InferenceServerClient(
            address, ssl=True, root_certificates=str(chain)
        ) as client:
            assert client.is_server_live()
    with pytest.raises(UserError, match="both files"):
        ServerOptions(tls_certificate=chain)


def test_tokens_are_asked_for_on_both_protocols_and_audited(
    repository: Path, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"clinic {TOKEN}\n")
    tokens.chmod(0o600)
    options = ServerOptions(
        key_directory=tmp_path / "keys", token_file=tokens, audit_file=tmp_path / "audit.jsonl"
    )
    customer = Customer.make(tmp_path / "own")
    with ServerHandle(repository, options) as handle:
        url = f"http://127.0.0.1:{handle.ports.http}"
        address = f"127.0.0.1:{handle.ports.grpc}"
        customer.upload(url, TOKEN)
        for transport in (HttpTransport(url, TOKEN, 60.0), GrpcTransport(address, TOKEN, 60.0)):
            reply = transport.infer(customer.question(customer.encrypt()))
            assert customer.error(reply.frames) < BOUND
        metadata = httpx.get(f"{url}/v2/models/arithmetic")
        assert metadata.status_code == 401
        assert metadata.json()["code"] == "unauthorized"
        allowed = {"authorization": f"Bearer {TOKEN}"}
        unload = httpx.post(f"{url}/v2/repository/models/arithmetic/unload", headers=allowed)
        assert (unload.status_code, unload.json()["code"]) == (403, "forbidden")
        with tritonclient.grpc.InferenceServerClient(address) as client:
            assert client.is_server_live()
            with pytest.raises(InferenceServerException, match="unauthorized") as caught:
                client.get_model_metadata("arithmetic")
            assert caught.value.status() == "StatusCode.UNAUTHENTICATED"
    events = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == [
        "key_declared",
        "key_complete",
        "infer",
        "infer",
    ]
    assert all(event["tenant"] == "clinic" for event in events)
    assert TOKEN not in (tmp_path / "audit.jsonl").read_text()
