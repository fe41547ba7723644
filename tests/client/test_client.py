"""The client against a real server with a worker process, tiny insecure parameters."""

import asyncio
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

import tacit
from tacit.client.async_client import AsyncClient
from tacit.client.client import Client
from tacit.client.rows import Array
from tacit.errors import (
    ServiceError,
)
from tacit.runtime.server import ServerHandle
from tests.client.served import (
    BOUND,
    KINDS,
    ROWS,
    clear_answer,
    compile_squared,
)


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


def test_a_token_is_sent_over_both_transports(repository: Path, tmp_path: Path) -> None:
    from tacit.runtime.options import ServerOptions

    tokens = tmp_path / "tokens"
    tokens.write_text("clinic s3cret-token-of-the-clinic\n")
    tokens.chmod(0o600)
    options = ServerOptions(
        token_file=tokens,
        key_directory=tmp_path / "server-keys",
        training_directory=tmp_path / "trainings",
        party_directory=tmp_path / "sessions",
    )
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
