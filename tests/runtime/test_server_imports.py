"""The serving process never loads OpenFHE, the compiler or the client."""

import os
import subprocess
import sys

CHECK = """
import sys
import tacit.runtime.server, tacit.runtime.worker, tacit.runtime.session
rooms = ("openfhe", "onnx", "torch", "tacit.client", "tacit.model_compiler")
found = [m for m in sys.modules if m in rooms or m.startswith(tuple(r + "." for r in rooms))]
sys.exit(" ".join(found) or 0)
"""


def test_importing_the_server_loads_no_openfhe_compiler_or_client() -> None:
    path = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, "-c", CHECK],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
