"""What the client imports, and how it explains an environment that cannot work."""

import builtins
import importlib
import importlib.metadata
import platform
import subprocess
import sys
from collections import namedtuple

import pytest

from tacit.client.environment import check_openfhe, import_openfhe, quiet_openmp
from tacit.errors import UnusableEnvironmentError

Version = namedtuple("Version", "major minor micro releaselevel serial")
FORBIDDEN = {
    "torch",
    "onnx",
    "fastapi",
    "starlette",
    "uvicorn",
    "matplotlib",
    "sklearn",
    "skl2onnx",
}


def _loaded_by(program: str) -> set[str]:
    code = f"import sys\n{program}\nprint(' '.join(m.split('.')[0] for m in sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


@pytest.mark.parametrize(
    "program",
    [
        "import tacit.client",
        "import tacit; tacit.Client; tacit.AsyncClient",
        "from tacit.client import client, async_client, codec, keys, key_ring, transport, service",
        "from tacit.client.client import Client; from tacit.client.environment import "
        "import_openfhe; import_openfhe()",
    ],
)
def test_the_client_loads_no_server_no_onnx_no_torch(program: str) -> None:
    loaded = _loaded_by(program)
    assert not loaded & FORBIDDEN
    assert "tacit" in loaded


def test_importing_the_package_or_the_command_line_does_not_load_openfhe() -> None:
    for program in ("import tacit", "import tacit; tacit.Client", "import tacit.client.cli"):
        assert "openfhe" not in _loaded_by(program)


def test_unknown_names_of_the_package_are_attribute_errors() -> None:
    import tacit

    with pytest.raises(AttributeError, match="'Klient'"):
        tacit.Klient  # noqa: B018
    estimators = {"Connection", "LinearRegression", "LogisticRegression", "Ridge"}
    others = {
        "AsyncClient",
        "Client",
        "Party",
        "ReleasePolicy",
        "__version__",
        "compile",
        "finetune",
    }
    assert set(tacit.__all__) == estimators | others | {"compile", "finetune"}


def test_this_environment_is_usable() -> None:
    assert [finding.usable for finding in check_openfhe()] == [True] * 4
    assert import_openfhe().__name__ == "openfhe"


def _without_openfhe(monkeypatch: pytest.MonkeyPatch, message: str) -> None:
    original = importlib.import_module

    def failing(name: str, package: str | None = None) -> object:
        if name == "openfhe":
            raise ImportError(message)
        return original(name, package)

    monkeypatch.setattr(importlib, "import_module", failing)


def _pretend(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int], glibc: str, wheel: str | None
) -> None:
    def wheel_version(name: str) -> str:
        if wheel is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return wheel

    monkeypatch.setattr(sys, "version_info", Version(*version, 0, "final", 0))
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", glibc))
    monkeypatch.setattr(importlib.metadata, "version", wheel_version)


@pytest.mark.parametrize(
    ("version", "glibc", "wheel", "message", "explanation"),
    [
        ((3, 11), "2.36", "1.6.1.0.22.4", "No module", "use CPython 3.10, or CPython 3.12"),
        ((3, 13), "2.39", "1.6.1.0.24.4", "No module", "use CPython 3.10, or CPython 3.12"),
        ((3, 12), "2.36", "1.6.1.0.24.4", "GLIBCXX_3.4.32", "only CPython 3.10 works"),
        ((3, 12), "2.39", "1.6.1.0.22.4", "No module", "openfhe==1.6.1.0.24.4"),
        ((3, 10), "2.36", "1.6.1.0.24.4", "No module", "openfhe==1.6.1.0.22.4"),
        ((3, 10), "2.36", None, "No module", "pip install openfhe==1.6.1.0.22.4"),
        ((3, 10), "2.36", "1.6.1.0.22.4", "libgomp.so.1: cannot open", "apt install libgomp1"),
        ((3, 10), "2.31", "1.6.1.0.22.4", "GLIBC_2.34 not found", "glibc 2.38 or newer"),
    ],
)
def test_an_unusable_environment_is_explained(
    monkeypatch: pytest.MonkeyPatch,
    version: tuple[int, int],
    glibc: str,
    wheel: str | None,
    message: str,
    explanation: str,
) -> None:
    _pretend(monkeypatch, version, glibc, wheel)
    _without_openfhe(monkeypatch, message)
    with pytest.raises(UnusableEnvironmentError, match=explanation.replace(".", r"\.")):
        import_openfhe()
    findings = check_openfhe()
    assert any(not finding.usable and explanation in finding.advice for finding in findings)


def test_a_usable_python_312_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, (3, 12), "2.39", "1.6.1.0.24.4")
    assert [finding.usable for finding in check_openfhe()[:3]] == [True] * 3


def test_another_machine_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert "x86-64" in check_openfhe()[1].advice


def test_openmp_defaults_never_replace_what_is_set() -> None:
    environment = {"OMP_NUM_THREADS": "7"}
    quiet_openmp(environment)
    assert environment == {"OMP_NUM_THREADS": "7", "OMP_WAIT_POLICY": "PASSIVE"}


def test_the_client_reads_no_environment_variable_and_prints_nothing() -> None:
    code = (
        "import builtins, os\n"
        "def refuse(*a, **k): raise SystemExit('used')\n"
        "builtins.print = refuse\n"
        "os.getenv = refuse\n"
        "from tacit.client.client import Client\n"
        "Client('http://localhost:1')\n"
    )
    assert callable(builtins.print)
    subprocess.run([sys.executable, "-c", code], check=True)
