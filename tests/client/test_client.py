"""The client against a real server with a worker process, tiny insecure parameters."""

import asyncio
import json
import logging
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

import tacit
from tacit.client.async_client import AsyncClient
from tacit.client.client import Client
from tacit.client.frames import FrameEntry
from tacit.client.rows import Array
from tacit.client.service import Service
from tacit.client.transport import Question, Reply
from tacit.errors import (
    ExpiredKeyError,
    InputRangeError,
    InputShapeError,
    KeyFileError,
    ParameterMismatchError,
    SecurityError,
    ServiceError,
    TacitError,
    UnknownModelError,
    UserError,
)
from tacit.runtime.server import ServerHandle
from tests.client.canary import pieces_found
from tests.client.served import BOUND, ROWS, RecordingProxy, clear_answer, compile_squared

Kind = Literal["http", "grpc"]
KINDS: tuple[Kind, ...] = ("http", "grpc")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    compile_squared(root / "squared" / "1")
    return root


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[ServerHandle]:
    with ServerHandle(repository) as running:
        yield running


@pytest.fixture(scope="module")
def url(server: ServerHandle) -> str:
    return f"http://127.0.0.1:{server.ports.http}"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home") / "keys"


@pytest.fixture
def client(url: str, home: Path) -> Iterator[Client]:
    with Client(url, key_dir=home, allow_insecure=True, timeout=60) as made:
        yield made


@pytest.mark.parametrize("plan", ["latency", "batch"])
@pytest.mark.parametrize("rows", [1, 3, 70])
def test_encrypted_predictions_equal_the_clear_model(client: Client, plan: str, rows: int) -> None:
    found = client.predict("squared", ROWS[:rows], plan=plan)
    assert found.shape == (rows, 3)
    assert np.abs(found - clear_answer(ROWS[:rows])).max() < BOUND
    assert client.last_timings.plan == plan
    assert client.last_timings.rows == rows


def test_grpc_gives_the_same_answer(server: ServerHandle, url: str, home: Path) -> None:
    with Client(
        url,
        key_dir=home,
        allow_insecure=True,
        transport="grpc",
        grpc_url=f"127.0.0.1:{server.ports.grpc}",
    ) as client:
        found = client.predict("squared", ROWS[:2])
    assert np.abs(found - clear_answer(ROWS[:2])).max() < BOUND
    assert client.last_timings.server_ms["evaluate"] > 0


