"""Model repositories on disk."""

import shutil
from pathlib import Path

import pytest

from tacit.artifact import save
from tacit.errors import ArtifactError, UnknownModelError
from tacit.runtime.repository import Repository
from tests.runtime.models import TINY_INSECURE, arithmetic_artifact, echo_artifact

MODEL = echo_artifact(TINY_INSECURE)


def test_the_highest_version_answers_by_default(tmp_path: Path) -> None:
    for version in ("1", "2", "10"):
        save(MODEL, tmp_path / "heart" / version)
    repository = Repository(tmp_path)
    assert repository.find("heart").version == "10"
    assert repository.find("heart", "2").version == "2"
    assert repository.versions("heart") == ["1", "2", "10"]


def test_a_folder_may_be_an_artifact_itself(tmp_path: Path) -> None:
    save(MODEL, tmp_path / "models" / "heart")
    assert Repository(tmp_path / "models").find("heart").version == "1"
    assert Repository(tmp_path / "models" / "heart").find("echo").version == "1"


def test_a_damaged_artifact_is_reported_and_does_not_stop_the_others(tmp_path: Path) -> None:
    save(MODEL, tmp_path / "good" / "1")
    save(MODEL, tmp_path / "bad" / "1")
    (tmp_path / "bad" / "1" / "private" / "circuits.json").write_text("{}")
    repository = Repository(tmp_path)
    assert {(e.name, e.state) for e in repository.index()} == {
        ("good", "READY"),
        ("bad", "UNAVAILABLE"),
    }
    assert "checksum" in next(e.reason for e in repository.index() if e.name == "bad")
    assert repository.find("good").name == "good"
    with pytest.raises(ArtifactError, match="checksum"):
        repository.find("bad")


def test_unknown_models_and_versions_are_named(tmp_path: Path) -> None:
    save(MODEL, tmp_path / "heart" / "1")
    repository = Repository(tmp_path)
    with pytest.raises(UnknownModelError, match=r"this server has \['heart'\]"):
        repository.find("liver")
    with pytest.raises(UnknownModelError, match=r"it has \['1'\]"):
        repository.find("heart", "7")


def test_models_are_loaded_again_from_disk(tmp_path: Path) -> None:
    save(MODEL, tmp_path / "heart" / "1")
    repository = Repository(tmp_path)
    before = repository.find("heart").signature.key_config
    shutil.rmtree(tmp_path / "heart" / "1")
    save(arithmetic_artifact(), tmp_path / "heart" / "2")
    repository.load("heart")
    assert repository.versions("heart") == ["2"]
    assert repository.with_key_config(before) is None
    repository.unload("heart")
    assert [(e.name, e.state, e.reason) for e in repository.index()] == [
        ("heart", "UNAVAILABLE", "unloaded")
    ]
    with pytest.raises(UnknownModelError):
        repository.unload("heart")
    with pytest.raises(UnknownModelError):
        repository.load("liver")


def test_other_folders_are_not_models(tmp_path: Path) -> None:
    (tmp_path / ".tacit-keys" / "1").mkdir(parents=True)
    (tmp_path / "notes").mkdir()
    assert Repository(tmp_path).index() == []
    with pytest.raises(ArtifactError, match="not a directory"):
        Repository(tmp_path / "absent")
