"""One server at a time works in a directory, and a killed one leaves it free."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tacit.directory_lock import DirectoryLock
from tacit.errors import DirectoryInUseError
from tacit.runtime.options import ServerOptions
from tacit.runtime.party_store import PartyLimits, PartyStore
from tacit.runtime.server import ServerHandle
from tacit.runtime.training_store import TrainingStore

# Takes a directory, starts a child that outlives it, and waits to be killed.
HOLDER = """
import subprocess, sys
from pathlib import Path
from tacit.runtime.training_store import TrainingStore
store = TrainingStore(Path(sys.argv[1]))
child = subprocess.Popen(["sleep", "600"], close_fds=False)
print(child.pid, flush=True)
child.wait()
"""


def open_trainings(folder: Path) -> Callable[[], None]:
    return TrainingStore(folder).close


def open_sessions(folder: Path) -> Callable[[], None]:
    store = PartyStore(folder, PartyLimits())
    store.hold()
    return store.close


@pytest.mark.parametrize("take", [open_trainings, open_sessions])
def test_a_second_server_is_refused_and_told_which_has_the_directory(
    take: Callable[[Path], Callable[[], None]], tmp_path: Path
) -> None:
    close = take(tmp_path)
    left = tmp_path / "jobs" / "x.part"
    left.parent.mkdir(exist_ok=True)
    left.touch()
    with pytest.raises(DirectoryInUseError, match=rf"in use by process {os.getpid()} on .*stop"):
        take(tmp_path)
    assert left.exists()  # another server's upload is not swept away
    close()
    take(tmp_path)()


def test_kill_9_leaves_the_directory_free_although_children_live(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    ) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        try:
            with pytest.raises(DirectoryInUseError, match=f"process {holder.pid} on"):
                TrainingStore(tmp_path)
            holder.kill()
            holder.wait()
            os.kill(child, 0)  # it lives
            TrainingStore(tmp_path).close()
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_directory_is_let_go_once(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    lock.release()
    other = DirectoryLock(tmp_path)
    lock.release()
    with pytest.raises(DirectoryInUseError):
        DirectoryLock(tmp_path)
    other.release()


@pytest.mark.parametrize("shared", ["trainings", "sessions"])
def test_the_first_server_goes_on_when_a_second_is_refused(shared: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    folder = tmp_path / "shared"
    options = (
        ServerOptions(training_directory=folder)
        if shared == "trainings"
        else ServerOptions(party_directory=folder)
    )
    with ServerHandle(tmp_path / "one", options) as first:
        with pytest.raises(DirectoryInUseError):
            ServerHandle(tmp_path / "two", options).start()
        assert first.server.status()["training_jobs"]
    with ServerHandle(tmp_path / "two", options):
        pass
