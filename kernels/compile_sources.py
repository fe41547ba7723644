"""Compile the C++ kernels into one shared library; standard library only, for the build hook."""

from __future__ import annotations

import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

SOURCES = Path(__file__).resolve().parent / "csrc"
FOLDER = Path(__file__).resolve().parent

_COMMON = (
    *("-O3", "-std=c++17", "-fPIC", "-fvisibility=default", "-Wall", "-Wextra", "-pthread"),
    "-ffp-contract=off",  # rounding is part of what some kernels promise
)
_X86 = ("x86_64", "AMD64")
# GCC 12 wrongly warns about its own AVX-512 header (GCC bug 105593).
_PATH_FLAGS = {
    "avx2": ("-mavx2", "-mfma", "-mbmi2"),
    "avx512": (
        "-mavx512f",
        "-mavx512dq",
        "-mavx512ifma",
        "-Wno-maybe-uninitialized",
        "-Wno-uninitialized",
    ),
}
# What another compiler must be able to repeat bit for bit.
_EXACT = {"fourier": ("-ffp-contract=off",)}


def sources_digest() -> str:
    """Return 16 hexadecimal digits that name the present sources."""
    files = sorted([*SOURCES.glob("*.cpp"), *SOURCES.glob("*.h")])
    digest = sha256()
    for path in files:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def find_compiler() -> str | None:
    """Return a C++ compiler of this machine, or None."""
    return shutil.which("g++") or shutil.which("c++") or shutil.which("clang++")


def library_path() -> Path:
    """Return where the library made of the present sources lies, or would lie."""
    return FOLDER / f"_native-{sources_digest()}.so"


def compile_library(
    target: Path | None = None, *, compiler: str | None = None, extra: Sequence[str] = ()
) -> Path:
    """Compile the kernels; each instruction set is a translation unit with its own flags.

    Args:
        target: where the shared library goes, in one step; by default `library_path`, and
            libraries of other sources beside it are deleted.
        compiler: by default the one that `find_compiler` finds.
        extra: flags for every compilation and the link, such as `-fsanitize=address`.

    Raises:
        FileNotFoundError: no compiler.
        subprocess.CalledProcessError: it fails; `stderr` says why.
    """
    stale = set() if target else {*FOLDER.glob("_native-*.so")} - {library_path()}
    target = target or library_path()
    compiler = compiler or find_compiler()
    if compiler is None:
        raise FileNotFoundError("no C++ compiler: install g++")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-") as folder:
        commands, objects = _compilations(compiler, Path(folder), extra)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(_run, commands))
        linked = Path(folder) / target.name
        _run([compiler, "-shared", "-pthread", *extra, *objects, "-o", str(linked)])
        linked.replace(target)
    for old in stale:
        old.unlink(missing_ok=True)
    return target


def sanitizer_commands(
    compiler: str, main: Path, target: Path, flags: Sequence[str]
) -> list[list[str]]:
    """Return the commands that compile the kernels with a program of their own, for tests."""
    commands, objects = _compilations(compiler, target.parent, flags)
    link = [compiler, "-std=c++17", "-pthread", *flags, f"-I{SOURCES}", str(main), *objects]
    return [*commands, [*link, "-o", str(target)]]


def _compilations(
    compiler: str, folder: Path, extra: Sequence[str]
) -> tuple[list[list[str]], list[str]]:
    """Return the commands that compile each source, and the objects they make."""
    x86 = platform.machine() in _X86
    units = [p for p in sorted(SOURCES.glob("*.cpp")) if x86 or p.stem not in _PATH_FLAGS]
    defines = [f'-DTACIT_SOURCES="{sources_digest()}"', *(["-DTACIT_X86"] if x86 else [])]
    objects = [str(folder / f"{unit.stem}.o") for unit in units]
    commands = []
    for unit, made in zip(units, objects, strict=True):
        flags = (*_COMMON, *_PATH_FLAGS.get(unit.stem, ()), *_EXACT.get(unit.stem, ()))
        flags = (*flags, *defines, *extra)
        commands.append([compiler, *flags, "-c", str(unit), "-o", made])
    return commands, objects


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
