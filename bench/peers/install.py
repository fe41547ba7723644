"""Install peers, each in its own virtual environment: `python -m bench.peers.install NAME…`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ENVIRONMENTS = Path(__file__).parent / ".venvs"
INSTALL_SECONDS = 1800


class PeerUnavailableError(Exception):
    """The peer cannot be installed on this machine; the message says why."""


@dataclass(frozen=True, slots=True)
class Peer:
    """How to install a peer.

    Attributes:
        name: the subject's name in the results.
        worker: module that answers the harness.
        pythons: versions of Python it supports, the preferred one first.
        requirements: what pip installs; alternatives are tried in turn.
        check: a statement that proves that it works.
        disk: room the environment takes, for the message before a long download.
        one_thread: run it with one OpenMP thread (OpenFHE is slower with more on few cores).
    """

    name: str
    worker: str
    pythons: tuple[str, ...]
    requirements: tuple[tuple[str, ...], ...]
    check: str
    disk: str
    one_thread: bool = False


PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            name="tenseal",
            worker="bench.peers.tenseal_worker",
            pythons=("3.11", "3.12", "3.13"),
            requirements=(("tenseal==0.3.18", "numpy"),),
            check="import tenseal",
            disk="0.1 GB",
        ),
        Peer(
            name="concrete-ml",
            worker="bench.peers.concrete_ml_worker",
            pythons=("3.11", "3.10", "3.12", "3.9"),
            requirements=(("concrete-ml==1.9.0",),),
            check="import concrete.ml.sklearn",
            disk="6 GB",
        ),
        Peer(
            name="orion",
            worker="bench.peers.orion_worker",
            pythons=("3.11", "3.10", "3.12"),
            # A CPU build of torch, if pip is configured for an index that has one.
            requirements=(("torch==2.13.0+cpu", "orion-fhe==1.0.2"), ("orion-fhe==1.0.2",)),
            check="import orion",
            disk="1.3 GB with a CPU build of torch, otherwise 6 GB",
        ),
        Peer(
            name="openfhe",
            worker="bench.peers.openfhe_worker",
            pythons=("3.10", "3.11"),
            requirements=(("openfhe==1.6.1.0.22.4", "numpy"),),
            check="import openfhe",
            disk="0.1 GB",
            one_thread=True,
        ),
    )
}


def ensure(peer: Peer, *, say: Callable[[str], None]) -> Path:
    """Return the interpreter of the peer's environment, which is made if it is absent.

    Args:
        peer: the peer.
        say: takes a line before a long download.

    Raises:
        PeerUnavailableError: no suitable Python, or pip fails, or the peer does not import.
    """
    folder = ENVIRONMENTS / peer.name
    interpreter = folder / "bin" / "python"
    if interpreter.exists() and _imports(interpreter, peer):
        return interpreter
    base = find_python(peer.pythons)
    if base is None:
        wanted = " or ".join(peer.pythons)
        raise PeerUnavailableError(f"needs Python {wanted}, none was found (pyenv, uv, PATH)")
    say(f"installing {peer.name} with {base} ({peer.disk} on disk) …")
    _run([str(base), "-m", "venv", "--clear", str(folder)], folder.with_suffix(".log"))
    _install(peer, interpreter)
    if not _imports(interpreter, peer):
        raise PeerUnavailableError(f"installed, but `{peer.check}` fails in {interpreter}")
    return interpreter


def find_python(versions: Sequence[str]) -> Path | None:
    """Return an interpreter of one of the versions, looking on PATH and at pyenv's and uv's."""
    for version in versions:
        for candidate in _candidates(version):
            if _version_of(candidate) == version:
                return candidate
    return None


def _candidates(version: str) -> Iterator[Path]:
    found = shutil.which(f"python{version}")
    if found:
        yield Path(found)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR", Path.home() / ".local/share/uv/python"))
    for folder in (pyenv, uv):
        yield from sorted(folder.glob(f"*{version}*/bin/python{version}"), reverse=True)
    yield Path(sys.executable)


def _version_of(interpreter: Path) -> str:
    statement = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run(
        [interpreter, "-c", statement], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def _install(peer: Peer, interpreter: Path) -> None:
    log = ENVIRONMENTS / f"{peer.name}.log"
    problem = ""
    for requirements in peer.requirements:
        try:
            _run([str(interpreter), "-m", "pip", "install", "--quiet", *requirements], log)
            return
        except PeerUnavailableError as error:
            problem = str(error)
    raise PeerUnavailableError(problem)


def _run(command: list[str], log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as output:
        try:
            done = subprocess.run(
                command, stdout=output, stderr=output, timeout=INSTALL_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise PeerUnavailableError(f"installing took over {INSTALL_SECONDS} s") from error
    if done.returncode != 0:
        raise PeerUnavailableError(f"{_last_error(log)} (all of it in {log})")


def _last_error(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["pip failed without a message"])[-1]


def _imports(interpreter: Path, peer: Peer) -> bool:
    done = subprocess.run([interpreter, "-c", peer.check], capture_output=True, check=False)
    return done.returncode == 0


def main(names: Sequence[str]) -> int:
    """Install the named peers (all without a name); print one line each."""
    broken = 0
    for name in names or PEERS:
        if name not in PEERS:
            print(f"{name}: unknown, expected one of {', '.join(PEERS)}")
            broken += 1
            continue
        try:
            print(f"{name}: ready, {ensure(PEERS[name], say=print)}")
        except PeerUnavailableError as error:
            print(f"{name}: unavailable, {error}")
            broken += 1
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
