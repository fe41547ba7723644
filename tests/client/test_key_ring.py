"""The key directory."""

import threading
from pathlib import Path

import pytest

from tacit.client.key_ring import KeyRing, default_directory
from tacit.client.keys import KeyPair
from tacit.errors import KeyFileError
from tacit.signature import Signature
from tests.client.tiny import tiny_signature


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return KeyRing(tmp_path / "ring", allow_insecure=True)


def test_keys_that_were_made_are_found(ring: KeyRing, signature: Signature) -> None:
    assert ring.find(signature) is None
    made = ring.make(signature)
    found = ring.find(signature)
    assert found is not None
    assert found.key_id == made.key_id
    assert not made.folder.missing(made.facts.frames)
    made.check(signature)


def test_nothing_temporary_is_left_and_everything_is_private(
    ring: KeyRing, signature: Signature
) -> None:
    ring.make(signature)
    ring.make(signature)
    (folder,) = [path for path in ring.directory.iterdir() if path.is_dir()]
    assert folder.name == signature.key_config
    for path in [ring.directory, *ring.directory.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0


def test_keys_made_again_replace_the_old_ones(ring: KeyRing, signature: Signature) -> None:
    first, second = ring.make(signature), ring.make(signature)
    found = ring.find(signature)
    assert found is not None
    assert first.key_id != second.key_id == found.key_id
    assert first.folder.missing(first.facts.frames)


def test_a_failure_leaves_the_old_keys(
    ring: KeyRing, signature: Signature, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ring.make(signature)

    def broken(self: KeyPair, path: Path, passphrase: str | None = None) -> None:
        raise KeyFileError("no space left")

    monkeypatch.setattr(KeyPair, "save", broken)
    with pytest.raises(KeyFileError, match="no space"):
        ring.make(signature)
    found = ring.find(signature)
    assert found is not None
    assert found.key_id == made.key_id
    assert len([path for path in ring.directory.iterdir() if path.is_dir()]) == 1


def test_entries_are_found_by_the_beginning_of_either_name(ring: KeyRing) -> None:
    first = tiny_signature(rotations=(1,))
    second = tiny_signature(rotations=(2,), relinearization=False)
    made = ring.make(first)
    ring.make(second)
    assert {entry.key_config for entry in ring.entries()} == {first.key_config, second.key_config}
    assert ring.entry(first.key_config[:12]).facts == made.facts
    assert ring.entry(made.key_id[:12]).key_config == first.key_config
    for prefix in ("", "zz"):
        with pytest.raises(KeyFileError, match="tacit keys list"):
            ring.entry(prefix)


def test_deleted_keys_are_gone(ring: KeyRing, signature: Signature) -> None:
    ring.make(signature)
    ring.delete(signature.key_config)
    assert ring.find(signature) is None
    assert ring.entries() == []
    ring.delete(signature.key_config)


def test_a_passphrase_protects_every_key(tmp_path: Path, signature: Signature) -> None:
    made = KeyRing(tmp_path, "open", allow_insecure=True).make(signature)
    with pytest.raises(KeyFileError, match="wrong passphrase"):
        KeyRing(tmp_path, "shut", allow_insecure=True).find(signature)
    (entry,) = KeyRing(tmp_path).entries()
    assert entry.protected
    assert entry.facts.key_id == made.key_id
    assert "open" not in repr(KeyRing(tmp_path, "open"))


def test_pins_remember_the_first_digest_and_then_the_latest(ring: KeyRing) -> None:
    assert ring.pin("a", "1") == ""
    assert ring.pin("a", "1") == "1"
    assert ring.pin("b", "9") == ""
    assert ring.pin("a", "2") == "1"
    assert KeyRing(ring.directory).pin("a", "2") == "2"


def test_damaged_pins_are_forgotten(ring: KeyRing) -> None:
    ring.pin("a", "1")
    (ring.directory / "pins.json").write_text("{")
    assert ring.pin("a", "2") == ""


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path, signature: Signature) -> None:
    (tmp_path / "file").write_text("")
    ring = KeyRing(tmp_path / "file" / "ring", allow_insecure=True)
    for action in (
        lambda: ring.make(signature),
        lambda: ring.pin("a", "1"),
        lambda: ring.alone().__enter__(),
    ):
        with pytest.raises(KeyFileError, match="cannot write to"):
            action()


def test_one_at_a_time_holds_the_directory(ring: KeyRing) -> None:
    order: list[str] = []

    def second() -> None:
        with KeyRing(ring.directory).alone():
            order.append("second")

    with ring.alone():
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_keys_are_kept_in_the_home_directory_by_default() -> None:
    assert default_directory() == Path.home() / ".local" / "share" / "tacit"
