from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.peers import install
from bench.peers.install import Peer, PeerUnavailableError, ensure, find_python, main

THIS = f"{sys.version_info[0]}.{sys.version_info[1]}"


def make_peer(**changes: object) -> Peer:
    fields: dict[str, object] = {
        "name": "example",
        "worker": "example",
        "pythons": (THIS,),
        "requirements": (("--no-index", "no-such-package-of-tacit"),),
        "check": "import no_such_package_of_tacit",
        "disk": "0 GB",
    }
    return Peer(**{**fields, **changes})  # type: ignore[arg-type]


def test_the_running_version_of_python_is_found() -> None:
    assert find_python([THIS]) is not None


def test_a_version_that_nobody_has_is_not_found() -> None:
    assert find_python(["1.4"]) is None


def test_a_peer_without_its_python_says_which_it_needs() -> None:
    with pytest.raises(PeerUnavailableError, match=r"needs Python 1\.4"):
        ensure(make_peer(pythons=("1.4",)), say=print)


def test_a_package_that_pip_cannot_find_makes_the_peer_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "ENVIRONMENTS", tmp_path)
    said: list[str] = []
    with pytest.raises(PeerUnavailableError, match="no-such-package-of-tacit"):
        ensure(make_peer(), say=said.append)
    assert said[0].startswith("installing example with ")


def test_an_environment_that_works_is_used_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "ENVIRONMENTS", tmp_path)
    interpreter = tmp_path / "example" / "bin" / "python"
    interpreter.parent.mkdir(parents=True)
    interpreter.symlink_to(sys.executable)
    assert ensure(make_peer(check="import json"), say=print) == interpreter


def test_an_unknown_name_on_the_command_line_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["seal"]) == 1
    assert "expected one of tenseal" in capsys.readouterr().out
