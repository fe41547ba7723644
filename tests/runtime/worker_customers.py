"""Owners of keys for a small model, who ask a worker in this process."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tacit.client.codec import Codec
from tacit.client.keys import KeyPair
from tacit.runtime.requests import Owner, Result
from tacit.runtime.session import ignore_progress
from tacit.runtime.worker import Engine, KeyPlace, ModelPlace, Request
from tests.runtime.models import TINY_INSECURE, arithmetic_artifact

Floats = NDArray[np.float64]
MODEL = arithmetic_artifact()
SLOTS = TINY_INSECURE.slots
PLAN = MODEL.signature.plan("latency")


@dataclass(frozen=True)
class Customer:
    place: KeyPlace
    codec: Codec

    def ask(self, values: Floats, observe: object = ignore_progress) -> Request:
        rows = self.codec.encrypt(PLAN, values[:, None])
        frames = [frame for row in rows for frame in row]
        return Request(self.place, frames, observe)  # type: ignore[arg-type]

    def error(self, result: Result | Exception | None, values: Floats) -> float:
        assert isinstance(result, Result), result
        answer = self.codec.decrypt(PLAN, [[bytes(frame)] for frame in result.frames])[:, 0]
        return float(np.max(np.abs(answer - np.roll(values**2, -3, axis=-1) - 0.25)))


def customer(folder: Path, tenant: str) -> Customer:
    signature = MODEL.signature
    keys = KeyPair.generate(
        signature.params, signature.rotations, True, folder, allow_insecure=True
    )
    frames = tuple(keys.folder.file(entry) for entry in keys.facts.frames)
    return Customer(KeyPlace(Owner(tenant, keys.key_id), frames), Codec(signature, keys))


def run(
    worker: Engine, place: ModelPlace, requests: Sequence[Request]
) -> tuple[list[Result | Exception | None], list[list[int]]]:
    """Answers by index, and the groups of requests that ran together."""
    answers: list[Result | Exception | None] = [None] * len(requests)
    groups: list[list[int]] = []

    def answer(index: int, result: Result | Exception) -> None:
        assert answers[index] is None
        answers[index] = result

    def begin(indices: Sequence[int]) -> None:
        groups.append(list(indices))

    worker.run(place, "latency", requests, begin, answer)
    return answers, groups


def values(seed: int, rows: int = 2) -> Floats:
    return np.random.default_rng(seed).uniform(-1, 1, (rows, SLOTS))
