"""The demonstration: from training a model to reading a decrypted answer, over a real endpoint.

Trains a logistic regression (scikit-learn), exports it to ONNX (skl2onnx), compiles it, starts
`tacit serve` as a process of its own, makes keys, encrypts patients, predicts over HTTP, decrypts,
and compares with the model in the clear.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tacit.client.cli_common import bytes_text, milliseconds_text
from tacit.client.cli_predict import timing_lines
from tacit.client.client import Client
from tacit.client.demo_patients import Patients, read_patients, synthetic_patients
from tacit.errors import ServiceError, UnusableEnvironmentError, UserError
from tacit.precision import bits
from tacit.signature import Signature

if TYPE_CHECKING:
    from tacit.client.frames import Progress
    from tacit.client.timings import Timings

Floats = NDArray[np.float64]
Note = Callable[[str], None]
Compile = Callable[[bytes, Floats, Path], Signature]
"""Compiles an ONNX file, calibrated with rows, into a directory."""

NAME = "heart"
_PATIENTS = 600
_LARGEST_ERROR = 2.0**-15
_START_SECONDS = 60.0
_STOP_SECONDS = 20.0


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A model as an ONNX file's bytes, what it was trained on, and what it says of the others."""

    onnx: bytes
    calibration: Floats
    patients: Floats
    clear: Floats


@dataclass(frozen=True, slots=True, eq=False)
class DemoResult:
    """What the demonstration found.

    Attributes:
        source: where the patients come from.
        clear, encrypted: probabilities of disease, shape (patients,).
        stage_ms: milliseconds of training, compiling and starting the endpoint.
        first, second: timings of the first prediction (keys included) and of the next.
        params: the CKKS parameters, in words.
    """

    source: str
    clear: Floats
    encrypted: Floats
    stage_ms: dict[str, float]
    first: Timings
    second: Timings
    params: str

    @property
    def largest_error(self) -> float:
        """Largest difference of a probability."""
        return float(np.abs(self.encrypted - self.clear).max())

    @property
    def precise(self) -> bool:
        """Whether every probability is right to 15 bits."""
        return self.largest_error <= _LARGEST_ERROR

    def to_json(self) -> dict[str, object]:
        """Return a JSON-serialisable dict."""
        return {
            "source": self.source,
            "params": self.params,
            "clear": self.clear.tolist(),
            "encrypted": self.encrypted.tolist(),
            "largest_error": self.largest_error,
            "error_bits": min(bits(self.largest_error), 53.0),
            "precise": self.precise,
            "stage_ms": {name: round(ms, 3) for name, ms in self.stage_ms.items()},
            "first": self.first.to_json(),
            "second": self.second.to_json(),
        }


def run(
    csv: Path | None, rows: int, compile_onnx: Compile, note: Note, progress: Progress
) -> DemoResult:
    """Run the demonstration.

    Args:
        csv: a UCI file or folder; None for synthetic patients.
        rows: patients to predict.
        compile_onnx: the compiler, which this room may not name.
        note: hears what happens next, one line at a time.
        progress: see `tacit.client.frames.Progress`.

    Raises:
        UserError: too few patients, or a package of the extra `demo` is missing.
        ServiceError: the endpoint did not start.
    """
    stage_ms: dict[str, float] = {}
    patients = synthetic_patients(_PATIENTS + rows) if csv is None else read_patients(csv)
    with tempfile.TemporaryDirectory(prefix="tacit-demo-") as name:
        folder = Path(name)
        note(f"training a logistic regression on {patients.source}")
        with _timed(stage_ms, "train"):
            trained = train(patients, rows)
        note("compiling it into encrypted circuits")
        with _timed(stage_ms, "compile"):
            directory = folder / "models" / NAME / "1"
            signature = compile_onnx(trained.onnx, trained.calibration, directory)
        note("starting the endpoint")
        with (
            _serving(folder, stage_ms) as url,
            Client(url, key_dir=folder / "keys", progress=progress) as client,
        ):
            size = bytes_text(signature.key_bytes)
            note(f"making keys, uploading them (at most {size}), encrypting patients, predicting")
            outputs = client.predict_all(NAME, trained.patients)
            first = client.last_timings
            client.predict_all(NAME, trained.patients)
            second = client.last_timings
    params = signature.params
    words = (
        f"N = 2^{params.log_n}, {params.depth} levels of {params.log_scale} bits, "
        f"log2(QP) = {params.log_qp:.0f}, {params.security.value}"
    )
    encrypted = np.asarray(list(outputs.values())[-1], dtype=np.float64)[:, 1]
    return DemoResult(patients.source, trained.clear, encrypted, stage_ms, first, second, words)


