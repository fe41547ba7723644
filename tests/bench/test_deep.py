from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from rich.console import Console

from bench import deep
from bench.deep_images import Images, cifar_images
from bench.question import Options
from bench.record import look_around


def test_absent_files_are_skipped_with_a_line(tmp_path: Path) -> None:
    text = io.StringIO()
    answer = deep.run(Options(models=tmp_path), Console(file=text, width=200))
    assert answer.records == []
    assert answer.failures == []
    lines = text.getvalue().splitlines()
    assert len(lines) == 3
    assert all("skipped" in line for line in lines)


def test_cifar_images_are_normalised_channel_by_channel(tmp_path: Path) -> None:
    assert cifar_images(tmp_path) is None
    folder = tmp_path / "cifar10"
    folder.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
    for part in ("calibration", "test"):
        np.savez(folder / f"cifar10_{part}_100.npz", images=images, labels=np.arange(4))
    found = cifar_images(tmp_path)
    assert found is not None
    np.testing.assert_allclose(
        found.test[:, 2], (images[:, 2] / 255.0 - 0.406) / 0.225, rtol=0, atol=1e-12
    )
    np.testing.assert_array_equal(found.labels, np.arange(4))


def test_losses_and_agreement_are_those_of_the_argmax() -> None:
    exact = np.array([[0.0, 1.0], [1.0, 0.0], [0.2, 0.1], [0.0, 2.0]])
    simulated = np.array([[0.0, 1.0], [0.0, 1.0], [0.2, 0.1], [0.0, 2.0]])
    images = Images(exact, exact, np.array([1, 0, 0, 0]), "none")
    found = deep._accuracy(exact, simulated, images)
    assert found == {"clear_accuracy": 0.75, "accuracy_loss": 0.25, "simulated_agreement": 0.75}
    agreed = deep._agreement(exact, simulated, exact)
    assert agreed == {"argmax_agreement": 0.75, "error_of_logit_range": 0.5}


def test_time_and_memory_are_drawn_by_layer(tmp_path: Path) -> None:
    layers = {
        "seconds_by_layer": {"conv": 1.0, "relu": 2.5},
        "memory_by_layer": {"conv": 1 << 30, "relu": 2 << 30},
    }
    record = look_around().record("deep", "resnet20", "tacit", "seconds", 3.5, "s", layers)
    deep.draw([record], tmp_path / "deep.png")
    assert (tmp_path / "deep.png").stat().st_size > 1000
