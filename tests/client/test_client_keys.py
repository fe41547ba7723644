"""Keys as the client makes, keeps, uploads and renews them."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tacit.client.client import Client
from tacit.client.frames import FrameEntry
from tacit.client.rows import Array
from tacit.client.service import Service
from tacit.client.transport import Question, Reply
from tacit.errors import (
    ExpiredKeyError,
    KeyFileError,
    ParameterMismatchError,
    SecurityError,
    ServiceError,
)
from tacit.runtime.server import ServerHandle
from tests.client.canary import pieces_found
from tests.client.served import BOUND, ROWS, RecordingProxy, clear_answer


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
