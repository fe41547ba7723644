"""Parameters for a training: the cheapest that are secure, precise enough, and whose keys fit."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from tacit.bootstrap import Bootstrap
from tacit.bootstrap_levels import bootstrap_depth, bootstrap_deviation
from tacit.circuit import Circuit
from tacit.errors import LevelError, ParameterError, SecurityError
from tacit.evaluation_keys import keys_at
from tacit.fourier import evaluate_series, fit_series
from tacit.key_levels import circuit_key_levels, highest
from tacit.model_compiler.bootstrap import parameters_for
from tacit.model_compiler.choose_params import secure_params
from tacit.model_compiler.cost import predict
from tacit.model_compiler.op_times import MachineTimes, reference_times
from tacit.model_compiler.training_geometry import Geometry, Levels, first_depth, iteration_depth
from tacit.model_compiler.training_moments import moments_params
from tacit.model_compiler.training_noise import weight_error
from tacit.model_compiler.training_parties import joint_params, joint_room
from tacit.model_compiler.training_schedule import (
    Circuits,
    Placed,
    Refresh,
    least_level,
    leveled_depth,
)
from tacit.model_compiler.training_steps import REFRESHED_SHARE
from tacit.params import CryptoParams
from tacit.training import Algorithm, TrainingTask

Floats = NDArray[np.float64]

# Deepest training tried without bootstraps: what a ring of 2^16 has levels for.
_DEEPEST = 48
_SCALES = (50, 48, 46, 44, 42, 40, 38, 36)
_STAGES = ((1, 1), (2, 2))
_HARMONICS = 15
_SERIES_CUTOFF = 1e-12
_MOST_ITERATIONS_BETWEEN = 5
_MOST_DIGITS = 6
_LEVELED_RINGS = (12, 13, 14, 15, 16)
_KEYS_APART = (1, 2)
# Making a key and uploading it takes about 20 ns a byte, once for several trainings.
_SECONDS_PER_KEY_BYTE = 1e-8
_BOOTSTRAPPED_RINGS = (16,)


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """What a training may cost.

    Attributes:
        key_bytes: limits on what is uploaded of evaluation keys, tried in order.
        weight_error: greatest error of a weight due to encryption, for prepared rows.
        params: use these parameters (insecure ones in tests) instead of choosing.
        refresh: with `params`: bootstrap like this; None trains without bootstraps.
        keys_apart: with `params`: how rows are added up, see `BlockWriter.over_rows`.
        times: prices of the machine.
    """

    key_bytes: tuple[float, ...] = (500e6, 1.5e9, 2.5e9, 5e9)
    weight_error: float = 5e-4
    params: CryptoParams | None = None
    refresh: Refresh | None = None
    keys_apart: int = 1
    times: MachineTimes = field(default_factory=reference_times)


@dataclass(frozen=True, slots=True, eq=False)
class TrainingChoice:
    """Parameters and circuits, with what they cost.

    Attributes:
        seconds: predicted, all steps of one class.
        key_bytes: of all evaluation keys, as they are uploaded.
    """

    params: CryptoParams
    circuits: Circuits
    seconds: float
    key_bytes: int

    @property
    def cost(self) -> float:
        """Seconds of one training, with its share of those for the keys."""
        return self.seconds + _SECONDS_PER_KEY_BYTE * self.key_bytes

    def describe(self) -> str:
        """Describe it in a few words."""
        how = "bootstrapped" if self.circuits.refresh else "without bootstraps"
        return (
            f"N = 2^{self.params.log_n}, depth {self.params.depth}, scale {self.params.log_scale}, "
            f"{self.params.dnum} digits, {how}: {self.seconds:.3g} s, "
            f"{self.key_bytes / 1e6:.0f} MB of keys"
        )


def choose_training(task: TrainingTask, options: TrainingOptions) -> TrainingChoice:
    """Choose parameters, and between one leveled run and bootstraps.

    Raises:
        ParameterError: nothing at 128 bits does; the message says what comes nearest.
    """
    if task.weight_bits:
        asked = 2.0**-task.weight_bits
        options = replace(options, weight_error=min(options.weight_error, asked))
    if options.params is not None:
        return _given(task, options, options.params)
    refused: list[str] = []
    leveled: dict[int, list[TrainingChoice]] = {}
    bootstrapped: list[TrainingChoice] | None = None
    for limit in options.key_bytes:
        for log_n in _LEVELED_RINGS:
            if log_n not in leveled:
                leveled[log_n] = list(_leveled(task, log_n, options))
            chosen = _first_precise(leveled[log_n], limit, options, refused)
            if chosen is not None:
                return chosen
        bootstrapped = _bootstrapped(task, options) if bootstrapped is None else bootstrapped
        chosen = _first_precise(bootstrapped, limit, options, refused)
        if chosen is not None:
            return chosen
    raise ParameterError(
        f"no 128-bit parameters train {task.iterations} iterations on {task.rows} rows of "
        f"{task.features} features with weights right to {options.weight_error:.2g} and keys of at "
        f"most {options.key_bytes[-1] / 1e9:.1f} GB: ask for fewer iterations, fewer features or a "
        f"lower degree (nearest: {'; '.join(refused[-3:]) or 'none'})"
    )


def _first_precise(
    choices: list[TrainingChoice], limit: float, options: TrainingOptions, refused: list[str]
) -> TrainingChoice | None:
    """Return the cheapest choice whose keys and errors are small enough; refused ones are noted."""
    for choice in sorted(choices, key=lambda c: c.cost):
        if choice.key_bytes > limit:
            continue
        error = _error(choice)
        room = joint_room(choice.params, choice.circuits)
        if error <= options.weight_error and room >= 0.0:
            return choice
        refused.append(f"{choice.describe()}, error of weights {error:.2g}")
        choices.remove(choice)
    return None


def _given(task: TrainingTask, options: TrainingOptions, params: CryptoParams) -> TrainingChoice:
    geometry = Geometry(task, params.slots)
    levels = _levels(task, params, options.refresh)
    circuits = Circuits(geometry, levels, options.refresh, options.keys_apart)
    return _Written.of(circuits).priced(params, options.times)


def _levels(task: TrainingTask, params: CryptoParams, refresh: Refresh | None) -> Levels:
    """Let the first iteration end where the others begin after a refresh."""
    if refresh is None:
        return Levels(params.depth)
    upload = min(params.depth, refresh.level + first_depth(task))
    return Levels(upload, least_level(refresh))


def _leveled(task: TrainingTask, log_n: int, options: TrainingOptions) -> Iterator[TrainingChoice]:
    depth = leveled_depth(task)
    if depth > _DEEPEST:
        return
    try:
        geometry = Geometry(task, 1 << (log_n - 1))
    except ParameterError:
        return
    written = [_Written.of(Circuits(geometry, Levels(depth), None, n)) for n in _KEYS_APART]
    for params, each in product(_candidates(geometry, log_n, depth), written):
        yield each.priced(params, options.times)


def _candidates(geometry: Geometry, log_n: int, depth: int) -> Iterator[CryptoParams]:
    if geometry.task.algorithm is Algorithm.MOMENTS:
        return moments_params(log_n, depth, geometry)
    if geometry.task.parties > 1:
        return joint_params(log_n, depth)
    return iter(secure_params(log_n, depth))


def _bootstrapped(task: TrainingTask, options: TrainingOptions) -> list[TrainingChoice]:
    if task.algorithm is Algorithm.MOMENTS or task.iterations < 2 or task.parties > 1:
        return []
    found: list[TrainingChoice] = []
    most = min(_MOST_ITERATIONS_BETWEEN, task.iterations)
    for log_n, between in product(_BOOTSTRAPPED_RINGS, range(1, most + 1)):
        try:
            geometry = Geometry(task, 1 << (log_n - 1))
        except ParameterError:
            continue
        for stages in _STAGES:
            found += _scaled(geometry, log_n, between, stages, options)
    return found


def _scaled(
    geometry: Geometry,
    log_n: int,
    between: int,
    stages: tuple[int, int],
    options: TrainingOptions,
) -> Iterator[TrainingChoice]:
    """Yield, for each number of digits, the candidate of the largest secure scale."""
    refresh = _refresh(geometry.task, between, stages)
    digits: set[int] = set()
    for log_scale in _SCALES:
        try:
            params = parameters_for(log_n, refresh.plan, _HARMONICS, log_scale)
        except SecurityError:
            continue
        if params.dnum in digits or params.dnum > _MOST_DIGITS:
            continue
        digits.add(params.dnum)
        if refresh_deviation(params, refresh) > options.weight_error:
            return
        levels = _levels(geometry.task, params, refresh)
        with contextlib.suppress(ParameterError, LevelError):
            circuits = Circuits(geometry, levels, refresh)
            yield _Written.of(circuits).priced(params, options.times)


def _refresh(task: TrainingTask, between: int, stages: tuple[int, int]) -> Refresh:
    to_coefficients, to_slots = stages
    log_slots = (2 * task.width).bit_length() - 1
    level = 1 + between * iteration_depth(task) + to_coefficients + 2
    plan = Bootstrap("series", level, log_slots, to_coefficients, to_slots)
    return Refresh(plan, identity_series())


@lru_cache
def identity_series() -> Floats:
    """Return the series of the function x; its period is the only one that OpenFHE has."""
    return fit_series(lambda x: x, _HARMONICS, cutoff=_SERIES_CUTOFF)


def refresh_deviation(params: CryptoParams, refresh: Refresh) -> float:
    """Return the error of weights after a refresh: noise, and what the series is off."""
    plan = refresh.plan
    x: Floats = np.linspace(-0.25, 0.25, 257, dtype=np.float64)
    off = float(np.max(np.abs(evaluate_series(refresh.series, x, plan.period) - x)))
    noise = bootstrap_deviation(params, plan, refresh.series)
    return (off + noise) / REFRESHED_SHARE


def refresh_depth(params: CryptoParams, refresh: Refresh) -> int:
    """Return the depth that parameters need."""
    plan = refresh.plan
    return plan.level + bootstrap_depth(params, plan, refresh.series.shape[1] - 1)


@dataclass(frozen=True, slots=True, eq=False)
class _Written:
    """A training's circuits, one of each kind, with how many steps are of this kind."""

    circuits: Circuits
    counted: tuple[tuple[Circuit, int], ...]

    @classmethod
    def of(cls, circuits: Circuits) -> _Written:
        """Write them."""
        steps = circuits.steps
        counts = Counter(map(_kind, steps))
        first = {_kind(step): step for step in reversed(steps)}
        return cls(
            circuits,
            tuple((circuits.circuit(step).circuit, counts[kind]) for kind, step in first.items()),
        )

    def priced(self, params: CryptoParams, times: MachineTimes) -> TrainingChoice:
        """Price every kind, and count the keys of all."""
        seconds = sum(
            count * predict(circuit, params, times).seconds for circuit, count in self.counted
        )
        uses = highest(circuit_key_levels(circuit, params) for circuit, _ in self.counted)
        key_bytes = sum(key.frame_bytes(params) for key in keys_at(uses, params))
        return TrainingChoice(params, self.circuits, seconds, key_bytes)


def _kind(step: Placed) -> tuple[bool, int]:
    return step.iteration > 0, step.before


def _error(choice: TrainingChoice) -> float:
    if choice.circuits.geometry.task.algorithm is Algorithm.MOMENTS:
        return 0.0
    return weight_error(choice.params, choice.circuits)
