"""The audit log's chain, and bearer tokens."""

from pathlib import Path

import pytest

from tacit.errors import DamagedInputError, KeyFileError, ReplayError
from tacit.runtime.audit import AuditLog, verify
from tacit.runtime.refusals import BadRequestError, UnauthorizedError
from tacit.runtime.replays import Replays
from tacit.runtime.tenants import PUBLIC, Tenants


def written(path: Path, count: int = 4) -> list[str]:
    log = AuditLog(path)
    for index in range(count):
        log.record("infer", {"tenant": "clinic", "shape": [index, 1], "outcome": "ok"})
    log.close()
    return path.read_text().splitlines()


def test_a_log_continues_its_chain_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    written(path)
    lines = written(path)
    assert len(lines) == 8
    assert verify(path) in lines[-1]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("tamper", ["change", "remove", "swap", "garbage"])
def test_any_change_breaks_the_chain(tmp_path: Path, tamper: str) -> None:
    path = tmp_path / "audit.jsonl"
    lines = written(path)
    match tamper:
        case "change":
            lines[1] = lines[1].replace("clinic", "office")
        case "remove":
            del lines[1]
        case "swap":
            lines[1], lines[2] = lines[2], lines[1]
        case "garbage":
            lines[1] = "[]"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DamagedInputError, match="line 2"):
        verify(path)
    with pytest.raises(DamagedInputError):
        AuditLog(path)


def token_file(tmp_path: Path, text: str, mode: int = 0o600) -> Path:
    path = tmp_path / "tokens"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_tokens_name_their_tenant(tmp_path: Path) -> None:
    text = "# two tenants\nclinic aaaaaaaaaaaaaaaaaaaa\nlab bbbbbbbbbbbbbbbbbbbb # trial\n"
    tenants = Tenants.read(token_file(tmp_path, text))
    assert tenants.authenticate("Bearer aaaaaaaaaaaaaaaaaaaa") == "clinic"
    assert tenants.authenticate("bearer bbbbbbbbbbbbbbbbbbbb") == "lab"
    for wrong in ("", "Bearer ", "Bearer aaaaaaaaaaaaaaaaaaa", "Basic aaaaaaaaaaaaaaaaaaaa"):
        with pytest.raises(UnauthorizedError):
            tenants.authenticate(wrong)
    assert Tenants({}).authenticate("anything") == PUBLIC


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [
        ("clinic aaaaaaaaaaaaaaaaaaaa\n", 0o644, "chmod 600"),
        ("clinic short\n", 0o600, "16"),
        ("../up aaaaaaaaaaaaaaaaaaaa\n", 0o600, "line 1"),
        ("clinic\n", 0o600, "line 1"),
        ("# nothing\n", 0o600, "no token"),
    ],
)
def test_bad_token_files_are_refused(tmp_path: Path, text: str, mode: int, message: str) -> None:
    with pytest.raises(KeyFileError, match=message):
        Tenants.read(token_file(tmp_path, text, mode))


def test_nonces_are_remembered_by_key_within_bounds() -> None:
    replays = Replays(nonces_per_key=3, keys=2)
    replays.claim("t", "a", "1")
    replays.claim("t", "b", "1")
    with pytest.raises(ReplayError):
        replays.claim("t", "a", "1")
    replays.forget("t", "a", "1")
    replays.claim("t", "a", "1")
    for nonce in "234":
        replays.claim("t", "a", nonce)
    replays.claim("t", "a", "1")  # pushed out by three newer ones
    replays.claim("t", "c", "1")
    replays.claim("t", "b", "1")  # the key used longest ago was forgotten
    for wrong in ("", "x" * 129):
        with pytest.raises(BadRequestError):
            replays.claim("t", "a", wrong)
