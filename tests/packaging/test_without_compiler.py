"""A wheel built where there is no C++ compiler: it installs, computes on OpenFHE, and says why."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tacit.client.transport import HttpTransport
from tests.e2e.customers import BOUND, MODEL, Customer
from tests.runtime.models import write_repository

ROOT = Path(__file__).resolve().parents[2]
FREE_PORTS = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")


def build(kind: str, source: Path, out: Path, path: str) -> Path:
    command = [sys.executable, "-m", "build", kind, "--no-isolation", "--outdir", str(out)]
    environment = {**os.environ, "PATH": path}
    finished = subprocess.run(
        [*command, str(source)], capture_output=True, text=True, check=False, env=environment
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the source distribution, as `pip install` would, with nothing on the PATH."""
    folder = tmp_path_factory.mktemp("dist")
    sdist = build("--sdist", ROOT, folder / "sdist", os.environ["PATH"])
    with tarfile.open(sdist) as packed:
        packed.extractall(folder)
    (source,) = [path for path in folder.iterdir() if (path / "pyproject.toml").exists()]
    (folder / "empty").mkdir()
    return build("--wheel", source, folder / "wheel", str(folder / "empty"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    subprocess.run([*install, str(target), str(wheel)], check=True, capture_output=True)
    return target


def serve(installed: Path, repository: Path, *extra: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tacit.client.cli", "serve", str(repository)]
    return subprocess.Popen(
        [*command, *FREE_PORTS, *extra],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=installed,
        env={**os.environ, "PYTHONPATH": str(installed)},
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return write_repository(tmp_path / "models", arithmetic=MODEL)


def test_the_wheel_is_pure_and_holds_no_kernels(wheel: Path, installed: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    assert not list(installed.rglob("*.so"))
    assert (installed / "tacit" / "kernels" / "csrc").is_dir()  # so that it can be compiled later


def test_it_serves_on_openfhe_with_one_warning_that_says_what_to_do(
    installed: Path, repository: Path, tmp_path: Path
) -> None:
    with serve(installed, repository) as server:
        try:
            assert server.stdout is not None
            assert server.stderr is not None
            ready = server.stdout.readline()
            assert ready.startswith("ready: http ")
            assert server.stdout.readline().startswith("backend: openfhe (there are no compiled")
            url = "http://" + ready.split()[2].rstrip(",")
            customer = Customer.make(tmp_path / "own")
            customer.upload(url)
            reply = HttpTransport(url, None, 60.0).infer(customer.question(customer.encrypt()))
            assert customer.error(reply.frames) < BOUND
            server.terminate()
            said = [line for line in server.stderr.read().splitlines() if "kernels" in line]
        finally:
            server.kill()
    assert len(said) == 1
    assert "OpenFHE computes" in said[0]
    assert "python -m tacit.kernels.build" in said[0]


def test_native_that_was_asked_for_is_an_error_that_says_what_to_do(
    installed: Path, repository: Path
) -> None:
    with serve(installed, repository, "--backend", "native") as server:
        out, said = server.communicate(timeout=60)
    assert server.returncode != 0
    assert "ready" not in out
    assert "python -m tacit.kernels.build" in said
    assert "Traceback" not in said
