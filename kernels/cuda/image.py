"""Kernels compiled on first use: NVRTC makes a cubin per ring and device, kept in the user's cache.

NVRTC needs neither a driver nor a GPU. Its library comes with the wheel nvidia-cuda-nvrtc or with a
CUDA toolkit.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
import os
import tempfile
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from tacit.errors import InternalError, UnusableEnvironmentError

SOURCES = Path(__file__).resolve().parents[1] / "csrc" / "cuda"

_ADVICE = "install the wheel nvidia-cuda-nvrtc of the driver's major version"


def sources() -> dict[str, bytes]:
    """Return the kernels' sources by name, kernels.cu among them."""
    files = sorted([*SOURCES.glob("*.cuh"), *SOURCES.glob("*.cu")])
    return {path.name: path.read_bytes() for path in files}


def digest(*parts: bytes) -> str:
    """Return 32 hexadecimal digits that name these bytes."""
    made = sha256()
    for part in parts:
        made.update(len(part).to_bytes(8, "little") + part)
    return made.hexdigest()[:32]


class Nvrtc:
    """NVIDIA's run-time compiler.

    Args:
        path: of its library; by default that of the wheel or the toolkit.

    Raises:
        UnusableEnvironmentError: there is none.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._library = _load(path)
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p

    def version(self) -> tuple[int, int]:
        """Return major and minor version."""
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._check(self._library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
        return major.value, minor.value

    def cubin(self, log_n: int, compute: int, *, doubles: bool) -> bytes:
        """Compile the kernels.

        Args:
            log_n: base-2 logarithm of N.
            compute: capability of the device: 80, 90, 100.
            doubles: whether narrow primes use double precision.

        Raises:
            UnusableEnvironmentError: this NVRTC does not know the device.
            InternalError: the sources do not compile.
        """
        return self.compile(sources(), compile_options(log_n, compute, doubles), compute)

    def compile(self, files: dict[str, bytes], options: Sequence[str], compute: int) -> bytes:
        """Compile `kernels.cu` of these files, the others being headers; raises as `cubin`."""
        headers = {name: text for name, text in files.items() if name != "kernels.cu"}
        names = (ctypes.c_char_p * len(headers))(*[name.encode() for name in headers])
        texts = (ctypes.c_char_p * len(headers))(*headers.values())
        program, main = ctypes.c_void_p(), files["kernels.cu"]
        create = self._library.nvrtcCreateProgram
        self._check(create(ctypes.byref(program), main, b"kernels.cu", len(headers), texts, names))
        try:
            words = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
            code = self._library.nvrtcCompileProgram(program, len(options), words)
            if code:
                raise self._refusal(program, code, compute)
            return self._text(program, "nvrtcGetCUBINSize", "nvrtcGetCUBIN")
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    def _text(self, program: ctypes.c_void_p, size: str, content: str) -> bytes:
        length = ctypes.c_size_t()
        self._check(getattr(self._library, size)(program, ctypes.byref(length)))
        buffer = ctypes.create_string_buffer(length.value)
        self._check(getattr(self._library, content)(program, buffer))
        return buffer.raw

    def _refusal(self, program: ctypes.c_void_p, code: int, compute: int) -> Exception:
        log = self._text(program, "nvrtcGetProgramLogSize", "nvrtcGetProgramLog")
        said = log.rstrip(b"\0").decode(errors="replace").strip()
        if "architecture" in said or code == 5:
            return UnusableEnvironmentError(f"NVRTC does not know sm_{compute}: {_ADVICE}")
        if "builtins" in said:
            return UnusableEnvironmentError(f"NVRTC is incomplete ({said}): {_ADVICE}")
        return InternalError(f"the kernels do not compile for sm_{compute}:\n{said}")

    def _check(self, code: int) -> None:
        if code:
            raise InternalError(f"NVRTC: {self._library.nvrtcGetErrorString(code).decode()}")


def compile_options(log_n: int, compute: int, doubles: bool) -> list[str]:
    """Return NVRTC's options for one ring and device."""
    return [
        f"--gpu-architecture=sm_{compute}",
        "--std=c++17",
        "--device-int128",
        "--device-as-default-execution-space",
        "--fmad=false",
        f"-DTACIT_LOG_N={log_n}",
        f"-DTACIT_DOUBLES={int(doubles)}",
    ]


def cubin(
    log_n: int, compute: int, *, doubles: bool, cache: Path | None, nvrtc: Nvrtc | None = None
) -> bytes:
    """Return compiled kernels, from the cache if they were compiled before.

    Args:
        log_n: base-2 logarithm of N.
        compute: capability of the device.
        doubles: whether narrow primes use double precision.
        cache: a folder; None to keep nothing.
        nvrtc: the compiler; by default loaded when it is needed.

    Raises:
        UnusableEnvironmentError: there is no NVRTC, or it does not know the device.
    """
    files = [part for name, text in sources().items() for part in (name.encode(), text)]
    options = " ".join(compile_options(log_n, compute, doubles))
    name = f"tacit-{log_n}-sm{compute}-{digest(*files, options.encode())}.cubin"
    kept = None if cache is None else cache / name
    if kept is not None and kept.is_file():
        return kept.read_bytes()
    made = (nvrtc or Nvrtc()).cubin(log_n, compute, doubles=doubles)
    if kept is not None:
        write_whole(kept, made)
    return made


def write_whole(path: Path, content: bytes) -> None:
    """Write a file in one step: others see nothing or all of it. A full disk is no error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(content)
        os.replace(file.name, path)
    except OSError:
        return


def default_cache() -> Path:
    """Return the user's cache folder for compiled kernels."""
    return Path.home() / ".cache" / "tacit" / "cuda"


def _load(path: Path | None) -> ctypes.CDLL:
    for candidate in [path] if path else _candidates():
        folder = Path(candidate).parent
        for builtins in sorted(folder.glob("libnvrtc-builtins.so*")) if folder.name else ():
            ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
        try:
            return ctypes.CDLL(str(candidate))
        except OSError:
            continue
    raise UnusableEnvironmentError(f"no NVRTC, which compiles the kernels: {_ADVICE}")


def _candidates() -> Iterator[Path]:
    """Yield where NVRTC may be: wheels of CUDA 13, of CUDA 12, then the system's."""
    spec = importlib.util.find_spec("nvidia")
    roots: Sequence[str] = (spec.submodule_search_locations or ()) if spec else ()
    for root in roots:
        for folder in ("cu13/lib", "cuda_nvrtc/lib"):
            yield from sorted((Path(root) / folder).glob("libnvrtc.so.*"), reverse=True)
    for version in (13, 12):
        yield Path(f"libnvrtc.so.{version}")