def train(patients: Patients, rows: int) -> Trained:
    """Train on all but the last patients, and export the model.

    The patients held out to be predicted lie within the values seen in training, because a model
    refuses what lies far outside its calibrated range.

    Raises:
        UserError: too few patients, or a package of the extra `demo` is missing.
    """
    try:
        from skl2onnx import to_onnx
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise UnusableEnvironmentError(
            f"the demonstration needs {error.name}: pip install 'tacit[demo]'"
        ) from error
    order = np.random.default_rng(0).permutation(len(patients.rows))
    training, others = order[: len(order) * 3 // 4], order[len(order) * 3 // 4 :]
    seen = patients.rows[training]
    inside = np.all((patients.rows >= seen.min(0)) & (patients.rows <= seen.max(0)), axis=1)
    held_out = patients.rows[[i for i in others if inside[i]]][:rows]
    if len(held_out) < rows:
        raise UserError(f"{len(held_out)} patients are left to predict: ask for fewer rows")
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(seen, patients.diseased[training])
    exported = to_onnx(model, seen[:1].astype(np.float32), options={"zipmap": False})
    return Trained(exported.SerializeToString(), seen, held_out, _clear(model, held_out))


def table_lines(result: DemoResult) -> list[str]:
    """Describe the result: a table of patients, then bytes and milliseconds."""
    lines = [result.source, result.params, ""]
    lines.append(f"{'patient':>7}  {'clear':>9}  {'encrypted':>9}  {'error, bits':>11}")
    for number, (clear, encrypted) in enumerate(
        zip(result.clear, result.encrypted, strict=True), start=1
    ):
        right = min(bits(abs(encrypted - clear)), 53.0)
        lines.append(f"{number:>7}  {clear:>9.6f}  {encrypted:>9.6f}  {right:>11.1f}")
    prepared = "  ".join(f"{n} {milliseconds_text(ms)}" for n, ms in result.stage_ms.items())
    lines += ["", prepared, "", f"first prediction, plan {result.first.plan!r}, keys included:"]
    lines += [f"  {line}" for line in timing_lines(result.first)]
    lines += ["the same again:", *(f"  {line}" for line in timing_lines(result.second)), ""]
    verdict = "right to" if result.precise else "NOT PRECISE ENOUGH, right to"
    lines.append(f"every probability is {verdict} {bits(result.largest_error):.1f} bits")
    return lines


def _clear(model: object, rows: Floats) -> Floats:
    probabilities: Floats = model.predict_proba(rows)  # type: ignore[attr-defined]
    return probabilities[:, 1]


@contextmanager
def _timed(stage_ms: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    stage_ms[name] = 1e3 * (time.perf_counter() - start)


@contextmanager
def _serving(folder: Path, stage_ms: dict[str, float]) -> Iterator[str]:
    """Run `tacit serve` on free ports; gives its URL."""
    command = [sys.executable, "-m", "tacit.client.cli", "serve", str(folder / "models")]
    command += ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
    out, log = folder / "serve.out", folder / "serve.log"
    start = time.perf_counter()
    with out.open("wb") as out_file, log.open("wb") as log_file:
        server = subprocess.Popen(command, stdout=out_file, stderr=log_file)
        try:
            url = _ready_url(server, out, log)
            stage_ms["start"] = 1e3 * (time.perf_counter() - start)
            yield url
        finally:
            server.terminate()
            try:
                server.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _ready_url(server: subprocess.Popen[bytes], out: Path, log: Path) -> str:
    """Wait for the line in which the server names its ports."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        line = out.read_text()
        if line.startswith("ready: http ") and line.endswith("\n"):
            return "http://" + line.split()[2].rstrip(",")
        if server.poll() is not None:
            break
        time.sleep(0.05)
    said = log.read_text().strip().splitlines()
    raise ServiceError(f"the endpoint did not start: {said[-1] if said else 'it said nothing'}")
