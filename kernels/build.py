"""`python -m tacit.kernels.build`: compile the kernels where the package lies."""

from __future__ import annotations

import subprocess
import sys

from tacit.errors import UnusableEnvironmentError
from tacit.kernels.compile_sources import compile_library, find_compiler, library_path
from tacit.kernels.library import load


def build_if_stale() -> bool:
    """Compile the kernels unless the library fits the present sources.

    Returns:
        Whether there is a library now: False without a compiler.

    Raises:
        UnusableEnvironmentError: the compiler fails.
    """
    try:
        load()
    except UnusableEnvironmentError:
        if find_compiler() is None:
            return False
        build()
        load()
    return True


def build() -> None:
    """Compile the kernels into the package's folder.

    Raises:
        UnusableEnvironmentError: there is no compiler, or it fails.
    """
    try:
        compile_library()
    except FileNotFoundError as error:
        raise UnusableEnvironmentError(str(error)) from error
    except subprocess.CalledProcessError as error:
        raise UnusableEnvironmentError(f"the C++ compiler failed:\n{error.stderr}") from error


if __name__ == "__main__":
    build()
    sys.stdout.write(f"built {library_path()}\n")
