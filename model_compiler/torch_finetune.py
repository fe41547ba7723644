"""Retrain a PyTorch module with polynomials of degree 2 to 4 in the place of its activations.

A polynomial of degree 2 costs one level, of 4 two, where a relu approximated after training costs
seven or more; and it is exact, so that nothing is lost between the module and the circuit. The
module learns to live with them: from its labels, from its own former answers, and from a penalty on
values that reach beyond the ranges the polynomials were fitted to. Extra: torch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

from tacit.errors import ModelError, ParameterError
from tacit.model_compiler.torch_export import Module, required_torch

Tensor = Any
Batches = Iterable[tuple[Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor], Tensor]
Watch = Callable[[int, float], None]

_CALIBRATION_BATCHES = 8
_GREATEST_STEP = 1.0


def finetune(
    module: Module,
    batches: Batches,
    *,
    loss: Loss | None = None,
    degree: int = 3,
    epochs: int = 5,
    learning_rate: float = 1e-3,
    range_weight: float = 1.0,
    teacher_weight: float = 1.0,
    margin: float = 1.25,
    average_pools: bool = True,
    watch: Watch | None = None,
) -> Module:
    """Replace activations by trainable polynomials and train.

    Activations may be modules (`nn.ReLU`) or, where torch.fx can trace the module, functions. An
    activation that writes the module's output stays, as the client runs it. Batch norms learn along
    and get their statistics from the finished network at the end.

    Args:
        module: trained; it is not changed.
        batches: (inputs, targets); iterated over once per epoch and twice besides, so a list or a
            data loader.
        loss: of (outputs, targets), a scalar; default cross entropy for integer targets, mean
            squared error for others.
        degree: of the polynomials, 2 to 4.
        epochs: passes through the batches.
        learning_rate: of Adam, falling to nothing along a half cosine.
        range_weight: of the penalty on values beyond the ranges.
        teacher_weight: of the mean squared distance to the former module's outputs, relative to
            their variance.
        margin: how much wider a polynomial's range is than what its activation read.
        average_pools: also replace max pooling by average pooling, which costs no level.
        watch: called after each epoch with its number and mean loss.

    Returns:
        A new module in eval mode, for `tacit.compile`.

    Raises:
        UnusableEnvironmentError: torch is not installed.
        ParameterError: an option out of its bounds.
        ModelError: there is nothing to replace, or training diverges.
    """
    torch = required_torch()
    _check(degree, epochs, learning_rate, margin, range_weight, teacher_weight)
    from tacit.model_compiler import torch_polynomials as parts

    teacher = copy.deepcopy(module).eval()
    student = parts.with_activation_modules(copy.deepcopy(module).eval())
    if average_pools:
        parts.without_max_pools(student)
    some = [inputs for (inputs, _), _ in zip(batches, range(_CALIBRATION_BATCHES), strict=False)]
    if not some:
        raise ModelError("there is no batch to train on: give a list or a data loader")
    if not parts.replace_activations(student, some, degree, margin):
        raise ModelError(
            "the module has no hidden activation that can be replaced: write activations as "
            "modules (nn.ReLU) if torch.fx cannot trace it"
        )
    for parameter in student.parameters():
        parameter.requires_grad_(True)
    optimiser = torch.optim.Adam(student.parameters(), lr=learning_rate)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)

    def total(inputs: Tensor, targets: Tensor) -> Tensor:
        outputs = student(inputs)
        with torch.no_grad():
            wanted = teacher(inputs)
        found = (loss or _default_loss(torch, targets))(outputs, targets)
        distance = (outputs - wanted).square().mean() / wanted.var().clamp_min(1e-6)
        beyond = sum(part.excess for part in parts.polynomials(student))
        return found + teacher_weight * distance + range_weight * beyond

    for epoch in range(epochs):
        student.train()
        mean = _epoch(torch, student, optimiser, batches, total)
        falling.step()
        if watch is not None:
            watch(epoch, mean)
    _settle_batch_norms(torch, student, batches)
    return student.eval()


def _epoch(torch: Any, student: Module, optimiser: Any, batches: Batches, total: Loss) -> float:
    losses = []
    for inputs, targets in batches:
        optimiser.zero_grad()
        value = total(inputs, targets)
        if not bool(torch.isfinite(value)):
            raise ModelError("training diverges: use a lower learning rate or degree")
        value.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), _GREATEST_STEP)
        optimiser.step()
        losses.append(float(value.detach()))
    return sum(losses) / max(len(losses), 1)


def _settle_batch_norms(torch: Any, student: Module, batches: Batches) -> None:
    """Measure the statistics again, now that nothing changes any more."""
    norms = [p for p in student.modules() if isinstance(p, torch.nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # an average over all batches
    student.train()
    with torch.no_grad():
        for inputs, _ in batches:
            student(inputs)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum


def _default_loss(torch: Any, targets: Tensor) -> Loss:
    functional = torch.nn.functional
    chosen = functional.mse_loss if targets.is_floating_point() else functional.cross_entropy
    found: Loss = chosen
    return found


def _check(
    degree: int,
    epochs: int,
    learning_rate: float,
    margin: float,
    range_weight: float,
    teacher_weight: float,
) -> None:
    if degree not in (2, 3, 4):
        raise ParameterError(f"degree must be 2, 3 or 4, got {degree}")
    if epochs < 1 or learning_rate <= 0.0:
        raise ParameterError("at least one epoch and a positive learning rate are needed")
    if not 1.0 <= margin <= 4.0:
        raise ParameterError(f"margin must be 1 to 4, got {margin}")
    if min(range_weight, teacher_weight) < 0.0:
        raise ParameterError("weights of penalties must not be negative")
