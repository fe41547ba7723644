"""What a worker computes on: owners who share a backend, their keys within a limit."""

import dataclasses
from pathlib import Path

import pytest

from tacit.errors import ArtifactError, KeyMismatchError, TruncatedError
from tacit.kernels.build import build_if_stale
from tacit.kernels.devices import Device
from tacit.runtime.backends.loading import BackendName
from tacit.runtime.batch_size import BATCH_BYTES
from tacit.runtime.refusals import AbandonedError, DamagedKeysError
from tacit.runtime.requests import Owner, Result
from tacit.runtime.session import Session
from tacit.runtime.worker import KeyPlace, ModelPlace
from tacit.runtime.worker_engine import WorkerEngine
from tacit.runtime.worker_settings import WorkerMemory, WorkerSettings
from tests.runtime.models import TINY_INSECURE
from tests.runtime.worker_customers import MODEL, Customer, run, values


def engine(threads: int = 1, **settings: int) -> WorkerEngine:
    if not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")
    return WorkerEngine(WorkerSettings(BackendName.NATIVE, threads=threads, **settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("threads", [1, 3])
def test_owners_who_ask_together_each_get_their_own_answer(
    customers: list[Customer], place: ModelPlace, threads: int
) -> None:
    worker = engine(threads)
    who = [*customers, *customers[:2]]
    rows = [values(seed, seed + 1) for seed in range(5)]
    requests = [c.ask(v) for c, v in zip(who, rows, strict=True)]
    for _ in range(2):  # the second time the model is loaded, and groups are larger
        answers, groups = run(worker, place, requests)
        assert [index for group in groups for index in group] == list(range(5))
        for c, answer, v in zip(who, answers, rows, strict=True):
            assert c.error(answer, v) < 2.0**-18


def test_answers_together_are_those_one_by_one_byte_for_byte(
    customers: list[Customer], place: ModelPlace
) -> None:
    worker = engine(2)
    requests = [c.ask(values(seed, 3)) for seed, c in enumerate(customers)]
    run(worker, place, requests[:1])
    together, groups = run(worker, place, requests)
    assert len(groups) < len(requests)
    for c, request, result in zip(customers, requests, together, strict=True):
        frames = [path.read_bytes() for path in c.place.frames]
        alone = Session.open(MODEL, frames, backend=BackendName.NATIVE, joined=1)
        assert isinstance(result, Result)
        one_by_one = [alone.run("latency", [frame]).frames[0] for frame in request.frames]
        assert [bytes(frame) for frame in result.frames] == [bytes(f) for f in one_by_one]


def test_weights_are_encoded_once_however_many_owners(
    customers: list[Customer], place: ModelPlace
) -> None:
    worker = engine()
    seen = []
    for c in customers:
        run(worker, place, [c.ask(values(1))])
        seen.append(worker.memory())
    assert [memory.owners for memory in seen] == [1, 2, 3]
    assert seen[2].constants == seen[0].constants
    assert seen[2].keys == 3 * seen[0].keys
    params = TINY_INSECURE
    limbs = len(params.moduli) + len(params.special_moduli)
    assert seen[0].keys == 2 * 2 * params.dnum * limbs * params.n * 8  # two keys of two components


def test_the_owner_unused_longest_makes_room_and_comes_back(
    customers: list[Customer], place: ModelPlace
) -> None:
    one = engine()
    one.prepare(place, customers[0].place)
    worker = engine(key_bytes=2 * one.memory().keys)
    rows = values(4)
    for index in (0, 1, 0, 2, 1, 0):
        answers, _ = run(worker, place, [customers[index].ask(rows)])
        assert customers[index].error(answers[0], rows) < 2.0**-18
        assert worker.memory().owners <= 2
    small = engine(key_bytes=1)
    answers, _ = run(small, place, [c.ask(rows) for c in customers])
    assert all(c.error(a, rows) < 2.0**-18 for c, a in zip(customers, answers, strict=True))
    assert small.memory().owners == 1


def test_forgotten_keys_are_gone_from_memory(customers: list[Customer], place: ModelPlace) -> None:
    worker = engine()
    for c in customers[:2]:
        worker.prepare(place, c.place)
    worker.forget(customers[0].place.owner)
    worker.forget(Owner("nobody", "00"))
    assert worker.memory().owners == 1


def test_ciphertexts_of_one_owner_are_refused_under_the_keys_of_another(
    customers: list[Customer], place: ModelPlace
) -> None:
    worker = engine()
    first, second = customers[:2]
    rows = values(5)
    stolen = dataclasses.replace(first.ask(rows), keys=second.place)
    cut = dataclasses.replace(first.ask(rows), frames=[b"too short"])
    run(worker, place, [first.ask(rows)])
    answers, _ = run(worker, place, [first.ask(rows), stolen, cut, second.ask(rows)])
    assert isinstance(answers[1], KeyMismatchError)
    assert isinstance(answers[2], TruncatedError)
    assert first.error(answers[0], rows) < 2.0**-18
    assert second.error(answers[3], rows) < 2.0**-18


def test_an_abandoned_request_leaves_its_company_alone(
    customers: list[Customer], place: ModelPlace
) -> None:
    def leave(done: int, total: int) -> None:
        if done >= 2:
            raise AbandonedError("the client went away")

    worker = engine()
    rows = values(6)
    run(worker, place, [customers[0].ask(rows)])
    requests = [customers[0].ask(rows, leave), customers[1].ask(rows)]
    answers, _ = run(worker, place, requests)
    assert isinstance(answers[0], AbandonedError)
    assert customers[1].error(answers[1], rows) < 2.0**-18


def test_damaged_or_foreign_key_files_are_named_and_not_kept(
    customers: list[Customer], place: ModelPlace, tmp_path: Path
) -> None:
    worker = engine()
    damaged = tmp_path / "frame"
    damaged.write_bytes(customers[0].place.frames[0].read_bytes()[:-1])
    foreign = customers[1].place.frames
    for frames in [(damaged,), (tmp_path / "nothing",), foreign]:
        places = KeyPlace(customers[0].place.owner, frames)
        request = dataclasses.replace(customers[0].ask(values(7)), keys=places)
        answers, _ = run(worker, place, [request])
        assert isinstance(answers[0], DamagedKeysError)
    assert worker.memory().owners == 0
    answers, _ = run(worker, place, [customers[0].ask(values(7))])
    assert customers[0].error(answers[0], values(7)) < 2.0**-18


def test_a_model_that_changed_on_disk_is_refused(
    customers: list[Customer], place: ModelPlace
) -> None:
    worker = engine()
    changed = dataclasses.replace(place, digest="0" * 64)
    answers, _ = run(worker, changed, [customers[0].ask(values(8))])
    assert isinstance(answers[0], ArtifactError)
    with pytest.raises(ArtifactError):
        worker.prepare(changed, customers[0].place)


def test_settings_and_memory_survive_the_way_to_a_worker_and_back() -> None:
    settings = WorkerSettings(BackendName.NATIVE, 3, 1 << 40, 5, 6, 7, Device.AUTO, 8, 9)
    assert WorkerSettings.from_text(settings.to_text()) == settings
    assert settings.batch_bytes == 2
    settings = WorkerSettings(BackendName.NATIVE, 3, 1 << 40, 5, 6, 7)
    assert WorkerSettings.from_text(settings.to_text()) == settings
    assert settings.batch_bytes == 1
    assert WorkerSettings(BackendName.NATIVE, memory_bytes=1 << 40).batch_bytes == BATCH_BYTES
    memory = WorkerMemory(1, 2, 3, 4, "cuda: some", 5, 6, 7, "lost")
    assert WorkerMemory.from_json(memory.to_json()) == memory
    assert WorkerMemory.from_json(None) == WorkerMemory()
