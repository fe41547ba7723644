"""Activations as trainable polynomials of low degree, in a PyTorch module.

Imports torch: reached only through `torch_export` and `torch_finetune`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn
from torch.nn import functional

Tensor = Any

# Share of the fit's weight that is spread evenly over the range, so that tails stay bounded.
_EVEN = 0.05
_POINTS = 512

_MODULES: tuple[type[Any], ...] = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ELU,
    nn.SELU,
    nn.CELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Sigmoid,
    nn.Tanh,
    nn.Softplus,
    nn.Softsign,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.Hardtanh,
)
_FUNCTIONS: dict[Callable[..., Any], type[Any]] = {
    torch.relu: nn.ReLU,
    functional.relu: nn.ReLU,
    functional.silu: nn.SiLU,
    functional.gelu: nn.GELU,
    functional.elu: nn.ELU,
    functional.selu: nn.SELU,
    functional.leaky_relu: nn.LeakyReLU,
    functional.relu6: nn.ReLU6,
    functional.mish: nn.Mish,
    functional.hardswish: nn.Hardswish,
    functional.softplus: nn.Softplus,
    torch.sigmoid: nn.Sigmoid,
    torch.tanh: nn.Tanh,
}
_METHODS: dict[str, type[Any]] = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}


class PolynomialActivation(nn.Module):  # type: ignore[misc]
    """sum_k coefficients[k] u^k with u = (x - center) / half_width, element by element.

    Attributes:
        coefficients: trainable, shape (degree + 1,).
        center: middle of the range it was fitted to.
        half_width: half of its width.
        excess: mean square of how far the last inputs reached beyond |u| = inside, for a penalty.
    """

    def __init__(
        self, coefficients: NDArray[np.float64], center: float, half_width: float, inside: float
    ) -> None:
        """Start from a fit."""
        super().__init__()
        start = torch.tensor(np.asarray(coefficients), dtype=torch.float32)
        self.coefficients = nn.Parameter(start)
        self.center, self.half_width, self.inside = center, half_width, inside
        self.excess: Tensor = torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        """Evaluate by Horner's rule."""
        u = (x - self.center) / self.half_width
        self.excess = functional.relu(u.abs() - self.inside).square().mean()
        return _horner(u, list(self.coefficients.unbind()))

    def extra_repr(self) -> str:
        """Describe degree and range."""
        low, high = self.center - self.half_width, self.center + self.half_width
        return f"degree={len(self.coefficients) - 1}, range=[{low:.3g}, {high:.3g}]"


class FrozenPolynomial(nn.Module):  # type: ignore[misc]
    """A polynomial in x with plain numbers, which exporters write as Mul and Add."""

    def __init__(self, coefficients: tuple[float, ...]) -> None:
        """Keep c0, c1, ... of the power basis."""
        super().__init__()
        self.coefficients = coefficients

    def forward(self, x: Tensor) -> Tensor:
        """Evaluate by Horner's rule."""
        return _horner(x, list(self.coefficients))


def _horner(x: Tensor, coefficients: list[Any]) -> Tensor:
    total = coefficients[-1] * x + coefficients[-2]
    for coefficient in reversed(coefficients[:-2]):
        total = total * x + coefficient
    return total


def polynomials(module: Any) -> Iterator[PolynomialActivation]:
    """List the trainable polynomials of a module."""
    return (part for part in module.modules() if isinstance(part, PolynomialActivation))


def with_frozen_polynomials(module: Any) -> Any:
    """Replace trainable polynomials in place by those with plain numbers; returns the module."""
    return _replaced(module, lambda part: _frozen(part))


def _frozen(part: Any) -> Any:
    if not isinstance(part, PolynomialActivation):
        return None
    unit = np.array([-part.center / part.half_width, 1.0 / part.half_width])
    total = np.zeros(1)
    for coefficient in part.coefficients.detach().double().numpy()[::-1]:
        total = np.polynomial.polynomial.polyadd(
            np.polynomial.polynomial.polymul(total, unit), [coefficient]
        )
    return FrozenPolynomial(tuple(float(c) for c in total))


def with_activation_modules(module: Any) -> Any:
    """Write activations called as functions as modules, where torch.fx can trace the module.

    Returns:
        The module itself where there is nothing to do, or it cannot be traced.
    """
    try:
        traced = fx.symbolic_trace(module)
    except Exception:  # data-dependent control flow and the like: only modules are replaced
        return module
    found = [node for node in traced.graph.nodes if _as_module(node) is not None]
    for number, node in enumerate(found):
        name = f"activation_{number}"
        traced.add_submodule(name, _as_module(node))
        with traced.graph.inserting_after(node):
            called = traced.graph.call_module(name, (node.args[0],))
        node.replace_all_uses_with(called)
        traced.graph.erase_node(node)
    if not found:
        return module
    traced.recompile()
    return traced


