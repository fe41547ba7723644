"""Compile the CPU kernels into the wheel where there is a C++ compiler; without one it is pure."""

from __future__ import annotations

import importlib.util
import subprocess
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class KernelsBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds `kernels/_native-*.so` to wheels, and leaves it in place for editable installs."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and say what was built; a failure leaves a wheel without kernels."""
        kernels = _compile_sources(Path(self.root))
        try:
            if not kernels.library_path().exists():
                kernels.compile_library()
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            reason = getattr(error, "stderr", None) or error
            self.app.display_warning(f"no native kernels, OpenFHE does the work: {reason}")
            return
        if version == "editable":
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["artifacts"].append(f"/kernels/{kernels.library_path().name}")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"


def _compile_sources(root: Path) -> ModuleType:
    """Load kernels/compile_sources.py by its path: the package is not installed yet."""
    place = root / "kernels" / "compile_sources.py"
    spec = importlib.util.spec_from_file_location("compile_sources", place)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
