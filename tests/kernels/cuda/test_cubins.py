"""Compiled kernels without a GPU: they compile, and stay within budgets of machine code.

Budgets are what was measured, rounded up a little: a change that costs more must say why.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tacit.errors import InternalError, UnusableEnvironmentError
from tacit.kernels.cuda import image
from tacit.kernels.cuda.image import SOURCES, Nvrtc, cubin
from tacit.kernels.cuda.sass import Assembly, disassemble, find_disassembler

# Instructions per butterfly, whole kernel: 64-bit integers, then doubles more.
INTEGERS_2_16 = {
    "tacit_forward_columns": 27.0,
    "tacit_forward_rows": 32.0,
    "tacit_forward_rows_divided": 46.0,
    "tacit_backward_rows": 29.0,
    "tacit_backward_rows_product": 42.5,
    "tacit_backward_columns": 34.0,
}
DOUBLES_2_16 = {
    "tacit_forward_columns": 15.0,
    "tacit_forward_rows": 17.5,
    "tacit_forward_rows_divided": 29.5,
    "tacit_backward_rows": 17.0,
    "tacit_backward_rows_product": 29.5,
    "tacit_backward_columns": 18.0,
}
# What products with keys add to a transform: instructions of a loop that is rolled up, two values
# at a time, of both arithmetics together; keys of several shapes take some 200 of them.
KEYED_2_16 = {"tacit_forward_rows_keyed": 4400, "tacit_backward_rows_keyed": 3000}
BUTTERFLIES = 64  # of a thread in each kernel of 2^16: 16 values, 8 layers
TRANSFORM_REGISTERS = 128
OTHER_REGISTERS = {"tacit_key_product": 112}
USUAL_REGISTERS = 80
# Accesses to local memory: none, but for a few around branches that share all registers.
LOCAL = {"tacit_raise_columns": 8, "tacit_backward_rows_keyed": 6}
MOST_LOCAL = 2


@pytest.fixture(scope="module")
def nvrtc() -> Nvrtc:
    try:
        return Nvrtc()
    except UnusableEnvironmentError as error:
        pytest.skip(str(error))


def _assembly(cache: Path, nvrtc: Nvrtc, log_n: int, doubles: bool) -> dict[str, Assembly]:
    if find_disassembler() is None:
        pytest.skip("no nvdisasm: install the wheel nvidia-cuda-nvdisasm")
    return disassemble(cubin(log_n, 90, doubles=doubles, cache=cache, nvrtc=nvrtc))


@pytest.fixture(scope="module")
def cache(request: pytest.FixtureRequest) -> Path:
    made: Path = request.config.cache.mkdir("cuda-cubins")
    return made


def test_butterflies_stay_within_their_budget(cache: Path, nvrtc: Nvrtc) -> None:
    integers = _assembly(cache, nvrtc, 16, False)
    both = _assembly(cache, nvrtc, 16, True)
    for name, budget in INTEGERS_2_16.items():
        assert integers[name].total / BUTTERFLIES <= budget, name
    for name, budget in DOUBLES_2_16.items():
        assert (both[name].total - integers[name].total) / BUTTERFLIES <= budget, name


def test_products_with_keys_stay_within_their_budget(cache: Path, nvrtc: Nvrtc) -> None:
    both = _assembly(cache, nvrtc, 16, True)
    for name, budget in KEYED_2_16.items():
        assert both[name].total - both[name.removesuffix("_keyed")].total <= budget, name


def test_kernels_keep_their_values_in_registers(cache: Path, nvrtc: Nvrtc) -> None:
    for doubles in (False, True):
        for name, made in _assembly(cache, nvrtc, 16, doubles).items():
            assert made.local <= LOCAL.get(name, MOST_LOCAL), name


def test_registers_leave_room_for_two_blocks(cache: Path, nvrtc: Nvrtc) -> None:
    for name, made in _assembly(cache, nvrtc, 16, True).items():
        transform = "columns" in name or "rows" in name
        most = TRANSFORM_REGISTERS if transform else OTHER_REGISTERS.get(name, USUAL_REGISTERS)
        assert made.registers <= most, name


def test_loads_of_rows_and_roots_are_wide(cache: Path, nvrtc: Nvrtc) -> None:
    made = _assembly(cache, nvrtc, 16, True)
    assert made["tacit_binary"].count("LDG.E.128") >= 2
    assert made["tacit_dot_pairs"].count("LDG.E.128") >= 2
    assert made["tacit_key_product"].count("LDG.E.128") >= 2
    for name in ("tacit_forward_columns", "tacit_forward_rows", "tacit_backward_rows"):
        assert made[name].count("LDG.E.128.CONSTANT") >= 30, name


@pytest.mark.slow
@pytest.mark.parametrize("compute", [80, 86, 90, 100, 120])
@pytest.mark.parametrize("log_n", [13, 16])
def test_kernels_compile_for_every_device(
    cache: Path, nvrtc: Nvrtc, compute: int, log_n: int
) -> None:
    doubles = compute in (80, 90, 100)
    made = cubin(log_n, compute, doubles=doubles, cache=cache, nvrtc=nvrtc)
    assert made[:4] == b"\x7fELF"


@pytest.mark.slow
@pytest.mark.parametrize("compute", [80, 90, 100])
def test_nvcc_takes_the_same_sources(tmp_path: Path, compute: int) -> None:
    tool = find_disassembler()
    beside = tool.with_name("nvcc") if tool else None
    nvcc = str(beside) if beside and beside.is_file() else shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc: install the wheel nvidia-cuda-nvcc")
    command = [nvcc, "-cubin", f"-arch=sm_{compute}", "-std=c++17", "--expt-relaxed-constexpr"]
    command += ["-fmad=false", "-DTACIT_LOG_N=13", str(SOURCES / "kernels.cu")]
    subprocess.run([*command, "-o", str(tmp_path / "kernels.cubin")], check=True)


def test_devices_that_nvrtc_does_not_know_are_named(nvrtc: Nvrtc) -> None:
    with pytest.raises(UnusableEnvironmentError, match="sm_31"):
        cubin(10, 31, doubles=False, cache=None, nvrtc=nvrtc)


def test_sources_that_do_not_compile_are_our_fault(
    nvrtc: Nvrtc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "sources", lambda: {"kernels.cu": b"word salad"})
    with pytest.raises(InternalError, match="do not compile"):
        cubin(10, 90, doubles=True, cache=None, nvrtc=nvrtc)


def test_a_machine_without_nvrtc_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(UnusableEnvironmentError, match="nvidia-cuda-nvrtc"):
        Nvrtc(tmp_path / "libnvrtc.so.13")


class _Counting:
    """An NVRTC that makes short cubins."""

    def __init__(self) -> None:
        self.calls = 0

    def cubin(self, log_n: int, compute: int, *, doubles: bool) -> bytes:
        self.calls += 1
        return f"{log_n} {compute} {doubles}".encode()


def test_kernels_are_compiled_once_per_ring_device_and_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = _Counting()

    def make(log_n: int, compute: int) -> bytes:
        return cubin(log_n, compute, doubles=True, cache=tmp_path, nvrtc=counting)  # type: ignore[arg-type]

    assert make(10, 90) == make(10, 90) == b"10 90 True"
    assert counting.calls == 1
    make(11, 90), make(10, 80)
    assert counting.calls == 3
    monkeypatch.setattr(image, "sources", lambda: {"kernels.cu": b"changed"})
    make(10, 90)
    assert counting.calls == 4
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".cubin"]


def test_a_cache_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    counting = _Counting()
    made = cubin(10, 90, doubles=True, cache=blocked / "folder", nvrtc=counting)  # type: ignore[arg-type]
    assert made == b"10 90 True"
