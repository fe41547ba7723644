"""The kernels on a processor, for tests: g++ compiles them, unmodified, with a driver of fibres."""

from __future__ import annotations

import ctypes
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tacit.errors import UnusableEnvironmentError
from tacit.kernels.compile_sources import find_compiler
from tacit.kernels.cuda.driver import Driver
from tacit.kernels.cuda.image import SOURCES, digest, sources
from tacit.kernels.cuda.interface import Abilities

_COMMON = ("-std=c++17", "-fPIC", "-shared", "-fvisibility=hidden", "-fno-gnu-unique")
_KERNELS = ("-x", "c++", "-O2", "-ffp-contract=off", "-Wno-unknown-pragmas", "-DTACIT_SHIM")


@dataclass(frozen=True, slots=True)
class Shim:
    """Where compiled kernels and the driver that runs them lie.

    Attributes:
        folder: of the libraries; they are made when they are missing or stale.
    """

    folder: Path

    def driver(self) -> Driver:
        """Return the driver of fibres.

        Raises:
            UnusableEnvironmentError: there is no C++ compiler, or it fails.
        """
        source = SOURCES / "shim" / "driver.cpp"
        content = [source.read_bytes(), (source.parent / "state.h").read_bytes()]
        return Driver(self._made("driver", source, ("-O1",), content, ("-ldl",)))

    def image(self, log_n: int, *, doubles: bool = True) -> bytes:
        """Return what the driver of fibres takes for a cubin."""
        return b"SHIM" + str(self.library(log_n, doubles=doubles)).encode() + b"\0"

    def image_for(self, log_n: int, abilities: Abilities) -> bytes:
        """Return the kernels of a ring as a device of these abilities takes them."""
        return self.image(log_n, doubles=abilities.doubles)

    def check_compiler(self) -> None:
        """Check that there is a C++ compiler.

        Raises:
            UnusableEnvironmentError: there is none.
        """
        if find_compiler() is None:
            raise UnusableEnvironmentError("no C++ compiler: install g++")

    def image_of(self, source: Path, log_n: int) -> bytes:
        """Return kernels of another source as an image."""
        return b"SHIM" + str(self.library(log_n, source=source)).encode() + b"\0"

    def library(
        self, log_n: int, *, doubles: bool = True, source: Path = SOURCES / "kernels.cu"
    ) -> Path:
        """Return the kernels of one ring as a library.

        Raises:
            UnusableEnvironmentError: there is no C++ compiler, or it fails.
        """
        headers = [path.read_bytes() for path in sorted((SOURCES / "shim").glob("*.h"))]
        defines = (f"-DTACIT_LOG_N={log_n}", f"-DTACIT_DOUBLES={int(doubles)}", f"-I{SOURCES}")
        content = [*sources().values(), *headers, source.read_bytes()]
        name = f"{source.stem}-{log_n}-{int(doubles)}"
        return self._made(name, source, (*_KERNELS, *defines), content, ())

    def _made(
        self,
        name: str,
        source: Path,
        flags: tuple[str, ...],
        content: list[bytes],
        libraries: tuple[str, ...],
    ) -> Path:
        target = self.folder / f"{name}-{digest(*content, ' '.join(flags).encode())}.so"
        if target.exists():
            return target
        self.check_compiler()
        compiler = find_compiler()
        assert compiler is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(".partial")
        command = [compiler, *_COMMON, *flags, str(source), *libraries, "-o", str(partial)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise UnusableEnvironmentError(f"the C++ compiler failed:\n{done.stderr}")
        partial.replace(target)
        return target


class ShimControl:
    """What tests do to the driver of fibres."""

    def __init__(self, driver: Driver) -> None:
        self._library = driver.library
        self._library.tacit_shim_fail.argtypes = (ctypes.c_char_p, ctypes.c_long, ctypes.c_int)
        self._library.tacit_shim_reset.argtypes = (ctypes.c_uint64,)
        self._library.tacit_shim_foreign.argtypes = (ctypes.c_uint64, ctypes.c_size_t)
        self._library.tacit_shim_limit.argtypes = (ctypes.c_size_t,)
        self._library.tacit_shim_counts.argtypes = (ctypes.c_void_p,)

    def fail(self, function: str, count: int, code: int) -> None:
        """Make the `count`-th call of a function from now on give an error; 1 is the next."""
        self._library.tacit_shim_fail(function.encode(), count, code)

    def reset(self, seed: int = 1) -> None:
        """Forget failures, also of a lost device; the seed sets the order of fibres."""
        self._library.tacit_shim_reset(seed)

    def take_foreign(self, address: int, nbytes: int) -> None:
        """Take memory of another library for device memory; 0 bytes: no longer."""
        self._library.tacit_shim_foreign(address, nbytes)

    def limit(self, nbytes: int) -> None:
        """Set the device's memory."""
        self._library.tacit_shim_limit(nbytes)

    def device(self, compute: int = 90, version: int = 13000, multiprocessors: int = 132) -> None:
        """Set what devices that are opened from now on claim to be."""
        self._library.tacit_shim_device(compute, version, multiprocessors)

    def counts(self) -> tuple[int, int, int, int]:
        """Return launches, launches of graphs, bytes in use and blocks in use."""
        made = (ctypes.c_uint64 * 4)()
        self._library.tacit_shim_counts(ctypes.addressof(made))
        return (made[0], made[1], made[2], made[3])


class Barriers:
    """The barriers of one ring's kernels: which were reached, and leaving one out."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.tacit_shim_barriers.argtypes = (ctypes.c_char_p, ctypes.c_size_t)
        self._library.tacit_shim_barriers.restype = ctypes.c_size_t
        self._library.tacit_shim_ignore.argtypes = (ctypes.c_char_p, ctypes.c_int)

    def reached(self) -> list[tuple[str, int]]:
        """Return file and line of each barrier reached so far."""
        text = ctypes.create_string_buffer(1 << 16)
        self._library.tacit_shim_barriers(text, len(text))
        lines = text.value.decode().split()
        return [(line.rpartition(":")[0], int(line.rpartition(":")[2])) for line in lines]

    def ignore(self, site: tuple[str, int] | None) -> None:
        """Act as if one barrier were not there; None: as it is."""
        file, line = site or ("", 0)
        self._library.tacit_shim_ignore(file.encode(), line)
