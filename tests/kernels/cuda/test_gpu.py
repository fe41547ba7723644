"""The GPU script: a rehearsal on fibres, OpenFHE's results from frames, and the real thing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.gpu import fixtures, run_all
from bench.gpu.floors import floor_of
from bench.gpu.machines import Fibres
from bench.gpu.sizes import real, rehearsal
from bench.gpu.workloads import workloads
from tacit.errors import UnusableEnvironmentError
from tacit.kernels.cuda.driver import Driver
from tacit.kernels.cuda.shim import Shim


def test_the_whole_script_runs_on_fibres(
    shim: Shim, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "results.jsonl"
    monkeypatch.setattr(sys, "argv", ["run_all", "--dry-run", "--out", str(out)])
    run_all.main()
    printed = capsys.readouterr().out
    for workload in run_all.all_workloads(rehearsal(), None):
        assert f"{workload.name}: us" in printed
        assert f"{workload.name}: graph_us" in printed
    assert "a small model, 3 clients, cpu engine: us" in printed
    assert "a small model, 3 clients as a graph" in printed
    assert not out.exists()  # times of a simulation are no results


def test_recorded_and_launched_workloads_agree(shim: Shim) -> None:
    from tacit.kernels.cuda.recorded import Recorded

    machine = Fibres()
    for workload in workloads(rehearsal()):
        cuda = machine.kernels(workload.params)
        run, inputs = workload.prepare(cuda)
        recorded = Recorded(cuda, machine.device, run, inputs)
        for found, wanted in zip(recorded.launch(inputs), run(inputs), strict=True):
            np.testing.assert_array_equal(cuda.download(found), cuda.download(wanted))
        recorded.close()


def test_openfhe_agrees_limb_for_limb(shim: Shim, tmp_path: Path) -> None:
    pytest.importorskip("openfhe", reason="openfhe does not import here")
    path = tmp_path / "fixtures.zip"
    fixtures.make(path)
    assert fixtures.check(path, Fibres().kernels) == len(fixtures.SETS) * len(fixtures.RESULTS)


def test_a_wrong_limb_in_the_fixtures_is_noticed(shim: Shim, tmp_path: Path) -> None:
    pytest.importorskip("openfhe", reason="openfhe does not import here")
    import zipfile

    path, other = tmp_path / "fixtures.zip", tmp_path / "swapped.zip"
    fixtures.make(path)
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(other, "w") as target:
        for name in source.namelist():
            read = name.replace("/a", "/b") if name.endswith("/a") else name
            target.writestr(name, source.read(read))
    with pytest.raises(AssertionError, match="dnum1 multiply"):
        fixtures.check(other, Fibres().kernels)


@pytest.mark.slow
def test_floors_of_the_real_sets_can_be_counted() -> None:
    for workload in workloads(real()):
        if workload.params.log_n < 16:
            floor = floor_of(workload, None)
            assert floor.us > 0
            assert floor.nbytes > 0


@pytest.mark.gpu
def test_kernels_on_the_gpu_equal_the_cpu() -> None:
    try:
        Driver()
    except UnusableEnvironmentError as error:
        pytest.skip(str(error))
    folder = Path(__file__).parent
    places = [str(folder / name) for name in run_all.TESTS]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", *places]
    subprocess.run(command, check=True, env={**os.environ, "TACIT_TEST_CUDA": "1"})
