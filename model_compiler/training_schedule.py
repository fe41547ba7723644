"""The order of a training's steps, with the level of the state before and after each."""

from __future__ import annotations

from dataclasses import dataclass

from tacit.bootstrap import Bootstrap
from tacit.circuit import Floats
from tacit.errors import ParameterError
from tacit.model_compiler.lowering.lowered import Lowered
from tacit.model_compiler.training_geometry import Geometry, Levels, first_depth, iteration_depth
from tacit.model_compiler.training_steps import StepWriter
from tacit.training import Algorithm, TrainingTask
from tacit.training_plan import (
    ADD,
    LABELS,
    MARGINS,
    MOMENTS,
    PREDICT,
    PREDICT_ROWS,
    REFRESH,
    UPLOAD,
    WEIGHTS,
)


@dataclass(frozen=True, slots=True, eq=False)
class Refresh:
    """How a state is bootstrapped: the plan, and the series of the function x."""

    plan: Bootstrap
    series: Floats

    @property
    def least(self) -> int:
        """Lowest level of a state that can be refreshed; with one to spare for OpenFHE."""
        return self.plan.to_coefficients + 2

    @property
    def level(self) -> int:
        """Level of a state after it."""
        return self.plan.level - 1


@dataclass(frozen=True, slots=True)
class Placed:
    """A step: iteration number (0: a refresh) and the level of the state before and after."""

    iteration: int
    before: int
    after: int


def leveled_depth(task: TrainingTask) -> int:
    """Return the levels of a training without bootstraps."""
    if task.algorithm is Algorithm.MOMENTS:
        return 1
    return first_depth(task) + (task.iterations - 1) * iteration_depth(task) + task.predictions


def place(task: TrainingTask, upload: int, refresh: Refresh | None) -> list[Placed]:
    """Return the steps in order.

    Args:
        task: what is trained.
        upload: level of the rows.
        refresh: None for no bootstraps.

    Raises:
        ParameterError: too few levels.
    """
    if task.algorithm is Algorithm.MOMENTS:
        return [Placed(1, upload, upload - 1)]
    each, last = iteration_depth(task), _last_level(task, refresh)
    level = upload - first_depth(task)
    steps = [Placed(1, upload, level)]
    for number in range(2, task.iterations + 1):
        left = task.iterations - number + 1
        enough = level - each * left >= last
        if not enough and (refresh is None or level - each < refresh.least):
            if refresh is None or level < refresh.least:
                raise ParameterError(f"iteration {number} has too few levels: {level} are left")
            steps.append(Placed(0, level, refresh.level))
            level = refresh.level
        steps.append(Placed(number, level, level - each))
        level -= each
    if level < last:
        raise ParameterError(f"{last - level} levels are missing for {task.iterations} iterations")
    return steps


def least_level(refresh: Refresh | None) -> int:
    """Return the level at which weights go home: 0 has no room above 1 where bootstraps are."""
    return 0 if refresh is None else 1


def _last_level(task: TrainingTask, refresh: Refresh | None) -> int:
    return least_level(refresh) + task.predictions


@dataclass(frozen=True, slots=True, eq=False)
class Circuits:
    """Every plan of a training.

    Attributes:
        geometry: sizes of its ciphertexts.
        levels: of uploads and of what goes home.
        refresh: None for no bootstraps.
        keys_apart: see `tacit.model_compiler.training_blocks.BlockWriter.over_rows`.
    """

    geometry: Geometry
    levels: Levels
    refresh: Refresh | None
    keys_apart: int = 1

    @property
    def steps(self) -> list[Placed]:
        """The steps in order."""
        return place(self.geometry.task, self.levels.upload, self.refresh)

    def name(self, step: Placed) -> str:
        """Return the name of a step's plan."""
        if self.geometry.task.algorithm is Algorithm.MOMENTS:
            return MOMENTS
        return f"iteration-{step.iteration}" if step.iteration else f"{REFRESH}-{step.before}"

    def circuit(self, step: Placed) -> Lowered:
        """Write the circuit of a step."""
        if self.geometry.task.algorithm is Algorithm.MOMENTS:
            return self._writer(MOMENTS).moments()
        if step.iteration:
            writer = self._writer(f"iteration {step.iteration}")
            return writer.iteration(step.iteration, step.before)
        assert self.refresh is not None
        return self._writer(REFRESH).refresh(step.before, self.refresh.plan, self.refresh.series)

    def all(self) -> dict[str, Lowered]:
        """Write all plans, by name."""
        task = self.geometry.task
        plans = {UPLOAD: self._writer().upload(), ADD: self._writer(ADD).add()}
        if task.labelled and task.classes > 1:
            plans |= {
                f"labels-{c}": self._writer(LABELS).select_labels(c) for c in range(task.classes)
            }
        for step in self.steps:
            name = self.name(step)
            if name not in plans:
                plans[name] = self.circuit(step)
            if step.iteration and name != MOMENTS:
                plans |= self._readings(step)
        if task.predictions:
            level = self.steps[-1].after
            plans[PREDICT_ROWS] = self._writer().predict_rows(level)
            plans[PREDICT] = self._writer(MARGINS).margins(level, 1, level)
        return plans

    def _writer(self, label: str = "") -> StepWriter:
        return StepWriter(self.geometry, self.levels, label, self.keys_apart)

    def _readings(self, step: Placed) -> dict[str, Lowered]:
        """Return the plans by which weights after a step are read or validated."""
        level = step.after
        plans = {f"weights-{level}": self._writer(WEIGHTS).weights(level)}
        if self.geometry.task.validates(step.iteration):
            count = self.geometry.validation_ciphertexts
            plans[f"validate-{level}"] = self._writer(MARGINS).margins(
                level, count, self.levels.upload
            )
        return plans
