"""Question `deep`: real ONNX files of deep networks, unmodified, encrypted from end to end.

For each file: compile in one process, make keys and encrypt here, serve in another process, decrypt
here. Answers are compared with the simulated circuit, and simulated ones with the float model.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console

from bench.deep_images import Images, cifar_images, digit_images
from bench.question import Answer, Options
from bench.record import Record, Surroundings, look_around
from tacit import packing
from tacit.artifact import Artifact, load
from tacit.client.codec import Codec
from tacit.client.keys import KeyPair
from tacit.model_compiler.graph import evaluate
from tacit.model_compiler.onnx_import import import_onnx
from tacit.runtime.simulate import simulate

__all__ = ["NAME", "SUMMARY", "draw", "measure_network", "run"]

NAME = "deep"
SUMMARY = "MNIST and CIFAR-10 networks with ReLU from ONNX files (--models, --data): one image"
ENCRYPTED_IMAGES = 3
_WORKLOADS = {
    "mnist cntk": "mnist_cntk_zoo.onnx",
    "mnist pytorch": "mnist_conv_pytorch.onnx",
    "resnet20": "resnet20_cifar10.onnx",
}
_UNITS = {
    "seconds": "s",
    "compile_seconds": "s",
    "key_bytes": "bytes",
    "peak_memory_bytes": "bytes",
    "compile_peak_memory_bytes": "bytes",
}

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """One network with its images."""

    name: str
    model: Path
    images: Images


def run(options: Options, console: Console) -> Answer:
    """Measure every network whose file is there; say which are skipped."""
    answer, around = Answer(), look_around()
    for name, file in _WORKLOADS.items():
        workload = _workload(name, file, options, console)
        if workload is None:
            continue
        try:
            count = 1 if options.quick else options.rounds or ENCRYPTED_IMAGES
            answer.records += measure_network(workload, count, around, console)
        except (RuntimeError, OSError) as error:
            answer.failures.append(f"{name}: {error}")
    return answer


def _workload(name: str, file: str, options: Options, console: Console) -> Workload | None:
    path = None if options.models is None else options.models / file
    if path is None or not path.is_file():
        console.print(f"{name}: skipped, no {file}; give its folder as --models DIR")
        return None
    if name != "resnet20":
        return Workload(name, path, digit_images(normalised=name == "mnist pytorch"))
    images = None if options.data is None else cifar_images(options.data)
    if images is None:
        console.print(f"{name}: skipped, no cifar10 images; give their folder as --data DIR")
        return None
    return Workload(name, path, images)


def measure_network(
    workload: Workload, encrypted: int, around: Surroundings, console: Console
) -> list[Record]:
    """Compile, simulate and serve one network.

    Args:
        workload: the network.
        encrypted: images that are encrypted.
        around: of the records.
        console: for progress.

    Raises:
        RuntimeError: a process failed.
    """
    with tempfile.TemporaryDirectory(prefix="tacit-bench-") as name:
        folder = Path(name)
        figures = _compiled(workload, folder)
        console.print(f"{workload.name}: compiled in {figures['compile_seconds']:.1f} s")
        artifact = load(folder / "model")
        exact = _exact(workload)
        noisy = _simulated(artifact, workload.images.test, noise=True)
        figures |= _accuracy(exact, noisy, workload.images)
        served, encrypted_logits = _served(artifact, folder, workload.images.test[:encrypted])
        console.print(f"{workload.name}: answered in {np.median(served['seconds']):.1f} s")
        plain = _simulated(artifact, workload.images.test[:encrypted], noise=False)
        figures |= _agreement(plain, encrypted_logits, exact)
        figures["key_bytes"] = float(artifact.signature.key_bytes)
        figures["peak_memory_bytes"] = float(served["peak_memory_bytes"])
    return _records(workload, artifact, figures, served, around)


def _compiled(workload: Workload, folder: Path) -> dict[str, float]:
    calibration = folder / "calibration.npy"
    np.save(calibration, workload.images.calibration)
    found = _work(
        "compile", model=workload.model, calibration=calibration, directory=folder / "model"
    )
    return {
        "compile_seconds": float(found["compile_seconds"]),
        "compile_peak_memory_bytes": float(found["peak_memory_bytes"]),
    }


def _served(artifact: Artifact, folder: Path, rows: Floats) -> tuple[dict[str, Any], Floats]:
    """Make keys, encrypt, let another process answer, and decrypt."""
    signature, frames = artifact.signature, folder / "frames"
    keys = KeyPair.for_model(signature, folder / "keys")
    codec, plan = Codec(signature, keys), signature.plan("latency")
    frames.mkdir()
    for index, entry in enumerate(keys.facts.frames):
        (frames / f"key-{index:04d}").symlink_to(keys.folder.file(entry))
    vectors = packing.pack(plan, packing.core_inputs(signature, _clipped(artifact, rows)))
    for index, request in enumerate(codec.encrypt(plan, vectors)):
        part = frames / f"input-{index:04d}"
        part.mkdir()
        for place, frame in enumerate(request):
            (part / f"{place:04d}").write_bytes(frame)
    found = _work("serve", directory=folder / "model", frames=frames)
    answers = [
        [path.read_bytes() for path in sorted(part.iterdir())]
        for part in sorted(frames.glob("output-*"))
    ]
    slots = codec.decrypt(plan, answers)
    return found, _logits(packing.model_outputs(signature, packing.unpack(plan, slots, len(rows))))


def _clipped(artifact: Artifact, rows: Floats) -> dict[str, Floats]:
    """Move what lies outside the calibrated range to its edge."""
    (name,) = artifact.signature.model_inputs
    (spec,) = artifact.signature.plan("latency").inputs
    flat = np.clip(rows.reshape(len(rows), -1), spec.low, spec.high)
    return {name: flat.reshape(rows.shape)}


def _work(work: str, **paths: Path) -> dict[str, Any]:
    """Run a worker process to its end."""
    task = {"work": work, **{name: str(path) for name, path in paths.items()}}
    command = [sys.executable, "-m", "bench.deep_worker"]
    done = subprocess.run(command, input=json.dumps(task), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{work} failed: {done.stderr.strip().splitlines()[-1:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _exact(workload: Workload) -> Floats:
    """Run the float model."""
    graph = import_onnx(workload.model, name=workload.name, keep_on_server=True)
    rows = workload.images.test.reshape(len(workload.images.test), -1)
    return evaluate(graph, {graph.inputs[0]: rows})[graph.outputs[0]]


def _simulated(artifact: Artifact, rows: Floats, *, noise: bool) -> Floats:
    return _logits(simulate(artifact, rows, "latency", noise, clip=True).outputs)


def _logits(outputs: Any) -> Floats:
    (values,) = outputs.values()
    return np.asarray(values, dtype=np.float64).reshape(len(values), -1)


def _accuracy(exact: Floats, simulated: Floats, images: Images) -> dict[str, float]:
    clear, ours = (float(np.mean(a.argmax(axis=1) == images.labels)) for a in (exact, simulated))
    return {
        "clear_accuracy": clear,
        "accuracy_loss": clear - ours,
        "simulated_agreement": float(np.mean(exact.argmax(axis=1) == simulated.argmax(axis=1))),
    }


def _agreement(plain: Floats, encrypted: Floats, exact: Floats) -> dict[str, float]:
    same = plain.argmax(axis=1) == encrypted.argmax(axis=1)
    return {
        "argmax_agreement": float(np.mean(same)),
        "error_of_logit_range": float(np.abs(plain - encrypted).max() / np.ptp(exact)),
    }


def _records(
    workload: Workload,
    artifact: Artifact,
    figures: dict[str, float],
    served: dict[str, Any],
    around: Surroundings,
) -> list[Record]:
    params = artifact.signature.params
    facts = {
        "log_n": params.log_n,
        "log_scale": params.log_scale,
        "dnum": params.dnum,
        "log_qp": round(params.log_qp, 1),
        "security": params.security.value,
        "images": workload.images.source,
        "test_images": len(workload.images.test),
        "predicted_seconds": artifact.signature.plan("latency").seconds,
    }
    samples = [float(value) for value in served["seconds"]]
    layers = {
        "seconds_by_layer": served["seconds_by_layer"],
        "memory_by_layer": served["memory_by_layer"],
        "predicted_by_layer": _predicted(artifact, served["seconds_by_layer"]),
    }

    def record(metric: str, value: float, extra: dict[str, Any], runs: Sequence[float]) -> Record:
        unit = _UNITS.get(metric, "1")
        parameters = {**facts, **extra}
        threads = int(around.hardware["cores"])
        return around.record(
            NAME, workload.name, "tacit", metric, value, unit, parameters,
            threads=threads, samples=runs,
        )  # fmt: skip

    found = [record("seconds", float(np.median(samples)), layers, samples)]
    return found + [record(name, value, {}, ()) for name, value in figures.items()]


def _predicted(artifact: Artifact, layers: Sequence[str]) -> dict[str, float]:
    """Return the seconds, on one thread, that the compiler expects of each layer."""
    plans: Any = artifact.report["plans"]
    expected = plans["latency"]["seconds_by_layer"]
    return {name: float(expected[name]) for name in layers if name in expected}


def draw(records: Sequence[Record], path: Path) -> None:
    """Draw time and memory of the server by layer, a row of panels for each network."""
    timed = [record for record in records if "seconds_by_layer" in record.parameters]
    if not timed:
        return
    layers = [len(record.parameters["seconds_by_layer"]) for record in timed]
    figure = Figure(figsize=(13, 1 + 0.8 * len(timed) + 0.16 * sum(layers)), layout="constrained")
    rows = figure.subplots(
        len(timed), 2, squeeze=False, height_ratios=[5 + count for count in layers]
    )
    for axes, record in zip(rows, timed, strict=True):
        _draw_network(axes, record)
    first = timed[0]
    machine = f"{first.hardware['cpu']}, {first.hardware['cores']} cores"
    figure.suptitle(f"{NAME}: {machine}, commit {first.commit}", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _draw_network(axes: Any, record: Record) -> None:
    """Fill two panels: seconds, measured and predicted, and the most memory resident."""
    facts = record.parameters
    layers = list(facts["seconds_by_layer"])
    names = [name if len(name) < 40 else f"{name[:39]}…" for name in layers]
    memory = [facts["memory_by_layer"][name] / 2**30 for name in layers]
    for panel, values, label in (
        (axes[0], list(facts["seconds_by_layer"].values()), "seconds"),
        (axes[1], memory, "resident GiB, peak"),
    ):
        panel.barh(range(len(names)), values, color="#0b6e4f", label="measured")
        panel.set_yticks(range(len(names)), names, fontsize=5)
        panel.invert_yaxis()
        panel.set_xlabel(label)
    expected = facts.get("predicted_by_layer", {})
    places = [place for place, name in enumerate(layers) if name in expected]
    seconds = [expected[layers[place]] for place in places]
    if places:
        label = "predicted, 1 thread"
        axes[0].plot(seconds, places, "o", color="#d1495b", markersize=3, label=label)
    axes[0].legend(fontsize=6)
    axes[0].set_title(f"{record.workload}: {record.value:.1f} s, {record.threads} threads")
