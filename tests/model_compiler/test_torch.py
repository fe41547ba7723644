"""The PyTorch front end: modules compiled, and retrained with polynomial activations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tacit
from tacit.errors import (
    InputShapeError,
    ModelError,
    ParameterError,
    UnusableEnvironmentError,
)
from tacit.model_compiler.options import CompileOptions
from tacit.params import CryptoParams, Security
from tacit.runtime.simulate import simulate

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'tacit[torch]'")
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

SIDE = 8


def _images(count: int, seed: int) -> tuple[Any, Any]:
    """Draw bars that are horizontal, vertical, diagonal or crossed, with noise."""
    generator = np.random.default_rng(seed)
    kinds = generator.integers(4, size=count)
    images = generator.normal(0.0, 0.35, size=(count, 1, SIDE, SIDE))
    for image, kind in zip(images, kinds, strict=True):
        at, height = int(generator.integers(2, SIDE - 2)), generator.uniform(0.7, 1.3)
        if kind in (0, 3):
            image[0, at, :] += height
        if kind in (1, 3):
            image[0, :, at] += height
        if kind == 2:
            np.fill_diagonal(image[0], np.diagonal(image[0]) + 1.3 * height)
    return torch.tensor(images, dtype=torch.float32), torch.tensor(kinds)


class Network(nn.Module):  # type: ignore[misc]
    """Two convolutions with batch norm and relu, max pooling, two dense layers."""

    def __init__(self, *, functions: bool = False) -> None:
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.norm2 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.relu1, self.relu2, self.relu3 = nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.hidden, self.out = nn.Linear(8 * 4, 16), nn.Linear(16, 4)
        self.functions = functions

    def forward(self, x: Any) -> Any:
        relu: Callable[..., Any] = functional.relu
        one, two, three = (
            (relu, relu, relu) if self.functions else (self.relu1, self.relu2, self.relu3)
        )
        x = self.pool(one(self.norm1(self.first(x))))
        x = self.pool(two(self.norm2(self.second(x))))
        return self.out(three(self.hidden(torch.flatten(x, 1))))


def _batches(images: Any, kinds: Any, size: int = 64) -> list[tuple[Any, Any]]:
    return [(images[i : i + size], kinds[i : i + size]) for i in range(0, len(images), size)]


def _accuracy(module: Any, images: Any, kinds: Any) -> float:
    with torch.no_grad():
        return float((module.eval()(images).argmax(1) == kinds).float().mean())


TRAIN, TEST = _images(2048, 1), _images(2000, 2)


@pytest.fixture(scope="module")
def trained() -> Network:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = Network()
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(6):
        network.train()
        for images, kinds in _batches(*TRAIN):
            optimiser.zero_grad()
            functional.cross_entropy(network(images), kinds).backward()
            optimiser.step()
    assert _accuracy(network, *TEST) > 0.95
    return network


@pytest.fixture(scope="module")
def retrained(trained: Network) -> Any:
    torch.manual_seed(1)
    return tacit.finetune(trained, _batches(*TRAIN), degree=2, epochs=6, learning_rate=2e-3)


def test_a_retrained_network_is_within_a_point_of_the_original(
    trained: Network, retrained: Any
) -> None:
    assert _accuracy(retrained, *TEST) >= _accuracy(trained, *TEST) - 0.01
    kinds = {type(part).__name__ for part in retrained.modules()}
    assert "PolynomialActivation" in kinds
    assert not kinds & {"ReLU", "MaxPool2d"}
    assert {type(part).__name__ for part in trained.modules()} >= {"ReLU", "MaxPool2d"}


@pytest.mark.parametrize("exporter", ["auto", "torchscript"])
def test_the_compiled_retrained_network_computes_what_the_module_computes(
    retrained: Any, tmp_path: Path, exporter: Any
) -> None:
    images = TRAIN[0][:500]
    params = CryptoParams.choose(11, 8, 45, 55, 3, Security.UNCHECKED_INSECURE)
    options = CompileOptions(params=params, plans=("latency",))
    artifact = tacit.compile(retrained, images, tmp_path, options=options, exporter=exporter)
    assert artifact.report["depth"] == 7  # three squares, four linear maps
    (spec,) = artifact.signature.plans[0].inputs
    tests = np.clip(TEST[0][:200].numpy().reshape(200, -1), spec.low, spec.high)
    got = next(iter(simulate(artifact, tests).outputs.values()))
    with torch.no_grad():
        expected = retrained(torch.tensor(tests.reshape(-1, 1, SIDE, SIDE)).float()).numpy()
    assert np.abs(got - expected).max() <= 1e-4 * np.ptp(expected)


def test_a_module_with_ordinary_activations_is_compiled_too(tmp_path: Path) -> None:
    torch.manual_seed(2)
    module = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    rows = torch.randn(256, 6)
    options = CompileOptions(name="dense", accuracy=0.01, precision_bits=12)
    artifact = tacit.compile(module, rows, tmp_path, options=options)
    assert artifact.signature.model == "dense"
    got = next(iter(simulate(artifact, rows.numpy()).outputs.values()))
    expected = module(rows).detach().numpy()
    assert np.sqrt(np.mean((got - expected) ** 2)) < 0.02 * np.ptp(expected)
    assert module.training


def test_activations_called_as_functions_are_replaced(trained: Network) -> None:
    network = Network(functions=True)
    network.load_state_dict(trained.state_dict())
    made = tacit.finetune(network, _batches(*TRAIN)[:4], degree=4, epochs=1)
    found = [p for p in made.modules() if type(p).__name__ == "PolynomialActivation"]
    assert len(found) == 3
    assert all(len(part.coefficients) == 5 for part in found)


def test_an_activation_that_writes_the_output_stays() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1), nn.Sigmoid())
    rows = torch.randn(64, 4)
    batches = [(rows, (rows[:, :1] > 0).float())]
    made = tacit.finetune(module, batches, epochs=1, loss=nn.BCELoss())
    kinds = [type(part).__name__ for part in made]
    assert kinds == ["Linear", "PolynomialActivation", "Linear", "Sigmoid"]


def test_values_beyond_the_range_are_penalised() -> None:
    torch.manual_seed(3)
    module = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))
    narrow, wide = torch.randn(256, 4), 3.0 * torch.randn(256, 4)
    batches = [(narrow, narrow[:, :1]), (wide, wide[:, :1])] * 20
    excess = {}
    for weight in (0.0, 10.0):
        torch.manual_seed(4)
        # The polynomials are fitted to the first batches alone.
        first = [(narrow, narrow[:, :1])] * 8
        made = tacit.finetune(
            module, [*first, *batches], epochs=3, range_weight=weight, learning_rate=1e-2
        )
        made(wide)
        excess[weight] = float(made[1].excess.detach())
    assert excess[10.0] < 0.5 * excess[0.0]


OPTIONS: list[dict[str, Any]] = [
    {"degree": 1}, {"degree": 5}, {"epochs": 0}, {"learning_rate": 0.0}, {"margin": 0.5},
    {"range_weight": -1.0},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options_out_of_bounds_are_refused(options: dict[str, Any]) -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    with pytest.raises(ParameterError):
        tacit.finetune(module, [(torch.randn(4, 4), torch.randn(4, 1))], **options)


def test_what_cannot_be_retrained_is_refused() -> None:
    with pytest.raises(ModelError, match="no hidden activation"):
        tacit.finetune(nn.Linear(4, 1), [(torch.randn(4, 4), torch.randn(4, 1))])
    with pytest.raises(ModelError, match="no batch"):
        tacit.finetune(nn.Sequential(nn.ReLU()), [])
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    rows = torch.full((4, 4), float("inf"))
    with pytest.raises(ModelError, match=r"diverges|finite"):
        tacit.finetune(module, [(torch.randn(4, 4), torch.randn(4, 1))] * 8 + [(rows, rows[:, :1])])


class Branching(nn.Module):  # type: ignore[misc]
    """Decides by a value, which no exporter can follow."""

    def forward(self, x: Any) -> Any:
        return x * 2.0 if float(x.sum()) > 0.0 else x.relu()


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot export Branching"):
        tacit.compile(Branching(), torch.randn(4, 4), tmp_path, exporter="dynamo")
    with pytest.raises(InputShapeError):
        tacit.compile(nn.Linear(4, 1), "text", tmp_path)
    with pytest.raises(InputShapeError, match="rows"):
        tacit.compile(nn.Linear(4, 1), torch.tensor(1.0), tmp_path)
    with pytest.raises(ParameterError, match="exporter"):
        tacit.compile(nn.Linear(4, 1), torch.randn(4, 4), tmp_path, exporter="x")  # type: ignore[arg-type]


def test_without_torch_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(UnusableEnvironmentError, match=r"tacit\[torch\]"):
        tacit.compile(object(), np.ones((2, 2)), tmp_path)
