"""The work of a training job as a list of units, each small enough to lose."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from tacit.runtime.requests import Frame
from tacit.runtime.training_store import JobFiles, read_frames
from tacit.training import Algorithm
from tacit.training_plan import ADD, LABELS, ROWS, TrainingPlan


class UnitKind(str, Enum):
    """What a unit does."""

    ADD = "add"
    LABELS = "labels"
    STEP = "step"


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit of work.

    Attributes:
        kind: what it does.
        plan: name of the plan it runs.
        number: the place of the frame that is added up, or the index of the step.
        chosen: the class.
        seconds: predicted.
        iterations: iterations that are done after it, for every class.
    """

    kind: UnitKind
    plan: str
    number: int
    chosen: int
    seconds: float
    iterations: int


def units_of(plan: TrainingPlan, uploads: int) -> list[Unit]:
    """Return all work of a job, in order."""
    found = []
    if uploads > 1:
        each = (uploads - 1) * plan.signature.plan(ADD).seconds
        found += [Unit(UnitKind.ADD, ADD, i, 0, each, 0) for i in range(plan.frames)]
    classes = plan.task.classes
    if plan.task.labelled and classes > 1:
        names = [f"labels-{chosen}" for chosen in range(classes)]
        found += [
            Unit(UnitKind.LABELS, name, 0, chosen, plan.signature.plan(name).seconds, 0)
            for chosen, name in enumerate(names)
        ]
    done = 0
    for index, step in enumerate(plan.steps):
        for chosen in range(classes):
            done = step.iteration if chosen == classes - 1 else done
            found.append(Unit(UnitKind.STEP, step.plan, index, chosen, step.seconds, done))
    return found


@dataclass(frozen=True, slots=True, eq=False)
class UnitInputs:
    """Finds what a unit reads.

    Attributes:
        plan: the compiled training.
        files: of the job.
        uploads: parties.
    """

    plan: TrainingPlan
    files: JobFiles
    uploads: int

    def labels(self) -> list[Frame]:
        """Return the uploaded labels of all classes."""
        return self._places(self.plan.ciphertexts(LABELS))

    def step(self, unit: Unit) -> list[Frame]:
        """Return what a step of a class reads: rows and labels of the mini-batch, the state."""
        step = self.plan.steps[unit.number]
        found: list[Frame] = []
        if not step.refreshes:
            batch = self.plan.batch(step.iteration)
            rows = self.plan.ciphertexts(ROWS)
            found += self._places(rows[batch.start : batch.stop])
            found += self._labels_of(unit.chosen, batch)
        if unit.number > 0:
            found += self.state(unit.chosen, unit.number - 1)
        return found

    def state(self, chosen: int, index: int) -> list[Frame]:
        """Return the state of a class after a step."""
        return [*read_frames(self.files.of_class("states", chosen, index))]

    def validation(self, name: str) -> list[Frame]:
        """Return uploaded ciphertexts by what they are."""
        return self._places(self.plan.ciphertexts(name))

    def summands(self, place: int) -> list[list[Frame]]:
        """Return the frames of all uploads at a place."""
        return [[*read_frames(self.files.upload(k, place))] for k in range(self.uploads)]

    def _labels_of(self, chosen: int, batch: range) -> list[Frame]:
        if not self.plan.task.labelled:
            return []
        if self.plan.task.classes == 1:
            labels = self.plan.ciphertexts(LABELS)
            return self._places(labels[batch.start : batch.stop])
        whole: list[Frame] = [*read_frames(self.files.of_class("labels", chosen, 0))]
        return whole[batch.start : batch.stop]

    def _places(self, places: range) -> list[Frame]:
        found: list[Frame] = []
        for place in places:
            found += read_frames(self.files.place(place, self.uploads))
        return found


def is_moments(plan: TrainingPlan) -> bool:
    """Tell whether the only step's outputs are what the client reads."""
    return plan.task.algorithm is Algorithm.MOMENTS
