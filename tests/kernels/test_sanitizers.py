"""The C++ kernels under the address, undefined-behaviour and thread sanitizers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tacit.kernels.compile_sources import SOURCES, find_compiler, sanitizer_commands
from tacit.moduli import smallest_root
from tests.kernels.residues import primes

DRIVER = Path(__file__).parent / "sanitize.cpp"
KINDS = {"memory": "address,undefined", "threads": "thread"}


@pytest.fixture(scope="module", params=list(KINDS))
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = find_compiler()
    if compiler is None:
        pytest.skip("no C++ compiler")
    assert SOURCES.is_dir()
    made: Path = tmp_path_factory.mktemp("sanitize") / request.param
    flags = ["-g", "-O1", f"-fsanitize={KINDS[request.param]}", "-fno-sanitize-recover=all"]
    for command in sanitizer_commands(compiler, DRIVER, made, flags):
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        if "cannot find -l" in finished.stderr:
            pytest.skip("the compiler has no sanitizer libraries")
        assert finished.returncode == 0, finished.stderr[-3000:]
    return made


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("log_n", [3, 5, 6, 7, 8, 11])
def test_no_access_out_of_bounds_no_overflow_no_race(
    program: Path, log_n: int, threads: int
) -> None:
    chosen = (*primes(60, log_n, 3), *primes(50, log_n, 2), *primes(45, log_n, 2))
    moduli = [chosen[0], *chosen[3:], *chosen[1:3]]
    roots = [smallest_root(q, log_n) for q in moduli]
    numbers = [log_n, 5, 2, 3, threads, *moduli, *roots]
    run = subprocess.run(
        [str(program), *map(str, numbers)], capture_output=True, text=True, check=False
    )
    if "unexpected memory mapping" in run.stderr:
        pytest.skip("the thread sanitizer does not work on this kernel")
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.strip() == "ok"
