"""Uploading, asking for and deleting evaluation keys over HTTP."""

import errno
import hashlib
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tacit import wire
from tacit.runtime.keystore import KeyLimits
from tacit.runtime.options import ServerOptions
from tacit.runtime.server import ServerHandle
from tests.runtime.key_sets import KeySet, random_key_set, random_limbs
from tests.runtime.models import TINY_INSECURE, arithmetic_artifact, write_repository

SIGNATURE = arithmetic_artifact().signature
TOKENS = {"clinic": "clinic-token-0123456789", "lab": "lab-token-0123456789"}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    return write_repository(root, arithmetic=arithmetic_artifact())


@pytest.fixture
def options(tmp_path: Path) -> ServerOptions:
    return ServerOptions(key_directory=tmp_path / "keys")


@pytest.fixture
def handle(repository: Path, options: ServerOptions) -> Iterator[ServerHandle]:
    with ServerHandle(repository, options) as running:
        yield running


@pytest.fixture
def client(handle: ServerHandle) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{handle.ports.http}") as client:
        yield client


@pytest.fixture(scope="module")
def keys() -> KeySet:
    return random_key_set(SIGNATURE, 1)


def refused(response: httpx.Response, status: int, code: str) -> bool:
    assert response.json()["error"].startswith(f"{code}: ")
    return response.status_code == status and response.json()["code"] == code


def test_a_key_set_is_declared_uploaded_and_complete(client: httpx.Client, keys: KeySet) -> None:
    assert keys.declare(client).json()["missing"] == list(keys.frames)
    assert client.head(f"/v1/keys/{keys.key_id}").status_code == 404
    answers = [keys.put(client, sha256).json()["complete"] for sha256 in keys.frames]
    assert answers == [False, True]
    assert client.head(f"/v1/keys/{keys.key_id}").status_code == 200
    assert keys.declare(client).json()["missing"] == []


def test_a_broken_upload_goes_on_where_it_stopped(
    repository: Path, options: ServerOptions, keys: KeySet
) -> None:
    first, second = keys.frames
    with ServerHandle(repository, options) as before:
        url = f"http://127.0.0.1:{before.ports.http}"
        with httpx.Client(base_url=url) as client:
            keys.declare(client)
            keys.put(client, first)
    with ServerHandle(repository, options) as after:
        url = f"http://127.0.0.1:{after.ports.http}"
        with httpx.Client(base_url=url) as client:
            assert keys.declare(client).json()["missing"] == [second]
            assert keys.put(client, second).json()["complete"]


def test_files_and_folders_are_open_to_their_owner_only(
    client: httpx.Client, keys: KeySet, tmp_path: Path
) -> None:
    keys.declare(client)
    for sha256 in keys.frames:
        keys.put(client, sha256)
    found = [tmp_path / "keys", *(tmp_path / "keys").rglob("*")]
    modes = {(path.is_file(), stat.S_IMODE(path.stat().st_mode)) for path in found}
    assert len([path for path in found if path.is_file()]) == len(keys.frames) + 2
    assert modes == {(True, 0o600), (False, 0o700)}


def test_a_damaged_frame_is_refused_and_leaves_nothing_behind(
    client: httpx.Client, keys: KeySet, tmp_path: Path
) -> None:
    sha256, frame = next(iter(keys.frames.items()))
    keys.declare(client)
    damaged = bytearray(frame)
    damaged[5000] ^= 1
    assert refused(keys.put(client, sha256, bytes(damaged)), 422, "wire_checksum")
    assert refused(keys.put(client, sha256, frame[:-1]), 400, "wire_truncated")
    assert refused(keys.put(client, sha256, frame + b"x"), 413, "wire_oversized")
    assert not [p for p in (tmp_path / "keys").rglob("*") if p.suffix == ".part"]
    assert keys.declare(client).json()["missing"] == list(keys.frames)


