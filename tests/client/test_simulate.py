"""Simulation of a compiled model against the model itself."""

from pathlib import Path

import numpy as np
import pytest

from tacit.artifact import Artifact
from tacit.errors import ArtifactError, InputRangeError, InputShapeError
from tacit.runtime.simulate import magnitudes, simulate
from tests.client.served import BOUND, ROWS, clear_answer, compile_squared


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return compile_squared(Path(tmp_path_factory.mktemp("m")))


@pytest.mark.parametrize("plan", [None, "latency", "batch"])
def test_simulation_equals_the_model(artifact: Artifact, plan: str | None) -> None:
    found = simulate(artifact, ROWS, plan)
    assert np.abs(found.outputs["y"] - clear_answer(ROWS)).max() < 1e-6
    assert found.overflows == 0
    assert plan in (None, found.plan)


def test_noise_is_as_large_as_that_of_encryption(artifact: Artifact) -> None:
    exact = simulate(artifact, ROWS).outputs["y"]
    noisy = simulate(artifact, ROWS, noise=True).outputs["y"]
    assert 2.0**-40 < np.abs(noisy - exact).max() < BOUND
    again = simulate(artifact, ROWS, noise=True).outputs["y"]
    assert np.array_equal(noisy, again)
    assert not np.array_equal(noisy, simulate(artifact, ROWS, noise=True, seed=1).outputs["y"])


def test_many_blocks_give_the_same_as_one(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = simulate(artifact, ROWS, "latency")
    monkeypatch.setattr("tacit.runtime.simulate._BLOCK_BYTES", 1)
    blocks = simulate(artifact, ROWS, "latency")
    assert np.abs(blocks.outputs["y"] - whole.outputs["y"]).max() < 1e-9
    assert blocks.evaluations == whole.evaluations > 1


def test_mistakes_are_named(artifact: Artifact) -> None:
    with pytest.raises(InputShapeError, match="expected shape"):
        simulate(artifact, ROWS[:, :2])
    with pytest.raises(InputRangeError, match="outside"):
        simulate(artifact, ROWS * 50)
    with pytest.raises(ArtifactError, match="no plan 'x'"):
        simulate(artifact, ROWS, "x")
    clipped = simulate(artifact, ROWS * 50, clip=True)
    assert clipped.overflows == 0


@pytest.mark.parametrize("plan", ["latency", "batch"])
def test_magnitudes_are_of_every_operation_and_stay_in_range(artifact: Artifact, plan: str) -> None:
    found = magnitudes(artifact, plan, ROWS)
    assert len(found) == len(artifact.circuits[plan].nodes)
    assert 0 < max(found) < 4
