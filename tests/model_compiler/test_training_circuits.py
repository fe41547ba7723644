"""Every step of every training, on the clear backend, against the clear twin."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tacit.artifact import load
from tacit.circuit import execute
from tacit.errors import ArtifactError, InputRangeError, InputShapeError, ParameterError
from tacit.model_compiler.training import compile_training
from tacit.model_compiler.training_choice import TrainingOptions
from tacit.model_compiler.training_geometry import Geometry
from tacit.params import CryptoParams, Security
from tacit.runtime.backends.clear import ClearCiphertext, ClearEvaluator
from tacit.training import Algorithm, TrainingTask
from tacit.training_clear import train_task_in_clear
from tacit.training_plan import MOMENTS, PREDICT, UPLOAD, TrainingPlan
from tests.model_compiler.trainings import LINEAR, LOGISTIC, TASKS, drawn, insecure

Floats = NDArray[np.float64]


class ClearJob:
    """What a server does, on the clear backend."""

    def __init__(self, plan: TrainingPlan, directory: Path) -> None:
        self.plan = plan
        self._circuits = load(directory).circuits
        params = plan.signature.params
        self.evaluator = ClearEvaluator(params)
        self._uploaded: list[ClearCiphertext] = []

    def run(self, name: str, inputs: list[ClearCiphertext]) -> list[ClearCiphertext]:
        return execute(self._circuits[name], inputs, self.evaluator)

    def upload(self, vectors: Floats) -> None:
        specs = [s for s in self.plan.upload.inputs for _ in range(s.layout.ciphertexts)]
        frames = [
            self.evaluator.encrypt(vector, spec.level)
            for vector, spec in zip(vectors[0], specs, strict=True)
        ]
        for place, other in enumerate(self._uploaded):
            frames[place] = self.run("add", [other, frames[place]])[0]
        self._uploaded = frames

    def train(self, chosen: int = 0) -> dict[int, list[ClearCiphertext]]:
        """Run all steps for one class; returns the state after each iteration."""
        plan = self.plan
        rows = [self._uploaded[i] for i in plan.ciphertexts("rows")]
        labels = [self._uploaded[i] for i in plan.ciphertexts("labels")]
        if plan.task.classes > 1:
            labels = self.run(f"labels-{chosen}", labels)
        state: list[ClearCiphertext] = []
        found = {}
        for step in plan.steps:
            inputs = state
            if not step.refreshes:
                batch = plan.batch(step.iteration)
                inputs = [c for part in (rows, labels) if part for c in part[slice(*_ends(batch))]]
                inputs += state
            state = self.run(step.plan, inputs)
            if not step.refreshes:
                found[step.iteration] = state
        return found

    def weights(self, iteration: int, state: list[ClearCiphertext]) -> Floats:
        (out,) = self.run(self.plan.weights_plan(iteration).name, [state[-1]])
        return np.asarray(self.plan.weights(out.values[None])[0])

    def validation(self) -> list[ClearCiphertext]:
        return [self._uploaded[i] for i in self.plan.ciphertexts("validation")]


def _ends(part: range) -> tuple[int, int]:
    return part.start, part.stop


def compiled(task: TrainingTask, options: TrainingOptions, directory: Path) -> ClearJob:
    artifact = compile_training(task, directory, options)
    return ClearJob(TrainingPlan.of(artifact.signature), directory)


@pytest.mark.parametrize("name", TASKS)
def test_the_steps_compute_what_the_clear_twin_does(name: str, tmp_path: Path) -> None:
    task = TASKS[name]
    rows, labels, _ = drawn(task)
    job = compiled(task, insecure(task), tmp_path)
    job.upload(job.plan.packed(rows, labels))
    expected = train_task_in_clear(task, rows, labels, job.plan.batches)
    for chosen in range(task.classes):
        for iteration, state in job.train(chosen).items():
            found = job.weights(iteration, state)
            assert found == pytest.approx(expected[iteration - 1][chosen], abs=1e-11)
    assert job.evaluator.overflows == 0


@pytest.mark.parametrize(("keys_apart", "steps"), [(1, 6), (2, 3), (3, 2)])
def test_rows_are_added_up_with_fewer_keys(keys_apart: int, steps: int, tmp_path: Path) -> None:
    rows, _, _ = drawn(LOGISTIC)
    job = compiled(LOGISTIC, replace(insecure(LOGISTIC), keys_apart=keys_apart), tmp_path)
    job.upload(job.plan.packed(rows))
    found = job.weights(LOGISTIC.iterations, job.train()[LOGISTIC.iterations])
    assert found == pytest.approx(train_task_in_clear(LOGISTIC, rows)[-1][0], abs=1e-11)
    rotations = job.plan.signature.plan("iteration-1").rotations
    assert rotations == tuple(8 << keys_apart * i for i in range(steps))


def test_mini_batches_are_really_several(tmp_path: Path) -> None:
    task = TASKS["mini-batches"]
    job = compiled(task, insecure(task), tmp_path)
    assert job.plan.batches == 4
    assert [job.plan.batch(t).start for t in (1, 2, 4, 5)] == [0, 1, 3, 0]


@pytest.mark.parametrize("task", [replace(LOGISTIC, iterations=7), replace(LINEAR, iterations=8)])
def test_bootstraps_carry_both_halves_of_the_state(task: TrainingTask, tmp_path: Path) -> None:
    rows, labels, _ = drawn(task)
    job = compiled(task, insecure(task, between=2), tmp_path)
    assert sum(step.refreshes for step in job.plan.steps) >= 2
    job.upload(job.plan.packed(rows, labels))
    expected = train_task_in_clear(task, rows, labels)
    for iteration, state in job.train().items():
        found = job.weights(iteration, state)
        assert found == pytest.approx(expected[iteration - 1][0], abs=2e-6)
    assert job.evaluator.overflows == 0


def test_parties_are_added_up(tmp_path: Path) -> None:
    rows, labels, _ = drawn(LINEAR)
    job = compiled(LINEAR, insecure(LINEAR), tmp_path)
    assert labels is not None
    for first, last in ((0, 30), (30, 31), (31, 100)):
        job.upload(job.plan.packed(rows[first:last], labels[first:last], first=first))
    found = job.train()[LINEAR.iterations]
    expected = train_task_in_clear(LINEAR, rows, labels)[-1][0]
    assert job.weights(LINEAR.iterations, found) == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("base", [LOGISTIC, LINEAR])
def test_margins_of_validation_rows_and_predictions(base: TrainingTask, tmp_path: Path) -> None:
    task = replace(base, validation_rows=70, validation_every=2, predictions=True)
    rows, labels, validation = drawn(task)
    job = compiled(task, insecure(task), tmp_path)
    job.upload(job.plan.packed(rows, labels, validation))
    states = job.train()
    expected = train_task_in_clear(task, rows, labels)
    assert list(job.plan.validated()) == [2, 4]
    for iteration in job.plan.validated():
        name = job.plan.validation_plan(iteration).name
        outputs = job.run(name, [*job.validation(), states[iteration][-1]])
        found = job.plan.margins(np.stack([c.values for c in outputs])[None], 70)
        wanted = validation @ expected[iteration - 1].T * task.margin_scale
        assert found == pytest.approx(wanted, abs=1e-10)
    spec = job.plan.signature.plan(PREDICT).inputs[0]
    asked = job.evaluator.encrypt(
        spec.layout.pack(_padded(validation[:60], spec.layout.size)), spec.level
    )
    one = ClearCiphertext(asked.values[0], asked.level, asked.degree)
    outputs = job.run(PREDICT, [one, states[task.iterations][-1]])
    found = job.plan.margins(np.stack([c.values for c in outputs])[None], 60)
    assert found == pytest.approx(validation[:60] @ expected[-1].T * task.margin_scale, abs=1e-10)


def _padded(rows: Floats, blocks: int) -> Floats:
    padded = np.zeros((blocks, rows.shape[1]))
    padded[: len(rows)] = rows
    return padded.T


def test_moments_are_the_sums_of_products_of_columns(tmp_path: Path) -> None:
    task = TrainingTask(Algorithm.MOMENTS, 150, 5, 0)
    rng = np.random.default_rng(1)
    rows = rng.uniform(-1.0, 1.0, (150, 7))
    job = compiled(task, insecure(task), tmp_path)
    job.upload(job.plan.packed(rows))
    outputs = job.run(MOMENTS, job._uploaded)
    found = job.plan.moments(np.stack([c.values for c in outputs]))
    assert found == pytest.approx(rows.T @ rows, abs=1e-9)


def test_moments_of_the_largest_values_have_room_at_128_bits(tmp_path: Path) -> None:
    """Columns of ones, whose sums are the number of rows: no others are larger."""
    task = TrainingTask(Algorithm.MOMENTS, 780, 9, 0)
    job = compiled(task, TrainingOptions(), tmp_path)
    capacity = job.plan.capacity
    assert job.plan.largest_sum >= capacity >= 780
    rows = np.ones((capacity, 11))
    rows[:, 1::2] = -1.0
    job.upload(job.plan.packed(rows))
    outputs = job.run(MOMENTS, job._uploaded)
    assert job.evaluator.overflows == 0
    found = job.plan.moments(np.stack([c.values for c in outputs]))
    assert found == pytest.approx(rows.T @ rows, rel=1e-9)


def test_values_with_which_sums_could_wrap_are_refused(tmp_path: Path) -> None:
    task = TrainingTask(Algorithm.MOMENTS, 150, 5, 0)
    plan = compiled(task, insecure(task), tmp_path).plan
    rows = np.zeros((150, 7))
    for value in (1.01, -3.0, np.nan, np.inf):
        rows[17, 3] = value
        with pytest.raises(InputRangeError, match=r"stored in \[-1, 1\]"):
            plan.packed(rows)
    with pytest.raises(InputShapeError, match="there is room for 192"):
        plan.packed(np.zeros((193, 7)))


def test_parameters_without_room_for_sums_are_refused(tmp_path: Path) -> None:
    task = TrainingTask(Algorithm.MOMENTS, 150, 5, 0)
    tight = CryptoParams.choose(10, 1, 45, 51, 1, Security.UNCHECKED_INSECURE)
    with pytest.raises(ParameterError, match=r"hold sums up to 24, and 192 rows"):
        compile_training(task, tmp_path, TrainingOptions(params=tight))
    roomy = compile_training(task, tmp_path, insecure(task)).signature
    plan = TrainingPlan.of(roomy)
    more = replace(task, rows=400)  # as if it had been compiled without a look at its room
    spec = replace(plan.upload.inputs[0], layout=Geometry(more, 512).layout(7))
    plans = tuple(replace(p, inputs=(spec,)) if p.name == UPLOAD else p for p in roomy.plans)
    stale = replace(roomy, plans=plans)
    with pytest.raises(ArtifactError, match="448 rows"):
        TrainingPlan.of(stale)


def test_too_few_levels_are_refused(tmp_path: Path) -> None:
    params = CryptoParams.choose(10, 12, 45, 55, 1, Security.UNCHECKED_INSECURE)
    with pytest.raises(ParameterError, match="few levels"):
        compile_training(LOGISTIC, tmp_path, TrainingOptions(params=params))


def test_more_rows_than_fit_are_refused(tmp_path: Path) -> None:
    job = compiled(LOGISTIC, insecure(LOGISTIC), tmp_path)
    with pytest.raises(Exception, match="there is room for 128"):
        job.plan.packed(np.zeros((129, 6)))