def test_a_residue_that_is_too_large_is_found_before_the_frame_is_kept(
    client: httpx.Client,
) -> None:
    params = TINY_INSECURE
    limbs = random_limbs(SIGNATURE, 7)
    limbs[0, 0, 1, 3] = params.moduli[1]
    moduli = (params.moduli[0], params.moduli[1] + 1, *params.moduli[2:])
    key = wire.EvaluationKey(limbs, wire.KeyKind.RELINEARIZATION, 0, params.digest)
    frame = wire.encode_evaluation_key(key, moduli, params.special_moduli, wire.Packing.RAW)
    good = random_key_set(SIGNATURE, 2, packing=wire.Packing.RAW).frames
    sha256 = hashlib.sha256(frame).hexdigest()
    bad = KeySet(SIGNATURE, {sha256: frame, **dict(list(good.items())[1:])})
    assert bad.declare(client).status_code == 200
    assert refused(bad.put(client, sha256), 422, "wire_residue")
    assert sha256 in bad.declare(client).json()["missing"]


def test_nobody_can_store_other_keys_under_a_key_id(client: httpx.Client, keys: KeySet) -> None:
    other = random_key_set(SIGNATURE, 3)
    response = client.post(f"/v1/keys/{keys.key_id}", json=other.declaration)
    assert refused(response, 409, "wire_key")


def test_two_keys_for_the_same_rotation_are_not_a_complete_set(client: httpx.Client) -> None:
    element = pow(5, 3, 2 * TINY_INSECURE.n)
    doubled = random_key_set(SIGNATURE, 4, [element, element])
    assert doubled.declare(client).status_code == 200
    first, second = doubled.frames
    doubled.put(client, first)
    assert refused(doubled.put(client, second), 409, "wire_key")
    assert client.get(f"/v1/keys/{doubled.key_id}").status_code == 404


def test_a_rotation_nobody_needs_is_refused(client: httpx.Client) -> None:
    strange = random_key_set(SIGNATURE, 5, [0, 5])
    strange.declare(client)
    assert refused(strange.put(client, list(strange.frames)[1]), 409, "wire_key")


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"params_digest": "00" * 32}, 409, "wire_parameters"),
        ({"key_config": "00" * 32}, 410, "key_expired"),
        ({"frames": []}, 400, "bad_request"),
        ({"frames": [{"sha256": "00", "bytes": 5}]}, 400, "bad_request"),
        ({"frames": "all"}, 400, "bad_request"),
        ({"params_digest": None}, 400, "bad_request"),
    ],
)
def test_wrong_declarations_are_refused(
    client: httpx.Client, keys: KeySet, change: dict[str, object], status: int, code: str
) -> None:
    response = client.post(f"/v1/keys/{keys.key_id}", json=keys.declaration | change)
    assert refused(response, status, code)


def test_a_declared_length_that_no_key_has_is_refused(client: httpx.Client, keys: KeySet) -> None:
    frames = [{"sha256": sha256, "bytes": 1 << 40} for sha256 in keys.frames]
    response = client.post(f"/v1/keys/{keys.key_id}", json=keys.declaration | {"frames": frames})
    assert refused(response, 413, "wire_oversized")


def test_frames_that_were_not_declared_are_refused_before_they_are_read(
    client: httpx.Client, keys: KeySet
) -> None:
    assert refused(keys.put(client, next(iter(keys.frames))), 404, "key_unknown")
    keys.declare(client)
    assert refused(
        client.put(f"/v1/keys/{keys.key_id}/frames/{'00' * 32}", content=b"x"), 404, "key_unknown"
    )


def test_an_oversized_frame_is_refused_by_its_length_alone(
    client: httpx.Client, keys: KeySet, handle: ServerHandle
) -> None:
    keys.declare(client)
    path = f"/v1/keys/{keys.key_id}/frames/{next(iter(keys.frames))}"
    head = f"PUT {path} HTTP/1.1\r\nHost: tacit\r\nContent-Length: {1 << 40}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", handle.ports.http), 10) as connection:
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_deleted_keys_are_gone(client: httpx.Client, keys: KeySet, tmp_path: Path) -> None:
    keys.declare(client)
    for sha256 in keys.frames:
        keys.put(client, sha256)
    assert client.delete(f"/v1/keys/{keys.key_id}").json()["deleted"]
    assert client.head(f"/v1/keys/{keys.key_id}").status_code == 404
    assert refused(client.delete(f"/v1/keys/{keys.key_id}"), 404, "key_unknown")
    assert not list((tmp_path / "keys").glob("*/*"))