def _as_module(node: Any) -> Any:
    if node.op == "call_method" and node.target in _METHODS and len(node.args) == 1:
        return _METHODS[node.target]()
    if node.op != "call_function" or node.target not in _FUNCTIONS or len(node.args) != 1:
        return None
    given = {k: v for k, v in node.kwargs.items() if k != "inplace"}
    return _FUNCTIONS[node.target](**given)


def without_max_pools(module: Any) -> Any:
    """Replace max pooling in place by average pooling of the same windows; returns the module."""
    return _replaced(module, _average_pool)


def _average_pool(part: Any) -> Any:
    pairs = {nn.MaxPool1d: nn.AvgPool1d, nn.MaxPool2d: nn.AvgPool2d, nn.MaxPool3d: nn.AvgPool3d}
    kind = pairs.get(type(part))
    if kind is None or part.dilation not in (1, (1, 1), (1, 1, 1)) or part.return_indices:
        return None
    return kind(
        part.kernel_size, part.stride, part.padding, part.ceil_mode, count_include_pad=False
    )


class _Watch:
    """What one activation reads, on a few batches."""

    def __init__(self) -> None:
        self.values: list[NDArray[np.float32]] = []
        self.low, self.high = np.inf, -np.inf
        self.output: Tensor = None

    def __call__(self, part: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        flat = inputs[0].detach().float().flatten()
        self.low = min(self.low, float(flat.min()))
        self.high = max(self.high, float(flat.max()))
        step = max(1, flat.numel() // 4096)
        self.values.append(flat[::step].cpu().numpy())
        self.output = output


def replace_activations(
    module: Any, batches: list[Tensor], degree: int, margin: float
) -> tuple[str, ...]:
    """Replace hidden activations in place by polynomials fitted to what they read.

    Args:
        module: in eval mode.
        batches: inputs that are typical.
        degree: of the polynomials.
        margin: how much wider the polynomial's range is than what was read.

    Returns:
        The names of what was replaced. What writes the module's output stays.
    """
    watches = {
        name: _Watch() for name, part in module.named_modules() if isinstance(part, _MODULES)
    }
    handles = [module.get_submodule(n).register_forward_hook(w) for n, w in watches.items()]
    last: Tensor = None
    with torch.no_grad():
        for batch in batches:
            last = module(batch)
    for handle in handles:
        handle.remove()
    hidden = {n: w for n, w in watches.items() if w.values and w.output is not last}
    for name, watch in hidden.items():
        parent, _, attribute = name.rpartition(".")
        made = _fitted(module.get_submodule(name), watch, degree, margin)
        setattr(module.get_submodule(parent), attribute, made)
    return tuple(hidden)


def _fitted(part: Any, watch: _Watch, degree: int, margin: float) -> PolynomialActivation:
    """Fit by least squares, on what was read and a little on the whole range."""
    center = (watch.low + watch.high) / 2.0
    half_width = max(margin * (watch.high - watch.low) / 2.0, 1e-3)
    read = (np.concatenate(watch.values).astype(np.float64) - center) / half_width
    even = np.linspace(-1.0, 1.0, _POINTS)
    u = np.concatenate([read, even])
    weights = np.concatenate(
        [np.full(read.size, (1.0 - _EVEN) / read.size), np.full(_POINTS, _EVEN / _POINTS)]
    )
    with torch.no_grad():
        x = torch.tensor(center + half_width * u, dtype=torch.float32)
        y = part(x[None, :, None] if isinstance(part, nn.PReLU) else x)
    root = np.sqrt(weights)[:, None]
    basis = np.vander(u, degree + 1, increasing=True)
    target = y.double().flatten().numpy()[:, None]
    coefficients = np.linalg.lstsq(root * basis, root * target, rcond=None)[0].ravel()
    return PolynomialActivation(coefficients, center, half_width, 1.0 / margin)


def _replaced(module: Any, make: Callable[[Any], Any]) -> Any:
    for name, part in list(module.named_modules()):
        made = make(part) if name else None
        if made is not None:
            parent, _, attribute = name.rpartition(".")
            setattr(module.get_submodule(parent), attribute, made)
    return module
