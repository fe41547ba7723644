"""Evaluations whose answer is known, sent among a customer's own, in random places."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tacit.errors import UserError
from tacit.known_answer import check_known_answer, check_probe
from tacit.packing import known_vectors
from tacit.params import CryptoParams
from tacit.signature import Plan

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Probed:
    """What is evaluated for one prediction.

    Attributes:
        plan: by which plan.
        vectors: shape (evaluations, ciphertexts of all inputs, slots), with the probe.
        place: which evaluation the probe is; None without.
    """

    plan: Plan
    vectors: Floats
    place: int | None

    def checked(self, params: CryptoParams, slots: Floats) -> Floats:
        """Check what is known of the answers, and return the customer's.

        Args:
            params: the model's parameters.
            slots: decrypted, shape (evaluations, ciphertexts of all outputs, slots).

        Raises:
            AnswerError: the reserved rows or the probe came back wrong.
        """
        if self.place is None:
            check_known_answer(params, self.plan, slots)
            return slots
        check_probe(params, self.plan, slots[self.place : self.place + 1])
        return np.delete(slots, self.place, axis=0)


class Probes:
    """Says when a probe is due; safe to use from several threads."""

    def __init__(self, every: int) -> None:
        """Send one with the first and then every so many predictions of a plan; 0 sends none."""
        self._every = every
        self._since: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()

    def among(self, model: str, plan: Plan, vectors: Floats) -> Probed:
        """Put a probe among packed rows if one is due.

        A plan that reserves a row needs none.

        Raises:
            UserError: one is due, and the plan was compiled without known answers.
        """
        if plan.known_answer is not None or not self._is_due(model, plan):
            return Probed(plan, vectors, None)
        probe = known_vectors(plan)
        if probe is None:
            raise no_known_answer(model, plan)
        place = secrets.randbelow(len(vectors) + 1)
        return Probed(plan, np.insert(vectors, place, probe[0], axis=0), place)

    def count(self, model: str, plan: Plan) -> None:
        """Note that a prediction was answered."""
        if self._every:
            with self._lock:
                since = self._since.get((model, plan.name), 0)
                self._since[model, plan.name] = (since + 1) % self._every

    def _is_due(self, model: str, plan: Plan) -> bool:
        with self._lock:
            return self._every > 0 and self._since.get((model, plan.name), 0) == 0


def no_known_answer(model: str, plan: Plan) -> UserError:
    """Return the error of a check that the model was not compiled for."""
    return UserError(
        f"plan {plan.name!r} of model {model!r} has no inputs whose answer is known: have it "
        "compiled with --known-answer, or ask without probes"
    )