def test_a_retired_configuration_answers_410(
    client: httpx.Client, keys: KeySet, handle: ServerHandle
) -> None:
    keys.declare(client)
    handle.repository.unload("arithmetic")
    try:
        assert client.head(f"/v1/keys/{keys.key_id}").status_code == 410
        assert refused(client.get(f"/v1/keys/{keys.key_id}"), 410, "key_expired")
        assert refused(keys.declare(client), 410, "key_expired")
    finally:
        handle.repository.load("arithmetic")


@pytest.mark.parametrize("failing", [errno.ENOSPC, errno.EIO])
def test_a_full_or_failing_disk_is_a_typed_error_and_the_upload_can_be_repeated(
    client: httpx.Client, keys: KeySet, failing: int
) -> None:
    keys.declare(client)
    sha256 = next(iter(keys.frames))

    def fail(descriptor: int, view: object) -> int:
        raise OSError(failing, os.strerror(failing))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tacit.runtime.frame_upload.os.write", fail)
        response = keys.put(client, sha256)
    assert refused(response, 507, "storage_full")
    assert ("disk is full" in response.text) == (failing == errno.ENOSPC)
    assert keys.put(client, sha256).status_code == 200


def test_a_tenant_cannot_pass_its_quota(repository: Path, tmp_path: Path, keys: KeySet) -> None:
    limits = KeyLimits(tenant_bytes=sum(len(frame) for frame in keys.frames.values()) + 10)
    options = ServerOptions(key_directory=tmp_path / "keys", keys=limits)
    with ServerHandle(repository, options) as handle:
        url = f"http://127.0.0.1:{handle.ports.http}"
        with httpx.Client(base_url=url) as client:
            assert keys.declare(client).status_code == 200
            assert keys.declare(client).status_code == 200
            assert refused(random_key_set(SIGNATURE, 6).declare(client), 507, "storage_full")
            client.delete(f"/v1/keys/{keys.key_id}")
            assert random_key_set(SIGNATURE, 6).declare(client).status_code == 200


def test_tenants_do_not_see_each_others_keys(
    repository: Path, tmp_path: Path, keys: KeySet
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("".join(f"{name} {token}\n" for name, token in TOKENS.items()))
    tokens.chmod(0o600)
    options = ServerOptions(key_directory=tmp_path / "keys", token_file=tokens)
    with ServerHandle(repository, options) as handle:
        url = f"http://127.0.0.1:{handle.ports.http}"

        def client_of(name: str) -> httpx.Client:
            return httpx.Client(base_url=url, headers={"authorization": f"Bearer {TOKENS[name]}"})

        with client_of("clinic") as clinic, client_of("lab") as lab, httpx.Client() as nobody:
            keys.declare(clinic)
            for sha256 in keys.frames:
                keys.put(clinic, sha256)
            assert clinic.head(f"/v1/keys/{keys.key_id}").status_code == 200
            assert lab.head(f"/v1/keys/{keys.key_id}").status_code == 404
            assert refused(nobody.get(f"{url}/v1/keys/{keys.key_id}"), 401, "unauthorized")
            assert refused(nobody.get(f"{url}/v2/models/arithmetic"), 401, "unauthorized")
            assert nobody.get(f"{url}/v2/health/live").status_code == 200


def test_keys_that_are_not_used_expire(repository: Path, tmp_path: Path, keys: KeySet) -> None:
    limits = KeyLimits(seconds_to_live=60.0)
    options = ServerOptions(key_directory=tmp_path / "keys", keys=limits)
    with ServerHandle(repository, options) as handle:
        with httpx.Client(base_url=f"http://127.0.0.1:{handle.ports.http}") as client:
            keys.declare(client)
        assert handle.server.keys.expire(time.time() + 59) == 0
        assert handle.server.keys.expire(time.time() + 61) == 1
        assert handle.server.keys.stored_bytes == 0


def test_a_damaged_manifest_does_not_stop_the_server(
    repository: Path, options: ServerOptions, tmp_path: Path, keys: KeySet
) -> None:
    folder = tmp_path / "keys" / "public" / keys.key_id
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{")
    with ServerHandle(repository, options) as handle:
        url = f"http://127.0.0.1:{handle.ports.http}"
        with httpx.Client(base_url=url) as client:
            assert client.head(f"/v1/keys/{keys.key_id}").status_code == 404
            assert keys.declare(client).json()["missing"] == list(keys.frames)
