"""OpenFHE's own bootstrapping with a function: `EvalFEFuncBootstrap`, an oracle for our steps.

It computes what `bootstrapping` computes, by steps of its own: it needs one level more at the
beginning, three or more in between, and rotation keys of its own choice with all their limbs, which
`EvalBootstrapKeyGen` makes after `prepare`. So circuits and keys that are compiled for our steps do
not serve it, and servers do not use it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

import openfhe

from tacit.bootstrap import PERIOD, Bootstrap
from tacit.errors import CircuitError, LevelError, ParameterError
from tacit.fourier import Complexes, complex_series
from tacit.params import CryptoParams
from tacit.runtime.backends.openfhe import Floats, OpenFHEEvaluator
from tacit.runtime.backends.openfhe_calls import call, call_with_key
from tacit.type_rules import bootstrapped_type

# OpenFHE keeps its tables in the context, which the whole process shares.
_PREPARING = threading.Lock()


class OwnCallEvaluator(OpenFHEEvaluator):
    """The OpenFHE backend with OpenFHE's own bootstraps; threads may use it after `prepare`.

    Args:
        params: the parameters.
        context: OpenFHE's for these, with keys for its bootstraps under the ciphertexts' key tag.
    """

    def __init__(self, params: CryptoParams, context: openfhe.CryptoContext) -> None:
        super().__init__(params, context)
        self._prepared: dict[int, tuple[int, int]] = {}

    def prepare(self, plan: Bootstrap) -> None:
        """Make OpenFHE's tables for a plan's slots and stages, once.

        Raises:
            ParameterError: the first modulus is not twice the scale, or the period not 2.
            CircuitError: the same slots were prepared with other stages.
        """
        params = self._params
        if params.log_first != params.log_scale + 1 or plan.period != PERIOD:
            raise ParameterError(
                f"OpenFHE bootstraps with a period of {PERIOD} and a first modulus one bit above "
                f"the scale, got {plan.period}, {params.log_first} and {params.log_scale} bits"
            )
        stages = (plan.to_slots, plan.to_coefficients)
        with _PREPARING:
            known = self._prepared.get(plan.log_slots)
            if known is None:
                slots = 1 << plan.log_slots
                call(self._context.EvalFEFuncBootstrapSetup, list(stages), [0, 0], slots)
                self._prepared[plan.log_slots] = stages
            elif known != stages:
                raise CircuitError(
                    f"OpenFHE can bootstrap {1 << plan.log_slots} slots in stages {known} or "
                    f"{stages}, not both: use one choice for all bootstraps"
                )

    def bootstrap(
        self, a: openfhe.Ciphertext, plan: Bootstrap, constants: Mapping[str, Floats]
    ) -> openfhe.Ciphertext:
        """Raise the level, and apply a function to slots in [-1/2, 1/2), by one call.

        Args:
            a: degree 1, at least one level above `plan.to_coefficients`.
            plan: what to do.
            constants: holds the series.

        Raises:
            LevelError: too low a level, or OpenFHE needs more levels than the parameters have.
            UnknownKeyError: a key is missing.
        """
        to = bootstrapped_type(self.type_of(a), plan)
        made = self._refreshed(a, plan, complex_series(constants[plan.series]))
        found = self.type_of(made)
        if found.level < to.level:
            raise LevelError(
                f"OpenFHE bootstraps to level {found.level}, the circuit wants {to.level}: use a "
                f"depth greater by {to.level - found.level}, or our own steps"
            )
        return made if found == to else self.drop(made, to.level)

    def _refreshed(
        self, a: openfhe.Ciphertext, plan: Bootstrap, series: Complexes
    ) -> openfhe.Ciphertext:
        """Bootstrap and rescale to degree 1, at the level where OpenFHE comes out."""
        level = self.type_of(a).level
        if level <= plan.to_coefficients:
            raise LevelError(
                f"OpenFHE bootstraps from level {plan.to_coefficients + 1} or above, not {level}"
            )
        self.prepare(plan)
        inside = call(self._context.Compress, a, level + 1, 1)
        inside.SetSlots(1 << plan.log_slots)
        made = call_with_key(
            self._context.EvalFEFuncBootstrap,
            inside,
            list(series / 2.0),
            key="a key for bootstrapping",
        )
        made.SetSlots(self._params.slots)
        found = self.type_of(made)
        return made if found.degree == 1 else call(self._context.Compress, made, found.level, 1)
