"""Where the driver and compiled kernels come from: NVIDIA's, or for tests a simulation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tacit.kernels.cuda.driver import Driver
from tacit.kernels.cuda.image import Nvrtc, cubin, default_cache
from tacit.kernels.cuda.interface import Abilities


class Toolchain(Protocol):
    """A driver, and kernels that it takes."""

    def driver(self) -> Driver:
        """Load the driver.

        Raises:
            UnusableEnvironmentError: no driver, too old a driver, or no device.
        """
        ...

    def image_for(self, log_n: int, abilities: Abilities) -> bytes:
        """Return the kernels of a ring for a device, compiled on first use.

        Raises:
            UnusableEnvironmentError: there is no compiler that knows the device.
        """
        ...

    def check_compiler(self) -> None:
        """Check that kernels can be compiled.

        Raises:
            UnusableEnvironmentError: there is no compiler.
        """
        ...


@dataclass(frozen=True, slots=True)
class Nvidia:
    """The machine's own driver, and NVRTC.

    Attributes:
        cache: folder of compiled kernels; None for the user's.
    """

    cache: Path | None = None

    def driver(self) -> Driver:
        """Load libcuda; see `Toolchain`."""
        return Driver()

    def image_for(self, log_n: int, abilities: Abilities) -> bytes:
        """Compile, or read from the cache; see `Toolchain`."""
        cache = default_cache() if self.cache is None else self.cache
        return cubin(log_n, abilities.compute, doubles=abilities.doubles, cache=cache)

    def check_compiler(self) -> None:
        """Load NVRTC; see `Toolchain`."""
        Nvrtc()
