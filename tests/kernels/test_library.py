"""Loading the compiled kernels: what is missing, stale or not for this processor."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from tacit.errors import UnusableEnvironmentError
from tacit.kernels import compile_sources, library
from tacit.kernels.build import build
from tacit.kernels.library import InstructionSet, available
from tacit.kernels.ring import Ring
from tests.kernels.residues import primes


def test_missing_kernels_say_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(UnusableEnvironmentError, match=r"tacit\.kernels\.build"):
        library.load(tmp_path / "absent.so")


def test_a_file_that_is_no_library_of_kernels_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.so"
    path.write_bytes(b"not a library")
    with pytest.raises(UnusableEnvironmentError, match="no compiled kernels"):
        library.load(path)


def test_kernels_of_other_sources_are_refused(
    library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tacit.kernels import library as loading

    monkeypatch.setattr(loading, "sources_digest", lambda: "0123456789abcdef")
    with pytest.raises(UnusableEnvironmentError, match="other sources"):
        loading.load()


def test_without_a_compiler_building_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_sources, "find_compiler", lambda: None)
    with pytest.raises(UnusableEnvironmentError, match="install g"):
        build()


def test_the_plain_path_is_always_there(library: ctypes.CDLL) -> None:
    assert available(library)[0] is InstructionSet.SCALAR


def test_instructions_that_the_processor_lacks_are_refused(library: ctypes.CDLL) -> None:
    class Poor:
        """A library on a processor without vectors."""

        def tacit_paths(self) -> int:
            return 1

    with pytest.raises(UnusableEnvironmentError, match="AVX512"):
        Ring(5, primes(40, 5), instructions=InstructionSet.AVX512, library=Poor())  # type: ignore[arg-type]