def test_many_evaluations_are_cut_into_several_requests(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tacit.client.rows._REQUEST_EVALUATIONS", 1)
    rows = ROWS[:600]
    found = client.predict("squared", rows, plan="latency")
    assert client.last_timings.requests == client.last_timings.evaluations > 1
    assert np.abs(found - clear_answer(rows)).max() < BOUND


def test_inputs_may_be_lists_dicts_and_integers(client: Client) -> None:
    rows = [[1, 0, -1, 1, 0, 1]]
    by_name = client.predict_all("squared", {"x": rows})
    assert list(by_name) == ["y"]
    assert np.abs(by_name["y"] - clear_answer(np.asarray(rows, float))).max() < BOUND
    assert np.abs(client.predict("squared", rows) - by_name["y"]).max() < BOUND


def test_asyncio_predictions_run_side_by_side(url: str, home: Path) -> None:
    async def ask() -> list[Array]:
        async with AsyncClient(url, key_dir=home, allow_insecure=True) as client:
            assert [m.name for m in await client.models()] == ["squared"]
            asked = [client.predict("squared", ROWS[i : i + 1]) for i in range(3)]
            return await asyncio.gather(*asked)

    for index, found in enumerate(asyncio.run(ask())):
        assert np.abs(found - clear_answer(ROWS[index : index + 1])).max() < BOUND


def test_the_top_level_names_are_the_clients(url: str) -> None:
    assert tacit.Client is Client
    assert tacit.AsyncClient is AsyncClient


def test_models_and_signature_are_listed(client: Client) -> None:
    assert [(m.name, m.version, m.state) for m in client.models()] == [("squared", "1", "READY")]
    assert client.signature("squared").model_outputs == ("y",)


class TestKeys:
    def test_keys_are_made_and_uploaded_once(self, url: str, tmp_path: Path) -> None:
        stages: list[str] = []
        for _ in range(2):
            with Client(
                url,
                key_dir=tmp_path,
                allow_insecure=True,
                progress=lambda stage, done, total: stages.append(stage),
            ) as client:
                client.predict("squared", ROWS[:1])
                first = client.last_timings.uploaded_bytes
                client.predict("squared", ROWS[:1])
                assert client.last_timings.uploaded_bytes == 0
        assert first == 0
        count = len(client.keys_for("squared").facts.frames)
        assert stages.count("keys") == count + 1
        assert "upload" in stages

    def test_keys_the_server_lost_are_uploaded_again_in_the_same_call(
        self, client: Client, url: str
    ) -> None:
        client.predict("squared", ROWS[:1])
        keys = client.keys_for("squared")
        with Service(url) as service:
            service.delete_keys(keys.key_id)
        found = client.predict("squared", ROWS[:1])
        assert np.abs(found - clear_answer(ROWS[:1])).max() < BOUND
        assert client.last_timings.uploaded_bytes == keys.facts.key_bytes

    def test_a_broken_upload_goes_on_with_the_missing_frames(
        self, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sent: list[str] = []
        original = Service.upload_frame

        def unreliable(
            self: Service, key_id: str, frame: FrameEntry, path: Path, on_bytes: object
        ) -> None:
            sent.append(frame.sha256)
            if len(sent) == 2:
                raise ServiceError("the connection broke")
            original(self, key_id, frame, path, on_bytes)  # type: ignore[arg-type]

        monkeypatch.setattr(Service, "upload_frame", unreliable)
        monkeypatch.setattr("tacit.client.upload._PAUSE_SECONDS", 0.0)
        with Client(url, key_dir=tmp_path, allow_insecure=True) as client:
            client.upload_keys("squared")
            frames = [entry.sha256 for entry in client.keys_for("squared").facts.frames]
        assert len(frames) > 2
        assert sent == [*frames[:2], *frames[1:]]

    def test_keys_that_are_too_old_are_replaced(self, url: str, tmp_path: Path) -> None:
        with Client(url, key_dir=tmp_path, allow_insecure=True) as client:
            old = client.ring.make(client.signature("squared"), ttl=0.01)
            time.sleep(0.02)
            found = client.predict("squared", ROWS[:1])
            assert client.keys_for("squared").key_id != old.key_id
        assert np.abs(found - clear_answer(ROWS[:1])).max() < BOUND

    def test_keys_the_server_calls_expired_are_replaced_once(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = client.keys_for("squared").key_id
        transport = client._transport
        refused: list[str] = []

        class Retired:
            def infer(self, question: Question) -> Reply:
                if not refused:
                    refused.append(question.key_id)
                    raise ExpiredKeyError("retired")
                return transport.infer(question)

        monkeypatch.setattr(client, "_transport", Retired())
        found = client.predict("squared", ROWS[:1])
        assert np.abs(found - clear_answer(ROWS[:1])).max() < BOUND
        assert refused == [before]
        assert client.keys_for("squared").key_id != before

    def test_given_keys_must_be_the_models(self, url: str, tmp_path: Path, client: Client) -> None:
        keys = client.keys_for("squared")
        with Client(url, key_dir=tmp_path, keys=keys, allow_insecure=True) as other:
            found = other.predict("squared", ROWS[:1])
            assert other.keys_for("squared") is keys
        assert np.abs(found - clear_answer(ROWS[:1])).max() < BOUND
        assert not list(tmp_path.glob("*/secret.key"))

    def test_parameters_below_128_bits_are_refused(self, url: str, tmp_path: Path) -> None:
        with Client(url, key_dir=tmp_path) as client, pytest.raises(SecurityError):
            client.predict("squared", ROWS[:1])
        assert not list(tmp_path.glob("*/secret.key"))

    def test_no_byte_on_the_wire_belongs_to_the_secret_key(
        self, server: ServerHandle, tmp_path: Path
    ) -> None:
        with RecordingProxy(server.ports.http) as proxy:
            place = f"http://127.0.0.1:{proxy.port}"
            with Client(place, key_dir=tmp_path, allow_insecure=True) as client:
                client.predict("squared", ROWS[:2])
                keys = client.keys_for("squared")
        sent = proxy.sent
        assert len(sent) > keys.facts.key_bytes
        frame = keys.folder.file(keys.facts.frames[0]).read_bytes()
        assert frame[1000:1016] in sent
        assert not pieces_found(keys, sent)


class TestMessages:
    def test_a_wrong_shape_names_the_right_one(self, client: Client) -> None:
        with pytest.raises(InputShapeError, match=r"expected shape \(rows, 6\), got \(1, 5\)"):
            client.predict("squared", ROWS[:1, :5])

    def test_a_row_without_its_axis_is_refused(self, client: Client) -> None:
        with pytest.raises(InputShapeError, match=r"\(rows, 6\), got \(6,\)"):
            client.predict("squared", ROWS[0])

    @pytest.mark.parametrize("rows", [[["a"] * 6], [[None] * 6], [[1], [1, 2]], 3.0])
    def test_what_is_not_rows_of_numbers_is_refused(self, client: Client, rows: object) -> None:
        with pytest.raises(InputShapeError):
            client.predict("squared", rows)  # type: ignore[arg-type]

    def test_a_missing_input_is_named(self, client: Client) -> None:
        with pytest.raises(InputShapeError, match="'x' is missing"):
            client.predict("squared", {"z": ROWS[:1]})

    def test_a_value_outside_the_range_is_refused_or_clipped(
        self, client: Client, url: str, home: Path
    ) -> None:
        rows = ROWS[:2].copy()
        rows[1, 2] = 50.0
        with pytest.raises(InputRangeError, match="row 1, element 2"):
            client.predict("squared", rows)
        with Client(url, key_dir=home, allow_insecure=True, clip=True) as clipping:
            found = clipping.predict("squared", rows)
        assert np.abs(found[:1] - clear_answer(rows[:1])).max() < BOUND
        assert np.all(found[1] < clear_answer(rows[1:]).max())

    def test_an_unknown_model_and_version_are_named(self, client: Client) -> None:
        with pytest.raises(UnknownModelError, match="nothing"):
            client.predict("nothing", ROWS[:1])
        with pytest.raises(UnknownModelError, match="7"):
            client.predict("squared", ROWS[:1], version="7")

    def test_an_unknown_plan_lists_the_plans(self, client: Client) -> None:
        with pytest.raises(UserError, match=r"'fast'.*latency.*batch"):
            client.predict("squared", ROWS[:1], plan="fast")

    @pytest.mark.parametrize("transport", KINDS)
    def test_a_server_that_is_not_there(self, tmp_path: Path, transport: Kind) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        place = f"http://127.0.0.1:{port}"
        with (
            Client(place, key_dir=tmp_path, transport=transport) as client,
            pytest.raises(ServiceError, match="is the server running"),
        ):
            client.predict("squared", ROWS[:1])

    @pytest.mark.parametrize("transport", KINDS)
    def test_a_server_that_vanishes_after_the_signature(
        self, url: str, home: Path, transport: Kind
    ) -> None:
        with Client(
            url,
            key_dir=home,
            allow_insecure=True,
            transport=transport,
            grpc_url="127.0.0.1:9",
        ) as client:
            client.upload_keys("squared")
            if transport == "http":
                object.__setattr__(client._transport, "url", "http://127.0.0.1:9")
            with pytest.raises(ServiceError, match="is the server running"):
                client.predict("squared", ROWS[:1])

    def test_a_server_that_never_answers(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            with (
                Client(f"http://127.0.0.1:{port}", key_dir=tmp_path, timeout=0.3) as client,
                pytest.raises(ServiceError, match=r"within 0\.3 s"),
            ):
                client.predict("squared", ROWS[:1])

    @pytest.mark.parametrize("transport", KINDS)
    def test_an_answer_that_takes_too_long(self, url: str, home: Path, transport: Kind) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            with Client(
                url,
                key_dir=home,
                allow_insecure=True,
                timeout=5.0,
                transport=transport,
                grpc_url=f"127.0.0.1:{port}",
            ) as client:
                client.upload_keys("squared")
                if transport == "http":
                    object.__setattr__(client._transport, "url", f"http://127.0.0.1:{port}")
                with pytest.raises(ServiceError, match=r"within 5 s|is the server running"):
                    client.predict("squared", ROWS[:1])

    def test_a_server_that_is_something_else(self, tmp_path: Path) -> None:
        with _PlainServer() as place, Client(place, key_dir=tmp_path) as client:
            with pytest.raises(ServiceError, match="HTTP 501"):
                client.models()
            with pytest.raises(ServiceError, match="is it a Tacit server"):
                client.predict("squared", ROWS[:1])

    @pytest.mark.parametrize(
        "url",
        ["localhost:8000", "ftp://x", "http://", "http://u@h", "http://h:99999", "http://h?x=1"],
    )
    def test_what_is_not_a_url_is_refused(self, url: str) -> None:
        with pytest.raises(UserError, match="expected http"):
            Client(url)

    def test_every_message_is_one_line(self, client: Client) -> None:
        for name, rows in (
            ("nothing", ROWS[:1]),
            ("squared", ROWS[:1, :5]),
            ("squared", ROWS[:1] * 100),
        ):
            with pytest.raises(TacitError) as caught:
                client.predict(name, rows)
            assert "\n" not in str(caught.value)
            assert not re.match(r"[a-z_]+: ", str(caught.value))


def test_a_token_is_sent_over_both_transports(repository: Path, tmp_path: Path) -> None:
    from tacit.runtime.options import ServerOptions

    tokens = tmp_path / "tokens"
    tokens.write_text("clinic s3cret-token-of-the-clinic\n")
    tokens.chmod(0o600)
    options = ServerOptions(token_file=tokens, key_directory=tmp_path / "server-keys")
    with ServerHandle(repository, options) as server:
        url, grpc = f"http://127.0.0.1:{server.ports.http}", f"127.0.0.1:{server.ports.grpc}"
        for transport in KINDS:
            with Client(
                url,
                token="s3cret-token-of-the-clinic",
                key_dir=tmp_path / "keys",
                allow_insecure=True,
                transport=transport,
                grpc_url=grpc,
            ) as client:
                found = client.predict("squared", ROWS[:1])
            assert np.abs(found - clear_answer(ROWS[:1])).max() < BOUND
            assert "s3cret" not in repr(client) + repr(client._transport)
        with (
            Client(url, key_dir=tmp_path / "keys") as client,
            pytest.raises(ServiceError, match="pass the access token"),
        ):
            client.predict("squared", ROWS[:1])


def test_a_model_that_was_compiled_again_is_noticed(
    repository: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "models"
    shutil.copytree(repository / "squared", root / "squared")
    with ServerHandle(root) as server:
        url = f"http://127.0.0.1:{server.ports.http}"
        with Client(url, key_dir=tmp_path / "keys", allow_insecure=True) as client:
            client.predict("squared", ROWS[:1])
            pins = json.loads((tmp_path / "keys" / "pins.json").read_text())
            assert list(pins.values()) == [client.signature("squared").digest]
        compile_squared(root / "squared" / "1", ROWS * 2)
        server.repository.load("squared")
        with (
            caplog.at_level(logging.WARNING, "tacit.client"),
            Client(url, key_dir=tmp_path / "keys", allow_insecure=True) as client,
        ):
            found = client.predict("squared", 1.5 * ROWS[:1])
            client.predict("squared", 1.5 * ROWS[:1])
    assert np.abs(found - clear_answer(1.5 * ROWS[:1])).max() < 4 * BOUND
    (said,) = [record for record in caplog.records if record.name == "tacit.client"]
    assert "compiled again" in said.getMessage()


def test_a_model_compiled_again_under_a_live_client_is_answered_with_its_new_signature(
    repository: Path, tmp_path: Path
) -> None:
    root = tmp_path / "models"
    shutil.copytree(repository / "squared", root / "squared")
    with ServerHandle(root) as server:
        url = f"http://127.0.0.1:{server.ports.http}"
        with Client(url, key_dir=tmp_path / "keys", allow_insecure=True) as client:
            before = client.signature("squared").digest
            client.predict("squared", ROWS[:1])
            compile_squared(root / "squared" / "1", ROWS * 2)
            server.repository.load("squared")
            found = client.predict("squared", ROWS[:1])
            assert client.signature("squared").digest != before
    assert np.abs(found - clear_answer(ROWS[:1])).max() < 4 * BOUND


def test_keys_for_another_model_are_refused_before_anything_is_sent(
    client: Client, url: str, tmp_path: Path
) -> None:
    from tacit.client.keys import KeyPair

    params = client.signature("squared").params
    other = KeyPair.generate(params, (1,), False, tmp_path, allow_insecure=True)
    with (
        Client(url, key_dir=tmp_path, keys=other, allow_insecure=True) as wrong,
        pytest.raises(ParameterMismatchError, match="make keys from its signature"),
    ):
        wrong.predict("squared", ROWS[:1])


class _PlainServer:
    """Answers GET with JSON that is not ours, and nothing else."""

    def __enter__(self) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b'{"hello": "world"}')

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def test_two_clients_that_start_together_make_one_key_pair(url: str, tmp_path: Path) -> None:
    clients = [Client(url, key_dir=tmp_path, allow_insecure=True) for _ in range(2)]
    answers: dict[int, Array] = {}

    def ask(index: int) -> None:
        answers[index] = clients[index].predict("squared", ROWS[index : index + 1])

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in range(2):
        assert np.abs(answers[index] - clear_answer(ROWS[index : index + 1])).max() < BOUND
    assert len({client.keys_for("squared").key_id for client in clients}) == 1
    for client in clients:
        client.close()


def test_frames_that_vanished_are_named(
    client: Client, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = client.keys_for("squared")
    with Service(url) as service:
        service.delete_keys(keys.key_id)
    monkeypatch.setattr(type(keys.folder), "file", lambda self, entry: Path("gone"))
    with pytest.raises(KeyFileError, match="make new keys"):
        client.predict("squared", ROWS[:1])
