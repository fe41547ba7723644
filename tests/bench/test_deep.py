from __future__ import annotations

import io
import mmap
import os
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from bench import deep, deep_worker
from bench.deep_images import Images, cifar_images
from bench.question import Options
from bench.record import Record, look_around


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


def _record(workload: str) -> Record:
    layers = {
        "seconds_by_layer": {"conv": 1.0, "relu": 2.5},
        "memory_by_layer": {"conv": 1 << 30, "relu": 2 << 30},
        "predicted_by_layer": {"relu": 2.25},
    }
    return look_around().record("deep", workload, "tacit", "seconds", 3.5, "s", layers)


def test_time_and_memory_are_drawn_by_layer(tmp_path: Path) -> None:
    deep.draw([_record("mnist"), _record("resnet20")], tmp_path / "deep.png")
    assert (tmp_path / "deep.png").stat().st_size > 1000
    seconds, memory = Figure().subplots(1, 2)
    deep._draw_network((seconds, memory), _record("resnet20"))
    assert [bar.get_width() for bar in seconds.patches] == [1.0, 2.5]
    assert [bar.get_width() for bar in memory.patches] == [1.0, 2.0]
    (predicted,) = seconds.lines
    assert (list(predicted.get_xdata()), list(predicted.get_ydata())) == ([2.25], [1])
    assert [text.get_text() for text in seconds.get_yticklabels()] == ["conv", "relu"]


def test_records_without_layers_draw_nothing(tmp_path: Path) -> None:
    deep.draw([look_around().record("deep", "m", "tacit", "x", 1.0, "s", {})], tmp_path / "d.png")
    assert not (tmp_path / "d.png").exists()


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="peaks are not reset")
def test_a_layer_s_memory_is_its_own_peak() -> None:
    gauge = deep_worker._Gauge()
    clock = deep_worker._Clock(["small", "large", "small again"], gauge)
    clock.heard(1, 3)
    with mmap.mmap(-1, 128 << 20) as fresh:  # gone before the layer ends; never memory used before
        for page in range(0, len(fresh), mmap.PAGESIZE):
            fresh[page] = 1
    clock.heard(2, 3)
    clock.heard(3, 3)
    clock.heard(4, 3)  # no such layer
    assert list(clock.seconds) == list(clock.memory) == ["small", "large", "small again"]
    assert clock.memory["large"] - clock.memory["small"] > 100 << 20
    assert clock.memory["large"] - clock.memory["small again"] > 100 << 20
    assert gauge.highest >= clock.memory["large"]
