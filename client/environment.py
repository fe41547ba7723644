"""The one place where the client imports OpenFHE: explains failures, guards against forks.

OpenFHE's wheels are tagged for every Python, but hold one compiled module each: suffix `.22.4` for
CPython 3.10, suffix `.24.4` for CPython 3.12 on a system with glibc 2.38 or newer. On any other
interpreter the installation succeeds and the import fails.

OpenFHE starts as many OpenMP threads as there are cores, and they spin while they wait. On a busy
machine set OMP_NUM_THREADS and OMP_WAIT_POLICY=PASSIVE before the first import; the command line
does so where they are not set (`quiet_openmp`), the SDK leaves the environment of your program
alone.

`fork` copies the state of OpenFHE's random generator, so that two processes would encrypt with the
same randomness. A child forked after the import therefore refuses to make keys and to encrypt.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import MutableMapping
from dataclasses import dataclass
from types import ModuleType

from tacit.errors import UnusableEnvironmentError

_WHEELS = {(3, 10): "1.6.1.0.22.4", (3, 12): "1.6.1.0.24.4"}
_GLIBC_24_4 = (2, 38)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `tacit doctor`.

    Attributes:
        subject: what was looked at.
        usable: whether it is good enough.
        found: what is there.
        advice: what to do; empty where nothing has to be done.
    """

    subject: str
    usable: bool
    found: str
    advice: str = ""


class _ForkGuard:
    """Remembers whether this process was forked from one that had loaded OpenFHE."""

    def __init__(self) -> None:
        self.forked = False
        os.register_at_fork(after_in_child=self._in_child)

    def _in_child(self) -> None:
        self.forked = self.forked or "openfhe" in sys.modules


# A fact about the process, not a setting: there is exactly one per process by nature.
_FORK_GUARD = _ForkGuard()


def import_openfhe() -> ModuleType:
    """Import and return OpenFHE.

    Raises:
        UnusableEnvironmentError: it cannot be imported; the message says why and what to do.
    """
    try:
        return importlib.import_module("openfhe")
    except ImportError as error:
        raise UnusableEnvironmentError(_explanation(error)) from error


def refuse_in_forked_child(action: str) -> None:
    """Refuse an action that needs fresh randomness.

    Raises:
        UnusableEnvironmentError: this process was forked after OpenFHE was imported.
    """
    if _FORK_GUARD.forked:
        raise UnusableEnvironmentError(
            f"cannot {action} in a process that was forked after OpenFHE was loaded, because it "
            "would repeat its parent's random numbers: start the process with the 'spawn' method"
        )


def quiet_openmp(environment: MutableMapping[str, str]) -> None:
    """Set OpenMP's defaults for the command line where they are not set."""
    environment.setdefault("OMP_NUM_THREADS", "1")
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def check_openfhe() -> tuple[Finding, ...]:
    """Look at interpreter, C library and OpenFHE wheel; tries the import last."""
    return (_check_interpreter(), _check_platform(), _check_wheel(), _check_import())


def _check_interpreter() -> Finding:
    version = sys.version_info[:2]
    found = f"{platform.python_implementation()} {platform.python_version()} ({sys.executable})"
    usable = version in _WHEELS and platform.python_implementation() == "CPython"
    return Finding("Python", usable, found, "" if usable else _interpreter_advice())


def _interpreter_advice() -> str:
    return "use CPython 3.10, or CPython 3.12 with glibc 2.38 or newer: OpenFHE has no others"


def _check_platform() -> Finding:
    machine, name = platform.machine(), platform.system()
    library, release = platform.libc_ver()
    found = f"{name} {machine}, {library or 'unknown C library'} {release}".strip()
    if name != "Linux" or machine not in ("x86_64", "AMD64") or library != "glibc":
        return Finding(
            "system", False, found, "OpenFHE's wheels are for Linux on x86-64 with glibc"
        )
    needs_new = sys.version_info[:2] == (3, 12)
    if needs_new and _numbers(release) < _GLIBC_24_4:
        advice = "with this glibc (older than 2.38) only CPython 3.10 works: use that"
        return Finding("system", False, found, advice)
    return Finding("system", True, found)


def _check_wheel() -> Finding:
    wanted = _WHEELS.get(sys.version_info[:2])
    try:
        found = importlib.metadata.version("openfhe")
    except importlib.metadata.PackageNotFoundError:
        advice = f"pip install openfhe=={wanted}" if wanted else _interpreter_advice()
        return Finding("openfhe wheel", False, "not installed", advice)
    if wanted is None:
        return Finding("openfhe wheel", False, found, _interpreter_advice())
    if found.split(".")[-2:] != wanted.split(".")[-2:]:
        advice = f"this wheel was built for another Python: pip install openfhe=={wanted}"
        return Finding("openfhe wheel", False, found, advice)
    return Finding("openfhe wheel", True, found)


def _check_import() -> Finding:
    try:
        module = importlib.import_module("openfhe")
    except ImportError as error:
        return Finding("import openfhe", False, _first_line(error), _import_advice(error))
    return Finding("import openfhe", True, os.path.dirname(str(module.__file__)))


def _import_advice(error: ImportError) -> str:
    text = str(error)
    if "libgomp" in text:
        return "install the OpenMP runtime: apt install libgomp1 (dnf install libgomp)"
    if "GLIBC" in text:
        return "this wheel needs glibc 2.38 or newer: use CPython 3.10 and its wheel (suffix 22.4)"
    return _interpreter_advice()


def _explanation(error: ImportError) -> str:
    """Name the first thing that is wrong, or the import's own words."""
    for finding in (_check_interpreter(), _check_platform(), _check_wheel()):
        if not finding.usable:
            return f"OpenFHE cannot be used: {finding.subject} is {finding.found}; {finding.advice}"
    return f"OpenFHE cannot be imported ({_first_line(error)}): {_import_advice(error)}"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split(".") if part.isdigit())
