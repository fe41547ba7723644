"""Which backend computes: the native one where its kernels load, OpenFHE with a word elsewhere."""

import importlib.util
import logging
from pathlib import Path

import httpx
import pytest

from tacit.client.cli import build_parser
from tacit.client.cli_serve import server_options
from tacit.errors import UnusableEnvironmentError, UserError
from tacit.kernels.build import build_if_stale
from tacit.runtime.backends.loading import BackendName, choose_backend
from tacit.runtime.isolation import Isolation, choose_isolation, group_of
from tacit.runtime.options import ServerOptions, WorkerLimits
from tacit.runtime.requests import Owner
from tacit.runtime.server import ServerHandle
from tacit.runtime.server_process import Server
from tests.runtime.models import TINY_INSECURE, echo_artifact, write_repository

ADVICE = "python -m tacit.kernels.build"


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise UnusableEnvironmentError("no compiled kernels: run something")

    monkeypatch.setattr("tacit.runtime.backends.loading.library.load", missing)


@pytest.fixture
def no_openfhe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


def test_the_default_is_native_where_its_kernels_load() -> None:
    if not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")
    chosen = choose_backend()
    assert (chosen.name, chosen.warning) == (BackendName.NATIVE, "")
    assert "kernels load" in chosen.reason


@pytest.mark.usefixtures("no_kernels")
def test_without_kernels_openfhe_is_taken_with_a_warning_that_says_what_to_do() -> None:
    chosen = choose_backend()
    assert chosen.name is BackendName.OPENFHE
    assert "no compiled kernels" in chosen.reason
    assert ADVICE in chosen.warning
    assert "wheel" in chosen.warning
    assert "\n" not in chosen.warning


@pytest.mark.usefixtures("no_kernels")
def test_native_that_was_asked_for_and_is_not_there_is_an_error() -> None:
    with pytest.raises(UnusableEnvironmentError, match=ADVICE):
        choose_backend(BackendName.NATIVE)


@pytest.mark.usefixtures("no_kernels", "no_openfhe")
def test_without_either_backend_the_error_names_both() -> None:
    with pytest.raises(UnusableEnvironmentError, match=r"compiled kernels.*`openfhe`"):
        choose_backend()


@pytest.mark.usefixtures("no_openfhe")
def test_openfhe_that_was_asked_for_and_is_not_installed_is_an_error() -> None:
    with pytest.raises(UnusableEnvironmentError, match="tacit doctor"):
        choose_backend(BackendName.OPENFHE)


@pytest.mark.usefixtures("no_openfhe")
def test_native_needs_no_openfhe() -> None:
    if not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")
    assert choose_backend().name is BackendName.NATIVE


@pytest.mark.usefixtures("no_kernels")
def test_a_server_without_kernels_warns_once_and_says_so_on_its_status_page(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_repository(tmp_path, echo=echo_artifact(TINY_INSECURE))
    with caplog.at_level(logging.WARNING), ServerHandle(root) as handle:
        status = httpx.get(f"http://127.0.0.1:{handle.ports.http}/v1/status").json()
        counters = httpx.get(f"http://127.0.0.1:{handle.ports.metrics}/metrics").text
    warnings = [record.message for record in caplog.records if ADVICE in record.message]
    assert len(warnings) == 1
    assert status["backend"] == "openfhe"
    assert status["backend_warning"] == warnings[0]
    assert "no compiled kernels" in status["backend_reason"]
    assert status["isolation"] == "owner"
    assert "\ntacit_backend_native 0\n" in counters


def test_openfhe_keeps_every_owner_apart_and_says_why_it_must() -> None:
    assert choose_isolation(None, BackendName.OPENFHE) is Isolation.OWNER
    assert choose_isolation(Isolation.OWNER, BackendName.OPENFHE) is Isolation.OWNER
    for wanted in (Isolation.TENANT, Isolation.NONE):
        with pytest.raises(UserError, match="maps of the whole process"):
            choose_isolation(wanted, BackendName.OPENFHE)


def test_native_keeps_tenants_apart_unless_told_otherwise() -> None:
    assert choose_isolation(None, BackendName.NATIVE) is Isolation.TENANT
    for wanted in Isolation:
        assert choose_isolation(wanted, BackendName.NATIVE) is wanted


def test_owners_share_a_process_as_far_as_the_isolation_allows() -> None:
    owners = [Owner(tenant, key) for tenant in "tu" for key in "ab"]
    groups = {kind: {group_of(kind, owner) for owner in owners} for kind in Isolation}
    assert {kind: len(found) for kind, found in groups.items()} == {
        Isolation.OWNER: 4,
        Isolation.TENANT: 2,
        Isolation.NONE: 1,
    }


def test_a_shared_worker_gets_all_cores_and_runs_all_parallel_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(12)))
    limits = WorkerLimits()
    assert [limits.threads_for(4, lines) for lines in (1, 2, 4)] == [3, 6, 12]
    root = write_repository(tmp_path, echo=echo_artifact(TINY_INSECURE))
    asked = WorkerLimits(backend=BackendName.OPENFHE, isolation=Isolation.NONE)
    with pytest.raises(UserError, match="native"):
        Server(ServerHandle(root).repository, ServerOptions(workers=asked))


def test_the_command_line_chooses_backend_isolation_and_limits(tmp_path: Path) -> None:
    def options(*words: str) -> ServerOptions:
        return server_options(build_parser().parse_args(["serve", str(tmp_path), *words]))

    default = options().workers
    assert default == WorkerLimits()
    assert (default.backend, default.isolation) == (None, None)
    assert options("--backend", "auto").workers.backend is None
    for name in BackendName:
        assert options("--backend", name.value).workers.backend is name
    for isolation in Isolation:
        assert options("--isolate", isolation.value).workers.isolation is isolation
    limits = ("--worker-key-gb", "1.5", "--worker-memory-gb", "6", "--join-owners", "4")
    chosen = options(*limits, "--worker-constant-gb", "12.5")
    assert chosen.workers.constant_bytes == 12_500_000_000
    assert chosen.workers.key_bytes == 1_500_000_000
    assert chosen.workers.memory_bytes == 6_000_000_000
    assert (chosen.queue.owners, options().queue.owners) == (4, 1)
