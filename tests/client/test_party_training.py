"""What can go wrong when parties train together; the whole way is tests/e2e/test_parties.py."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tacit.client.party import Party, terms_for
from tacit.client.party_training import JointTraining, weight_noise_bits
from tacit.client.training.service import TrainingService
from tacit.errors import (
    InputShapeError,
    LabelError,
    MissingPartyError,
    ParameterError,
    PartyError,
    TrainingRowsError,
)
from tacit.model_compiler.training import compile_training
from tacit.model_compiler.training_choice import TrainingOptions, choose_training
from tacit.model_compiler.training_parties import LEAST_SMUDGING_BITS, joint_room
from tacit.model_compiler.training_schedule import leveled_depth
from tacit.params import CryptoParams, Security
from tacit.party_terms import Column
from tacit.training import Algorithm, JobState, JobStatus, TrainingTask
from tacit.training_plan import TrainingPlan
from tests.client.parties import PATIENCE, failures, parties, relay, together

TASK = TrainingTask(Algorithm.LOGISTIC, 40, 2, iterations=2, parties=2)
COLUMNS = (Column("a", -8, 8), Column("b", -8, 8))
STATUS = JobStatus("j", "p", "k", JobState.RUNNING, "", ((), ()), 0, 2, 0.0, None, (), ())


class Answers(TrainingService):
    """A server that says what a test wants."""

    def __init__(self, status: JobStatus) -> None:
        super().__init__("http://127.0.0.1:1")
        self._answer = status

    def status(self, job: str) -> JobStatus:
        return self._answer


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> TrainingPlan:
    depth = leveled_depth(TASK)
    params = CryptoParams.choose(10, depth, 50, 60, 2, Security.UNCHECKED_INSECURE)
    folder = tmp_path_factory.mktemp("plan")
    artifact = compile_training(TASK, folder, TrainingOptions(params=params))
    return TrainingPlan.of(artifact.signature)


@pytest.fixture(scope="module")
def pair(plan: TrainingPlan, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Party]]:
    root = tmp_path_factory.mktemp("parties")
    signature = plan.signature
    agreed = terms_for(signature, "hearts", ("north", "south"), COLUMNS, 40, least_smudging_bits=4)
    with relay(root / "models") as url, parties(url, root, agreed) as members:
        together(members, lambda party: party.keygen(seconds=PATIENCE))
        yield members


def test_row_ranges_follow_each_other_and_must_fit(pair: list[Party], plan: TrainingPlan) -> None:
    rows = (15, 25)
    trainings = [JointTraining(party, plan, "fits") for party in pair]
    first = together(
        pair,
        lambda party: trainings[party.session.party].first_row(rows[party.session.party], PATIENCE),
    )
    assert first == [0, 15]
    with pytest.raises(PartyError, match="15 rows were announced before, not 16"):
        trainings[0].first_row(16, PATIENCE)
    found = failures(pair, lambda party: JointTraining(party, plan, "many").first_row(21, PATIENCE))
    for error in found:
        assert isinstance(error, PartyError)
        assert "42 rows are more than the 40 that fit" in str(error)


def test_a_party_that_announces_nonsense_is_named(pair: list[Party], plan: TrainingPlan) -> None:
    pair[1].session.say("odd.rows", lambda: ({"rows": -1}, ()))
    with pytest.raises(PartyError, match="'south' did not say how many rows"):
        JointTraining(pair[0], plan, "odd").first_row(5, PATIENCE)


def test_classes_other_than_two_are_refused_before_anything_is_said(
    pair: list[Party], plan: TrainingPlan
) -> None:
    training = JointTraining(pair[0], plan, "labels")
    for classes in ([0, 1, 2], [0.0, 0.5, 1.0], [np.nan, 0.0, 1.0], [-1, 1, 1]):
        with pytest.raises(LabelError, match="must be 0 or 1"):
            training.fit(Answers(STATUS), np.zeros((3, 2)), np.array(classes))
    assert not [s for s in pair[0].status().activities if s.startswith("labels")]


def test_columns_that_are_constant_over_all_parties_are_named_and_may_be_ignored(
    pair: list[Party], plan: TrainingPlan
) -> None:
    rng = np.random.default_rng(0)
    tables = [np.stack([rng.normal(size=9), np.full(9, 3.0)], axis=1) for _ in pair]

    def prepared(party: Party, constant: str) -> Any:
        training = JointTraining(party, plan, "still", constant)
        return training.prepared(tables[party.session.party], PATIENCE)

    for error in failures(pair, lambda party: prepared(party, "refuse")):
        assert isinstance(error, TrainingRowsError)
        assert "column(s) b are constant over all parties" in str(error)
    for _, _, rows in together(pair, lambda party: prepared(party, "ignore")):
        assert not rows[:, 2].any()
        assert rows[:, 1].any()


def test_missing_rows_and_failures_say_what_happened(pair: list[Party], plan: TrainingPlan) -> None:
    training = JointTraining(pair[0], plan)
    waiting = dataclasses.replace(STATUS, state=JobState.WAITING_FOR_ROWS, missing=((), (0, 1)))
    with pytest.raises(MissingPartyError, match="waits for the rows of south"):
        training.wait(Answers(waiting), "j", 0.2)
    with pytest.raises(MissingPartyError, match="is running after"):
        training.wait(Answers(STATUS), "j", 0.2)
    failed = dataclasses.replace(STATUS, state=JobState.FAILED, reason="out of memory")
    with pytest.raises(PartyError, match="failed: out of memory"):
        training.wait(Answers(failed), "j", 0.2)
    with pytest.raises(InputShapeError, match="3 rows, but classes"):
        training.fit(Answers(STATUS), np.zeros((3, 2)), np.zeros(2, dtype=np.bool_))


def test_a_training_for_another_number_of_parties_is_refused(
    pair: list[Party], plan: TrainingPlan, tmp_path: Path
) -> None:
    for task, words in (
        (dataclasses.replace(TASK, parties=3), "3 parties in a session of 2"),
        (dataclasses.replace(TASK, features=3), "3 features for 2 columns"),
        (dataclasses.replace(TASK, classes=3), "two classes"),
    ):
        with pytest.raises(ParameterError, match=words):
            JointTraining(pair[0], dataclasses.replace(plan, task=task))


def test_the_weights_noise_leaves_room_for_smudging(pair: list[Party], plan: TrainingPlan) -> None:
    noise = weight_noise_bits(pair[0].model(), plan)
    assert 5 < noise < 25


@pytest.mark.slow
def test_secure_parameters_leave_room_for_the_least_smudging() -> None:
    task = TrainingTask(Algorithm.LOGISTIC, 920, 13, iterations=3, parties=4)
    chosen = choose_training(task, TrainingOptions())
    assert chosen.params.security is Security.CLASSICAL_128
    assert chosen.circuits.refresh is None
    assert joint_room(chosen.params, chosen.circuits) >= 0
    assert LEAST_SMUDGING_BITS == 20
    with pytest.raises(ParameterError, match="fewer iterations"):
        choose_training(dataclasses.replace(task, iterations=40), TrainingOptions())
